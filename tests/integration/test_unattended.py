"""A box that nobody came to set up stops itself: the laptop died as soon as it had launched it, or its agent never answered."""

import os
import signal

import pytest
from test_recovery import wait_until

from remote.aws import launch
from twin import world

pytestmark = pytest.mark.slow  # half a minute: boxes are launched and left
LEFT = launch.UNATTENDED * 60  # seconds


def named(name: str) -> tuple[str, str]:
    return f"box.name={name}", f"cloud.prefix={name}"


def instance_id(laptop, name: str) -> dict | None:
    reservations = laptop.client("ec2").describe_instances(Filters=[{"Name": "tag:fine-tune-slm:box", "Values": [name]}])["Reservations"]
    return reservations[0]["Instances"][0] if reservations else None


def state(laptop, name: str) -> str:
    return instance_id(laptop, name)["State"]["Name"]


def planned(laptop, name: str) -> bool:
    """Whether the box has begun, and has done what its launch gave it to do."""
    made = instance_id(laptop, name)
    log = made and laptop.state / "boxes" / made["InstanceId"] / "root/var/log/cloud-init-output.log"
    return bool(made) and log.exists() and "Shutdown scheduled" in log.read_text() and not (log.parents[3] / "power").exists()


def test_a_laptop_that_dies_as_soon_as_it_has_launched_a_box_leaves_none_on(laptop):
    world.fault(laptop.state, "laptop-killed", only="ec2.RunInstances")
    assert laptop.inv("up", overrides=named("orphan"), ok=False).returncode == -signal.SIGKILL
    assert not laptop.client("scheduler").list_schedules()["Schedules"]
    wait_until(lambda: planned(laptop, "orphan"))
    world.forward(laptop.state, LEFT - 60)
    assert state(laptop, "orphan") == "running"
    world.forward(laptop.state, 90)
    wait_until(lambda: state(laptop, "orphan") == "stopped")


def test_a_box_whose_agent_never_comes_is_armed_before_it_is_waited_for_and_an_up_that_ends_says_that_it_is_on(laptop):
    world.fault(laptop.state, "agent-never-registers")
    going = laptop.popen("up", overrides=named("mute"))
    wait_until(lambda: planned(laptop, "mute") and laptop.client("scheduler").list_schedules()["Schedules"])
    os.killpg(going.pid, signal.SIGINT)
    printed, _ = going.communicate(timeout=900)
    assert "is still on: it stops itself 30 min after its start, unless an `inv up -- cloud=twin " in printed
    assert "` sets it up, and is stopped by AWS at 2" in printed
    world.forward(laptop.state, LEFT + 30)
    wait_until(lambda: state(laptop, "mute") == "stopped")


def test_nor_is_it_left_on_when_it_is_started_again(laptop):
    made = instance_id(laptop, "mute")["InstanceId"]
    (laptop.state / "boxes" / made / "root/var/log/cloud-init-output.log").unlink()
    world.fault(laptop.state, "agent-never-registers")
    laptop.client("ec2").start_instances(InstanceIds=[made])
    wait_until(lambda: planned(laptop, "mute"))
    world.forward(laptop.state, LEFT + 30)
    wait_until(lambda: state(laptop, "mute") == "stopped")


def test_a_box_that_was_set_up_is_its_supervisors(laptop):
    since = len(laptop.journal())
    laptop.inv("up", overrides=named("kept"))
    calls = [f"{call['service']} {call['operation']}" for call in laptop.journal()[since:] if call["by"] == "twin"]
    begun = calls[calls.index("ec2 RunInstances") :]
    assert begun.index("scheduler POST") < begun.index("ec2 DescribeInstances"), "it was waited for before anything would stop it"
    wait_until(lambda: planned(laptop, "kept"))
    world.forward(laptop.state, LEFT + 30)
    assert state(laptop, "kept") == "running"
    laptop.inv("down", overrides=named("kept"))
    log = laptop.state / "boxes" / instance_id(laptop, "kept")["InstanceId"] / "root/var/log/cloud-init-output.log"
    count = log.read_text().count("Shutdown scheduled")
    laptop.inv("up", "down", overrides=named("kept"))
    assert log.read_text().count("Shutdown scheduled") == count, "a box that was set up plans nothing at its later starts"
