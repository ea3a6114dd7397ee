"""No box is forgotten: left alone, hung, ruined or over its time, it stops itself, and says why; where it is dead, AWS stops it.

The boxes are left alone at the same time, so that the waits for them are one wait.
"""

import json
import time
from datetime import UTC, datetime

import pytest
import stand_in_trainer
from test_recovery import wait_until

from twin import world
from twin.box import processes

pytestmark = pytest.mark.slow  # a minute: boxes are left alone

IDLE = 0.1  # minutes
SLOW = 900  # seconds that a busy machine may take longer
RUINS = ("agent-dies", "agent-hangs", "docker-dead", "gpu-missing", "clock-wrong", "mount-lost", "disk-full", "disk-unreadable")


class Box:
    """One box of the laptop, with a run of its own."""

    def __init__(self, laptop, name: str, *settings: str):
        self.laptop, self.name = laptop, name
        self.settings = (f"box.name={name}", *settings)

    def inv(self, *verbs: str, more: tuple[str, ...] = (), ok: bool = True):
        done = self.laptop.inv(*verbs, overrides=(*self.settings, *more), ok=ok)
        self.left = world.forward(self.laptop.state, 0)  # by the world's clock, as its meter counts
        return done

    @property
    def instance(self) -> dict:
        filters = [{"Name": "tag:fine-tune-slm:box", "Values": [self.name]}]
        return self.laptop.client("ec2").describe_instances(Filters=filters)["Reservations"][-1]["Instances"][-1]

    @property
    def stopped(self) -> bool:
        return self.instance["State"]["Name"] == "stopped"

    @property
    def why(self) -> str:
        return {tag["Key"]: tag["Value"] for tag in self.instance["Tags"]}["fine-tune-slm:stopped"]

    @property
    def root(self):
        return self.laptop.state / "boxes" / self.instance["InstanceId"] / "root"

    @property
    def reports(self) -> list[dict]:
        keys = [key for key in self.laptop.objects() if f"/boxes/{self.instance['InstanceId']}/" in key]
        return [json.loads(self.laptop.object(key)) for key in keys]

    @property
    def run_id(self) -> str:
        held = [key for key in self.laptop.objects() if key.endswith("/box.json")]
        (mine,) = [key.split("/")[2] for key in held if json.loads(self.laptop.object(key))["name"] == self.name]
        return mine

    @property
    def state(self) -> dict:
        return json.loads(self.laptop.object(f"fine-tune-slm/runs/{self.run_id}/state.json"))

    def stops_within(self, seconds: float) -> None:
        """After it was left, by the meter; a busy machine is slow to do so."""
        wait_until(lambda: self.stopped, seconds + SLOW)
        rows = world.costs(self.laptop.state)["rows"]
        (paid,) = [row["until"] for row in rows if row["id"] == self.instance["InstanceId"] and (row["until"] or 0) > self.left]
        assert paid - self.left <= seconds + SLOW


@pytest.fixture(scope="module")
def boxes(laptop):
    """Boxes that are left alone from now on."""
    stand_in_trainer.register(laptop.state, hang_at=2)
    made = {"hung": Box(laptop, "hung", "box.idle_minutes=0.4", "box.gpu=false", "train.steps=4")}
    made["hung"].inv("up", "deploy", "train", "--detach")
    stand_in_trainer.register(laptop.state, step_seconds=1)
    made["late"] = Box(laptop, "late", "box.idle_minutes=0.6", "box.max_hours=0.01", "train.steps=300", "train.save_steps=5")
    made["late"].inv("up", "deploy", "train", "--detach")
    for ruin in RUINS:
        made[ruin] = Box(laptop, ruin, f"box.idle_minutes={IDLE * 2}")
        made[ruin].inv("up", "deploy")
        world.fault(laptop.state, ruin, instance=made[ruin].instance["InstanceId"])
    made["idle"] = Box(laptop, "idle", f"box.idle_minutes={IDLE}")
    made["idle"].inv("up")
    return made


def schedules(laptop) -> list[str]:
    return [schedule["Name"] for schedule in laptop.client("scheduler").list_schedules()["Schedules"]]


def test_commands_are_use_of_the_box(laptop, boxes):
    """Each gap is shorter than the idle limit, all of them together are longer."""
    busy = Box(laptop, "busy", "box.idle_minutes=0.3")
    busy.inv("up", "deploy")
    began = time.monotonic()
    while time.monotonic() - began < 24:
        time.sleep(8)
        busy.inv("deploy")
    assert not busy.stopped
    busy.inv("down")


def test_a_box_left_alone_stops_itself_and_says_why(boxes):
    box = boxes["idle"]
    box.stops_within(IDLE * 60)
    assert "idle: no run and no command" in box.why
    (report,) = box.reports
    assert report["stopped"] in box.why
    assert box.instance["InstanceId"] == report["instance"]


def test_a_run_that_hangs_is_no_use_of_the_box(boxes):
    box = boxes["hung"]
    box.stops_within(0.4 * 60)
    assert "the trainer has written nothing" in box.why
    assert box.state["reason"] == "stopped"


def test_a_box_over_its_time_ends_the_run_saves_it_and_stops(boxes):
    box = boxes["late"]
    box.stops_within(36)
    assert "box.max_hours is over" in box.why
    assert (box.state["phase"], box.state["reason"]) == ("failed", "stopped")
    assert "the box stopped itself" in box.state["evidence"]
    assert processes.of(box.root) == []
    assert any(f"/{box.run_id}/checkpoints/" in key and key.endswith("COMPLETE") for key in box.laptop.objects())
    stranded = box.inv("train", ok=False)
    assert "`inv up -- " in stranded.stderr


@pytest.mark.parametrize("ruin", RUINS)
def test_a_ruined_box_stops_itself_all_the_same(boxes, ruin):
    boxes[ruin].stops_within(IDLE * 2 * 60)


def test_a_box_stops_itself_when_the_limit_of_costs_is_spent(laptop):
    """At a dollar a second, by the ledger: what the box has cost until now, and 25 dollars more."""
    stand_in_trainer.register(laptop.state, step_seconds=1)
    box = Box(laptop, "dear", "train.steps=300", "train.save_steps=5", "seed=2", "cost.per_hour=3600")
    since = len(laptop.journal())
    refused = box.inv("up", more=("cost.limit=0.0000001",), ok=False)
    assert "the run is planned to cost" in refused.stderr and "`cost.limit=" in refused.stderr
    assert not {"RunInstances", "StartInstances"} & {call["operation"] for call in laptop.journal()[since:]}
    box.inv("up", "deploy", more=("cost.limit=3000",))
    spent = max(60, (datetime.now(UTC) - box.instance["LaunchTime"]).total_seconds())  # as AWS charges
    box.inv("train", "--detach", more=(f"cost.limit={spent + 25:.0f}",))
    wait_until(lambda: box.stopped, 60 + 25 + 60)
    assert "cost.limit is spent" in box.why
    assert (box.state["phase"], box.state["reason"]) == ("failed", "stopped")
    (report,) = box.reports
    assert report["ran"] == box.run_id


def test_the_schedule_is_armed_once_never_moved_and_gone_after_a_verified_stop(laptop):
    box, scheduler = Box(laptop, "armed"), laptop.client("scheduler")
    box.inv("up")
    name = f"fine-tune-slm-{box.instance['InstanceId']}"
    first = scheduler.get_schedule(Name=name)
    due = datetime.strptime(first["ScheduleExpression"], "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=UTC)
    assert 12.0 < (due - datetime.now(UTC)).total_seconds() / 3600 < 12.2
    assert json.loads(first["Target"]["Input"]) == {"InstanceIds": [box.instance["InstanceId"]]}
    box.inv("up", more=("box.max_hours=24",))
    assert scheduler.get_schedule(Name=name)["ScheduleExpression"] == first["ScheduleExpression"]
    box.inv("down")
    assert name not in schedules(laptop)


def test_down_of_a_box_that_stopped_itself_verifies_it_and_takes_the_schedule_away(laptop, boxes):
    box = boxes["idle"]
    box.stops_within(IDLE * 60)
    assert f"fine-tune-slm-{box.instance['InstanceId']}" in schedules(laptop)
    assert "is stopped" in box.inv("down").stdout
    assert f"fine-tune-slm-{box.instance['InstanceId']}" not in schedules(laptop)


def test_a_killed_supervisor_is_started_again_by_the_next_up(laptop):
    box = Box(laptop, "armed")
    box.inv("up")

    def supervisors():
        return processes.called(box.root, "supervise.sh")

    for process in supervisors():
        process.kill()
    wait_until(lambda: not supervisors())
    box.inv("up")
    assert wait_until(supervisors)


def test_a_dead_box_is_stopped_by_the_schedule(laptop):
    """Agent, supervisor and laptop are gone: nothing of ours can stop it. Last in this file: afterwards it is 12 hours later."""
    box = Box(laptop, "armed")
    box.inv("up")
    processes.kill(box.root)
    world.forward(laptop.state, 11 * 3600)
    assert not box.stopped
    world.forward(laptop.state, 3600 + 11 * 60)
    wait_until(lambda: box.stopped)
    assert f"fine-tune-slm-{box.instance['InstanceId']}" not in schedules(laptop)
