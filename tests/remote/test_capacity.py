"""A box is looked for in every zone, and where there is none the sentence says what to do."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conf.problem import Problem
from remote import box, permissions, volume
from remote.aws import Aws
from twin import world


@pytest.fixture
def account(aws):
    """An account without a box; every fault is mended afterwards."""
    state = Path(aws.cloud.state)
    yield aws
    world.heal(state)
    for code in ("L-DB2E81BA", "L-3819A6DF"):
        world.fault(state, "quota", code=code, value=1024)
    ec2 = aws.client("ec2")
    for one in ec2.describe_instances()["Reservations"]:
        ec2.terminate_instances(InstanceIds=[one["Instances"][0]["InstanceId"]])
    for one in ec2.describe_volumes(Filters=[{"Name": "tag-key", "Values": [box.BOX]}])["Volumes"]:
        ec2.delete_volume(VolumeId=one["VolumeId"])


def state(account) -> Path:
    return Path(account.cloud.state)


def described(account, instance_id: str) -> dict:
    return account.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def test_a_zone_without_room_is_passed_over(account, settings):
    world.fault(state(account), "capacity", count=0, zones="us-east-1a,us-east-1b")
    assert box.ensure(account, settings().box)["zone"] == "us-east-1c"


def test_where_no_zone_has_room_every_try_is_told(account, settings):
    world.fault(state(account), "capacity", count=0)
    with pytest.raises(
        Problem, match=r"no g6.2xlarge is to be had now \(us-east-1a: InsufficientInstanceCapacity; us-east-1b: (.|\n)*box.instance_type="
    ):
        box.ensure(account, settings().box)


def test_where_the_volume_is_no_other_zone_is_tried(account, settings):
    world.fault(state(account), "capacity", count=0, zones="us-east-1b")
    with pytest.raises(
        Problem,
        match=r"now \(us-east-1b: InsufficientInstanceCapacity\)(.|\n)*leave us-east-1b(.|\n)*aws ec2 create-snapshot",
    ):
        box.ensure(account, settings().box, volume_zone="us-east-1b")


def test_a_stopped_box_that_cannot_start_again_leaves_its_zone_by_the_commands_that_are_printed(account, settings):
    """A file system on the way: what the volume had, the box in the other zone has."""
    run = settings()
    made = box.ensure(account, run.box)
    disk = volume.ensure(account, run.box, made["instance_id"], made["zone"])["volume_id"]
    volume.note_format(account, disk)
    box.stop(account, made["instance_id"])
    world.fault(state(account), "capacity", count=0, zones="us-east-1a")
    with pytest.raises(Problem, match=r"us-east-1a has no g6.2xlarge for i-") as told:
        box.ensure(account, run.box)
    *commands, last = re.findall("^`(.*)`$", told.value.hint, re.M)
    assert last == "inv up"
    elsewhere = {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    world.enforce(state(account), [permissions.roles(account.cloud, world.ACCOUNT, world.CALLER)["laptop"]])
    for command in commands:
        subprocess.run(["bash", "-euc", command], check=True, env=os.environ | elsewhere, capture_output=True)
    world.enforce(state(account), None)
    moved = box.ensure(account, run.box, **volume.locate(account, run.box.name))
    assert moved["zone"] == "us-east-1b" and moved["instance_id"] != made["instance_id"]
    found = volume.ensure(account, run.box, moved["instance_id"], moved["zone"])
    assert (found["volume_changed"], found["ours"]) == ("attached", "no") and found["volume_id"] != disk


def test_an_instance_that_may_not_be_tagged_is_not_taken(account, settings):
    ec2 = account.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    id = ec2.run_instances(ImageId=image, InstanceType="g6.2xlarge", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    world.fault(state(account), "access-denied", only="ec2.CreateTags", by="laptop")
    with pytest.raises(Problem, match=rf"does not let you take it(.|\n)*aws ec2 create-tags --resources {id}"):
        box.ensure(Aws(replace(account.cloud, instance_id=id)), settings().box)


def test_a_quota_that_is_used_up_leads_to_the_doctor(account, settings):
    world.fault(state(account), "quota", code="L-DB2E81BA", value=0)
    with pytest.raises(Problem, match=r"quota leaves no room for a g6.2xlarge(.|\n)*`inv doctor`"):
        box.ensure(account, settings().box)


def test_a_spot_box_can_be_stopped_and_started_and_leaves_no_request_behind(account, settings):
    run = settings("box.spot=true")
    made = box.ensure(account, run.box)["instance_id"]
    assert described(account, made)["InstanceLifecycle"] == "spot"
    box.stop(account, made)
    assert box.ensure(account, run.box) | {"instance_id": made, "changed": "started"} == box.ensure(account, run.box) | {
        "changed": "started"
    }
    box.terminate(account, made)
    requests = account.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]
    assert [one["State"] for one in requests] == ["cancelled"]


def test_where_there_is_no_spot_it_is_on_demand(account, settings):
    world.fault(state(account), "quota", code="L-3819A6DF", value=0)
    made = box.ensure(account, settings("box.spot=true").box)["instance_id"]
    assert "InstanceLifecycle" not in described(account, made)


def test_the_plan_knows_where_the_volume_is(account, settings):
    assert volume.locate(account, settings().box.name) == {"volume_zone": None}
    run = settings()
    tags = [{"Key": box.BOX, "Value": run.box.name}, {"Key": box.OWNER, "Value": account.caller}]
    account.client("ec2").create_volume(AvailabilityZone="us-east-1d", Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}])
    assert volume.locate(account, run.box.name) == {"volume_zone": "us-east-1d"}
