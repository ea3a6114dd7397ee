"""AWS, the Hub or the network fails in the middle of the chain; the end is the same, and the messages are true."""

import pytest
import stand_in_trainer
from stories import WATCHED, Story, boxes_have_stopped, run_story

from twin import world

pytestmark = pytest.mark.slow  # minutes: a chain for each fault


def faster(story_run) -> None:
    world.fault(story_run.laptop.state, "lag", seconds=0.3)


def seen_at_once(story_run) -> None:
    world.fault(story_run.laptop.state, "unseen", count=1)


def image_again(story_run) -> None:
    stand_in_trainer.register(story_run.laptop.state, step_seconds=0.1)


def room_again(story_run) -> None:
    world.fault(story_run.laptop.state, "quota", value=1024)


API = "ec2.*,ssm.*,s3.*,logs.*,ecr.*,sts.*,scheduler.*,secretsmanager.*"
STORIES = [
    Story("throttle", "up", options={"only": API, "seed": 1, "share": 0.2, "count": 15}),
    Story("server-error", "up", options={"only": API, "seed": 2, "share": 0.2, "count": 12}),
    Story("request-lost", "up", options={"only": API, "seed": 3, "share": 0.2, "count": 12}),
    Story("answer-lost", "up", options={"count": 2}),
    Story("slow", "up", options={"only": "ec2.*,ssm.*", "seconds": 0.3, "count": 20}),
    Story("lag", "up", options={"seconds": 1}, repair=faster),
    Story("instance-lag", "up", options={"count": 2}),
    Story("unseen", "up", options={"count": 3}, repair=seen_at_once),
    Story("capacity", "up", "no g6.2xlarge is available now", "all", ("inv up deploy",), {"count": 0}, hint="`inv up --wait 2h -- "),
    Story("quota", "up", "vCPU quota leaves no room", "all", ("inv up deploy",), hint="`inv doctor -- ", repair=room_again),
    Story("access-denied", "deploy", "AWS refused SendCommand", "all", ("inv deploy",), {"only": "ssm.SendCommand"}, hint="`"),
    Story("registry-token-expired", "deploy"),
    Story("s3-slow", "train", options={"seconds": 0.5, "count": 20}),
    Story("s3-cut", "train", options={"count": 3, "by": "box"}),
    Story(
        "credentials-expired",
        WATCHED,
        "the AWS credentials have expired; log in from another shell",
        retained="the run; the wait goes on by itself",
        options={"count": 3, "only": "s3.GET"},
    ),
    Story("clock-skew", "train", "the box's clock is wrong", then=("inv down", "inv up deploy"), options={"only": "secretsmanager.*"}),
    Story("laptop-killed", "train", then=("inv train",), retained="the run goes on", options={"only": "ssm.SendCommand"}),
    Story(
        "object-lost",
        "train",
        "is done, and S3 has no manifest of it",
        retained="the run, finished, on the volume",
        then=("inv train",),
        options={"key": "*/manifest.json"},
    ),
    Story("image-gone", "train", "has no image of this tree", then=("inv deploy",), repair=image_again),
    Story("hub-slow", "publish", options={"seconds": 0.5, "count": 4}),
    Story("hub-error", "publish", "answered 503", "the sealed run", ("inv publish",), {"count": 0}, hint="repeat the command"),
    Story("hub-unauthorized", "publish", "does not accept the token (401)", "the sealed run", ("inv publish",), hint="hf auth login"),
    Story(
        "hub-cut",
        "publish",
        "did not answer",
        "the sealed run; nothing is uploaded twice",
        ("inv publish",),
        {"count": 0},
        hint="repeat the command",
    ),
    Story("manifest-missing", "publish", "there is no finished smoke run", "the run, finished, on the volume", ("inv train",)),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story(laptop, story_runs, story):
    run_story(laptop, story_runs, story, seed=100 + STORIES.index(story))


def test_every_box_that_was_left_has_stopped_by_itself_soon_enough(laptop, story_runs):
    boxes_have_stopped(laptop, laptop.clock, story_runs)
