"""Something befalls the box, its agent, docker or disks in the middle of the chain; it ends the same, and what the user reads is true."""

import signal

import pytest
from stories import RUNNING, WATCHED, Story, boxes_have_stopped, run_story
from test_recovery import wait_until

from twin import world

pytestmark = pytest.mark.slow  # minutes: a chain for each fault
DELIVERY = 1100  # seconds after which Run Command gives a step up that no agent takes
LIFE = 12 * 3600 + 700  # seconds after which the schedule outside has stopped any box


def asked(story_run) -> bool:
    """Whether a command waits for the box's agent."""
    commands = story_run.laptop.client("ssm").list_commands(InstanceId=story_run.instance)["Commands"]
    return any(command["Status"] == "Pending" for command in commands)


def time_goes_by(story_run) -> None:
    wait_until(lambda: asked(story_run))
    story_run.clock.forward(DELIVERY)


def a_life_goes_by(story_run) -> None:
    story_run.clock.forward(LIFE)
    wait_until(lambda: story_run.instances[-1]["State"]["Name"] == "stopped")


def interrupted(story_run) -> None:
    """It would be told after ten minutes; nobody waits so long."""
    wait_until(lambda: story_run.instances and story_run.instances[-1]["State"]["Name"] == "running")
    story_run.going.send_signal(signal.SIGINT)


def turned_off_and_counted_the_other_way(story_run) -> None:
    world.fault(story_run.laptop.state, "box-stopped", instance=story_run.instance)
    wait_until(lambda: not story_run.trains() and story_run.instances[-1]["State"]["Name"] == "stopped")


def it_ended(story_run) -> None:
    wait_until(lambda: not story_run.trains())


def taken_back(story_run) -> None:
    it_ended(story_run)
    story_run.clock.forward(1205)
    wait_until(lambda: story_run.instances[-1]["State"]["Name"] == "stopped")


def given_again(story_run) -> None:
    world.fault(story_run.laptop.state, "spot-back", instance=story_run.instance)


def without_systemd(story_run) -> None:
    world.fault(story_run.laptop.state, "systemd", on=False)


WAIT_ENDED = "stopped; what runs on the box goes on"
ON_THE_VOLUME = "the log, and the newest checkpoint on the volume"
PATIENT = ("box.idle_minutes=1.5",)  # the box waits for what is typed next, on a busy machine, too
IN_S3 = "the log, and the newest checkpoint in S3"
STORIES = [
    Story("agent-restarts", RUNNING),
    Story("docker-slow", "deploy", options={"seconds": 0.2}),
    Story("device-late", "up", options={"seconds": 3}),
    Story("disk-cold", "up", options={"seconds": 4}),
    Story("systemd", "up", repair=without_systemd),
    Story(
        "gpu-lost", WATCHED, "failed (gpu_lost): the trainer has lost the GPU", ON_THE_VOLUME, ("inv train",), settings=PATIENT, ends=True
    ),
    Story("container-killed", WATCHED, "failed (killed)", ON_THE_VOLUME, ("inv train",), settings=PATIENT, ends=True),
    Story("box-stopped", RUNNING, "is stopped", ON_THE_VOLUME, ("inv up deploy train",), ends=True),
    Story(
        "spot-notice",
        RUNNING,
        "is stopped",
        IN_S3,
        ("inv up deploy train",),
        {"seconds": 1200},  # on a busy machine 120 are too few
        settings=("box.spot=true",),
        ends=True,
        first=taken_back,
        repair=given_again,
    ),
    Story("box-reboots", RUNNING, "the volume is not mounted on the box", ON_THE_VOLUME, ("inv deploy train",), ends=True),
    Story("box-terminated", RUNNING, "there is no box", ON_THE_VOLUME, ("inv up deploy train",), ends=True),
    Story("mount-lost", RUNNING, "the volume is not mounted on the box", ON_THE_VOLUME, ("inv deploy train",), first=it_ended),
    Story(
        "disk-full",
        WATCHED,
        "failed (disk_full): the disk is full",
        ON_THE_VOLUME,
        ("inv up deploy train -- box.disk_gb=120",),
        hint=" box.disk_gb=...`",
        ends=True,
    ),
    Story("gpu-missing", "train", "the box shows no GPU", then=("inv down", "inv up deploy")),
    Story("docker-dead", "deploy", "docker on the box does not answer", then=("inv down", "inv up deploy")),
    Story("docker-dead", RUNNING, "docker on the box does not answer", ON_THE_VOLUME, ("inv down --force", "inv up deploy train")),
    Story("clock-wrong", "train", "the box's clock is wrong", then=("inv down", "inv up deploy")),
    Story(
        "foreign-filesystem",
        "up",
        "is not formatted: it holds ntfs",
        "every byte of it",
        ("inv down --purge --yes", "inv up deploy"),
        {"kind": "ntfs"},
    ),
    Story("disk-unreadable", "deploy", "is not formatted: ", "every byte of it", ("inv down --purge --yes", "inv up deploy")),
    Story("devices-swapped", RUNNING, "is stopped", ON_THE_VOLUME, ("inv up deploy train",), first=turned_off_and_counted_the_other_way),
    Story(
        "agent-never-registers",
        "up",
        WAIT_ENDED,
        "all",
        ("inv down --force", "inv up deploy"),
        hint="`inv status -- ",
        meanwhile=interrupted,
    ),
    Story("agent-dies", "train", "did not take the command", then=("inv down --force", "inv up deploy"), meanwhile=time_goes_by),
    Story("agent-hangs", "deploy", "did not take the command", then=("inv down --force", "inv up deploy"), meanwhile=time_goes_by),
    Story("box-dead", RUNNING, "is stopped", ON_THE_VOLUME, ("inv up deploy train",), ends=True, first=a_life_goes_by),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story(laptop, story_runs, story):
    run_story(laptop, story_runs, story, seed=100 + STORIES.index(story))


def test_every_box_that_was_left_has_stopped_by_itself_soon_enough(laptop, story_runs):
    boxes_have_stopped(laptop, laptop.clock, story_runs)
