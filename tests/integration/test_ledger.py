"""The ledger beside the emulated account's own meter: each start of a box, by the second, whatever has ended it."""

import re

import pytest
import stand_in_trainer
from conftest import ODD, Laptop
from test_recovery import run_ids, wait_until

from twin import world

pytestmark = pytest.mark.slow  # half a minute: a box is started three times
SUM = re.compile(r"^(\S.*?) +(\d+\.\d+) *$", re.M)
LINE = re.compile(r"^(i-\w+) (\S+) from (\S+) +(\d+) s +(\S+) a hour +(\S+) *$", re.M)


@pytest.fixture
def account(tmp_path):
    """A world in which nothing has cost anything."""
    made = Laptop(tmp_path / ODD)
    made.folder.mkdir()
    made.inv("twin.start")
    yield made
    world.stop(made.state)


def instance(laptop) -> dict:
    return laptop.client("ec2").describe_instances()["Reservations"][-1]["Instances"][-1]


def stopped(laptop) -> bool:
    return instance(laptop)["State"]["Name"] == "stopped"


def test_every_start_costs_what_the_meter_says_after_stop_restart_and_death(laptop):
    laptop.inv("up")
    world.forward(laptop.state, 1200)
    laptop.inv("down")
    world.forward(laptop.state, 3600)  # stopped: of the box nothing is paid
    laptop.inv("up")
    world.fault(laptop.state, "box-dead")  # its supervisor is never heard of again
    world.forward(laptop.state, 2400)
    world.fault(laptop.state, "box-stopped")
    wait_until(lambda: stopped(laptop))
    laptop.inv("up", "down", overrides=("box.instance_type=g6e.2xlarge",))  # what a new one would be is not what this one is
    rows = [row for row in world.costs(laptop.state)["rows"] if row["kind"] == "instance"]
    lines = LINE.findall(laptop.inv("costs").stdout)
    assert len(rows) == len(lines) == 3
    assert [float(line[3]) for line in lines] == pytest.approx([row["seconds"] for row in rows], abs=3)
    assert [float(line[5]) for line in lines] == pytest.approx([row["usd"] for row in rows], abs=0.001)
    assert {line[1] for line in lines} == {"g6.2xlarge"}
    laptop.inv("down", "--purge", "--yes")
    assert len(LINE.findall(laptop.inv("costs").stdout)) == 3


def test_the_sums_by_person_run_and_day_are_the_total_and_the_meters(account):
    stand_in_trainer.register(account.state, step_seconds=0.5)
    account.inv("up", "deploy", "train", overrides=("train.steps=8",))
    (run_id,) = run_ids(account)
    world.forward(account.state, 1080)
    account.inv("down", overrides=("train.steps=8",))
    sums = {
        way: {name: float(usd) for name, usd in SUM.findall(account.inv("costs", "--by", way).stdout)} for way in ("person", "run", "day")
    }
    paid = sum(row["usd"] for row in world.costs(account.state)["rows"] if row["kind"] in ("instance", "volume"))
    for way, each in sums.items():
        total = each.pop("until now")
        assert sum(each.values()) == pytest.approx(total, abs=0.0005), way
        assert total == pytest.approx(paid, abs=0.01), way
    assert list(sums["person"]) == [world.CALLER.rpartition(":")[2]]
    assert set(sums["run"]) == {run_id, "disks", "no run: set up, or waiting"}
    assert 4 / 3600 * 0.9 < sums["run"][run_id] < sums["run"]["no run: set up, or waiting"], "it was at work for seconds of these minutes"
