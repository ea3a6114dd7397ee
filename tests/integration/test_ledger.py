"""The ledger beside the emulated account's own meter: each start of a box, by the second, whatever has ended it."""

import re

import pytest
from test_recovery import wait_until

from twin import world

pytestmark = pytest.mark.slow  # half a minute: a box is started three times
LINE = re.compile(r"^(i-\w+) (\S+) from (\S+) +(\d+) s +(\S+) a hour +(\S+) *$", re.M)


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
