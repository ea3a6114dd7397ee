"""No box is forgotten: left alone, hung, or over its time, it stops itself, and says why; where it is dead, AWS stops it."""

import json
import time
from datetime import UTC, datetime

import pytest
import stand_in_trainer
from test_recovery import run_ids, state, trainers, wait_until

from twin import processes, world

pytestmark = pytest.mark.system  # minutes: each story waits for a box to be left alone

IDLE = 0.1  # minutes
ALLOWED = IDLE * 60 + 120  # seconds of paid time after the last useful one


@pytest.fixture
def off(laptop):
    """The laptop; the box is stopped afterwards, whatever the test has done."""
    yield laptop
    laptop.inv("down", "--force", ok=False)


def instance(laptop) -> dict:
    return laptop.client("ec2").describe_instances()["Reservations"][-1]["Instances"][-1]


def stopped(laptop) -> bool:
    return instance(laptop)["State"]["Name"] == "stopped"


def why(laptop) -> str:
    return {tag["Key"]: tag["Value"] for tag in instance(laptop)["Tags"]}["fine-tune-slm:stopped"]


def root(laptop):
    return laptop.state / "boxes" / instance(laptop)["InstanceId"] / "root"


def schedules(laptop) -> list[str]:
    return [entry["Name"] for entry in laptop.client("scheduler").list_schedules()["Schedules"]]


def test_a_box_left_alone_stops_itself_and_says_why(off):
    off.inv("up", overrides=(f"box.idle_minutes={IDLE}",))
    left = time.monotonic()
    wait_until(lambda: stopped(off), ALLOWED)
    print(f"{time.monotonic() - left:.0f} s after the last command")
    assert "idle: no run and no command" in why(off)
    (report,) = [json.loads(off.object(key)) for key in off.objects() if "/boxes/" in key]
    assert report["stopped"] in why(off)
    assert instance(off)["InstanceId"] == report["instance"]


def test_commands_are_use_of_the_box(off):
    """Each gap is shorter than the idle limit, all of them together are longer."""
    words = ("box.idle_minutes=0.3",)
    off.inv("up", "deploy", overrides=words)
    began = time.monotonic()
    while time.monotonic() - began < 24:
        time.sleep(8)
        off.inv("deploy", overrides=words)
    assert not stopped(off)


def test_a_box_over_its_time_ends_the_run_saves_it_and_stops(off):
    stand_in_trainer.register(off.state, step_seconds=1)
    short = ("train.steps=300", "train.save_every=5", "box.idle_minutes=0.6", "box.max_hours=0.012")
    off.inv("up", "deploy", "train", "--detach", overrides=short)
    run_id = run_ids(off)[-1]
    wait_until(lambda: stopped(off), 43 + 120)
    assert "box.max_hours is over" in why(off)
    assert (state(off, run_id)["phase"], state(off, run_id)["reason"]) == ("failed", "stopped")
    assert "the box stopped itself" in state(off, run_id)["evidence"]
    assert not trainers(off)
    assert any(f"{run_id}/checkpoints/" in key and key.endswith("COMPLETE") for key in off.objects())
    stranded = off.inv("train", overrides=short, ok=False)
    assert "`inv up`" in stranded.stderr


def test_a_box_stops_itself_when_the_limit_of_costs_is_spent(off):
    """At a dollar a second, by the ledger: what the box has cost until now, and 25 dollars more."""
    stand_in_trainer.register(off.state, step_seconds=1)
    words = ("train.steps=300", "train.save_every=5", "seed=9", "cost.per_hour=3600")
    since = len(off.journal())
    refused = off.inv("up", overrides=(*words, "cost.limit=0.0000001"), ok=False)
    assert "the run is planned to cost" in refused.stderr and "`cost.limit=" in refused.stderr
    assert not {"RunInstances", "StartInstances"} & {call["operation"] for call in off.journal()[since:]}
    off.inv("up", "deploy", overrides=(*words, "cost.limit=3000"))
    spent = (datetime.now(UTC) - instance(off)["LaunchTime"]).total_seconds()
    off.inv("train", "--detach", overrides=(*words, f"cost.limit={spent + 25:.0f}"))
    run_id = run_ids(off)[-1]
    wait_until(lambda: stopped(off), 25 + 60)
    assert "cost.limit is spent" in why(off)
    assert (state(off, run_id)["phase"], state(off, run_id)["reason"]) == ("failed", "stopped")
    (report,) = [json.loads(off.object(key)) for key in off.objects() if "/boxes/" in key and run_id in off.object(key).decode()]
    assert report["ran"] == run_id


def test_a_run_that_hangs_is_no_use_of_the_box(off):
    stand_in_trainer.register(off.state, hang_at=2)
    words = ("train.steps=4", "seed=4", "box.idle_minutes=0.5", "box.gpu=false")
    off.inv("up", "deploy", "train", "--detach", overrides=words)
    wait_until(lambda: stopped(off), 0.5 * 60 + 120)
    assert "the trainer has written nothing" in why(off)
    assert state(off, run_ids(off)[-1])["reason"] == "stopped"


def test_the_schedule_is_armed_once_never_moved_and_gone_after_a_verified_stop(off):
    off.inv("up")
    (name,) = schedules(off)
    scheduler = off.client("scheduler")
    first = scheduler.get_schedule(Name=name)
    due = datetime.strptime(first["ScheduleExpression"], "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC)
    assert 12.0 < (due - datetime.now(UTC)).total_seconds() / 3600 < 12.2
    assert json.loads(first["Target"]["Input"]) == {"InstanceIds": [instance(off)["InstanceId"]]}
    off.inv("up", overrides=("box.max_hours=24",))
    assert scheduler.get_schedule(Name=name)["ScheduleExpression"] == first["ScheduleExpression"]
    off.inv("down")
    assert schedules(off) == []


def test_down_of_a_box_that_stopped_itself_verifies_it_and_takes_the_schedule_away(off):
    off.inv("up")
    off.client("ec2").stop_instances(InstanceIds=[instance(off)["InstanceId"]])
    wait_until(lambda: stopped(off))
    assert schedules(off)
    assert "is stopped" in off.inv("down").stdout
    assert schedules(off) == []


def test_a_killed_supervisor_is_started_again_by_the_next_up(off):
    off.inv("up")

    def supervisors():
        return [process for process in processes.of(root(off)) if "supervise.sh" in " ".join(process.cmdline())]

    for process in supervisors():
        process.kill()
    wait_until(lambda: not supervisors())
    off.inv("up")
    assert wait_until(supervisors)


def test_a_dead_box_is_stopped_by_the_schedule(off):
    """Agent, supervisor and laptop are gone: nothing of ours can stop it. Last in this file: afterwards it is 12 hours later."""
    off.inv("up")
    for process in processes.of(root(off)):
        process.kill()
    world.forward(off.state, 11 * 3600)
    assert not stopped(off)
    world.forward(off.state, 3600 + 11 * 60)
    wait_until(lambda: stopped(off))
    assert schedules(off) == []
