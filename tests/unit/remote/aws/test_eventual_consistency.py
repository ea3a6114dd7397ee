"""What was made a moment ago may be denied for some seconds; what is not there stays denied."""

import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from conf.problem import Problem
from remote.aws import eventual_consistency, instance, volume
from remote.aws.session import Aws
from twin import world

BLANK = {"AvailabilityZone": "us-east-1a", "Size": 1, "VolumeType": "gp3"}


@pytest.fixture
def account(aws, monkeypatch):
    """An account that denies each new thing three times."""
    monkeypatch.setattr(eventual_consistency, "PAUSE", 0.01)
    world.fault(Path(aws.cloud.state), "unseen", count=3)
    yield aws
    world.fault(Path(aws.cloud.state), "unseen", count=1)


def test_a_new_box_and_a_new_volume_are_waited_for(account, settings):
    run = settings()
    made = instance.ensure(account, run.box)
    running = instance.wait(account, made.instance_id)
    attached = volume.ensure(account, run.box, made.instance_id, running.zone)
    assert attached.changed == "created"
    assert volume.require(account, run.box.name).volume_id == attached.volume_id
    assert instance.stop(account, made.instance_id).state == "stopped"


def test_every_call_that_names_a_new_thing_waits_for_it_and_not_only_those_that_describe_it(account):
    ec2 = account.client("ec2")
    made = ec2.create_volume(**BLANK)["VolumeId"]
    ec2.create_tags(Resources=[made], Tags=[{"Key": "a", "Value": "b"}])
    ec2.describe_snapshots(SnapshotIds=[ec2.create_snapshot(VolumeId=made)["SnapshotId"]])
    another = ec2.create_volume(**BLANK)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[made, another], WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    for one in (made, another):
        ec2.delete_volume(VolumeId=one)


def test_a_volume_that_somebody_else_has_made_is_denied_at_once(account):
    made = account.client("ec2").create_volume(**BLANK)["VolumeId"]
    with pytest.raises(ClientError, match="InvalidVolume.NotFound"):
        Aws(account.cloud).client("ec2").describe_volumes(VolumeIds=[made])
    account.client("ec2").delete_volume(VolumeId=made)


def test_what_is_not_there_after_two_minutes_is_not_there(account, monkeypatch):
    ec2 = account.client("ec2")
    made = ec2.create_volume(**BLANK)["VolumeId"]
    moment = time.monotonic()
    monkeypatch.setattr(eventual_consistency.time, "monotonic", lambda: moment + eventual_consistency.SECONDS + 1)
    with pytest.raises(ClientError, match="InvalidVolume.NotFound"):
        ec2.describe_volumes(VolumeIds=[made])


def test_a_volume_that_another_instance_holds_is_told_with_that_instance(account, settings, monkeypatch):
    run = settings("box.name=held")
    made = instance.ensure(account, run.box)
    zone = instance.wait(account, made.instance_id).zone
    held = volume.ensure(account, run.box, made.instance_id, zone).volume_id
    monkeypatch.setattr("botocore.waiter.time.sleep", lambda seconds: None)
    with pytest.raises(Problem, match=f"{held} does not become available: it is in-use by {made.instance_id}"):
        volume.ensure(account, run.box, "i-00000000000000000", zone)
    instance.stop(account, made.instance_id)


def test_a_box_that_is_still_pending_is_stopped_once_it_runs(account, settings):
    state = Path(account.cloud.state)
    world.fault(state, "pending", seconds=1)
    made = instance.ensure(account, settings("box.name=early").box).instance_id
    world.fault(state, "pending", seconds=0)
    assert instance.stop(account, made).state == "stopped"


def test_an_instance_that_was_just_taken_as_the_box_is_the_box_though_a_search_by_its_tag_finds_nothing_yet(account, settings, monkeypatch):
    """Else another would be launched beside it."""
    ec2 = account.client("ec2")
    request = {"ImageId": ec2.describe_images()["Images"][0]["ImageId"], "InstanceType": "g6.2xlarge", "MinCount": 1, "MaxCount": 1}
    made = ec2.run_instances(**request)["Instances"][0]["InstanceId"]
    ec2.describe_instances(InstanceIds=[made])
    monkeypatch.setattr(instance, "find", lambda aws, name: None)
    monkeypatch.setattr("remote.confirm.ask", lambda *words: None)
    adopted = instance._adopted(account, made, "mine", None)
    assert (adopted.id, adopted.owner) == (made, account.caller)
