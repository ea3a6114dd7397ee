"""The laptop dies at any call: the same verb again, and the end is the same as if nothing had happened."""

import json
import signal

import pytest
import stand_in_trainer
from crash import killed
from test_chain import runs
from test_recovery import wait_until

pytestmark = pytest.mark.slow  # minutes: every verb is killed at every call
CHAIN = ("up", "deploy", "train", "publish", "down")
HUB = {"POST api/repos/create", "PUT api/lfs/*", "POST */commit/main", "POST */tag/*"}
CHANGES = {
    "up": {"PutObject locks", "RunInstances", "CreateSchedule", "CreateVolume", "AttachVolume", "PutParameter", "SendCommand setup"},
    "deploy": {"SendCommand volume", "CreateTags", "SendCommand deploy", "PutObject audit", "DeleteObject locks"},
    "train": {"PutObject inputs", "PutObject runs config.yaml", "SendCommand train", "PutObject audit"},
    "publish": {*HUB, *(f"before {call}" for call in HUB), "PutObject runs published.json", "PutObject audit"},
    "down": {"SendCommand stop", "StopInstances", "DeleteSchedule", "PutObject audit"},
}
READS = {
    "up": {"GetCallerIdentity", "DescribeInstances", "DescribeVolumes", "DescribeInstanceInformation", "GetCommandInvocation"},
    "deploy": {"DescribeInstances", "DescribeVolumes", "DescribeImages", "GetCommandInvocation"},
    "train": {"GetSecretValue", "DescribeInstances", "HeadBucket", "ListObjectsV2", "GetCommandInvocation", "GetObject runs state.json"},
    "publish": {"ListObjectsV2", "GetObject runs manifest.json", "GetSecretValue", "GET */refs", "GET */tree/main", "GET */resolve"},
    "down": {"DescribeInstances", "GetCommandInvocation"},
}


@pytest.fixture(scope="module")
def calls(laptop):
    """Every verb of the chain has been killed at every call; which calls these were."""
    stand_in_trainer.register(laptop.state)
    return {verb: killed(laptop, verb, overrides=("train.steps=4",)) for verb in CHAIN}


@pytest.mark.parametrize("verb", CHAIN)
def test_it_was_killed_at_every_call_that_matters(calls, verb):
    assert CHANGES[verb] | READS[verb] <= set(calls[verb])


def test_there_is_one_box_stopped_with_one_volume_and_nothing_waits_for_it(laptop, calls):
    (box,) = [instance for group in laptop.client("ec2").describe_instances()["Reservations"] for instance in group["Instances"]]
    assert box["State"]["Name"] == "stopped"
    tagged = [{"Name": "tag-key", "Values": ["fine-tune-slm:box"]}]
    assert len(laptop.client("ec2").describe_volumes(Filters=tagged)["Volumes"]) == 1
    assert laptop.client("scheduler").list_schedules()["Schedules"] == []
    assert not [key for key in laptop.objects() if "/locks/" in key]


def test_there_is_one_run_whose_every_step_was_done_once(laptop, calls):
    ((run_id, files),) = runs(laptop).items()
    assert "manifest.json" in files
    assert json.loads(laptop.object(f"fine-tune-slm/runs/{run_id}/state.json"))["phase"] == "done"
    log = laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode().splitlines()
    assert [line for line in log if line.startswith("step ")] == [f"step {number} of 4" for number in range(1, 5)]


def test_one_version_is_published(laptop, calls):
    import huggingface_hub

    (run_id,) = runs(laptop)
    record = json.loads(laptop.object(f"fine-tune-slm/runs/{run_id}/published.json"))
    place = laptop.environment
    hub = huggingface_hub.HfApi(endpoint=place["HF_ENDPOINT"], token=place["HF_TOKEN"])
    assert [tag.name for tag in hub.list_repo_refs(record["repository"]).tags] == [run_id]
    assert len([commit for commit in hub.list_repo_commits(record["repository"]) if run_id in commit.title]) == 1


def test_a_laptop_that_dies_between_two_calls_leaves_the_run_going(laptop, calls):
    """The fault of the twin strikes wherever the process is: here before its next call is done."""
    from twin import world

    settings = ("train.steps=6", "seed=2")
    laptop.inv("up", "deploy", overrides=settings)
    before = len(runs(laptop))
    world.fault(laptop.state, "laptop-killed", moment="before", only="ssm.SendCommand")
    assert laptop.inv("train", overrides=settings, ok=False).returncode == -signal.SIGKILL
    assert "is done" in laptop.inv("train", overrides=settings).stdout
    wait_until(lambda: len(runs(laptop)) == before + 1)
