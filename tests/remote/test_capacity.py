"""A box is looked for in every zone, and where there is none the sentence says what to do."""

from pathlib import Path

import pytest

from conf.problem import Problem
from remote import box, volume
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
    with pytest.raises(Problem, match=r"now \(us-east-1b: InsufficientInstanceCapacity\)(.|\n)*leave us-east-1b(.|\n)*inv down --snapshot"):
        box.ensure(account, settings().box, volume_zone="us-east-1b")


def test_a_stopped_box_that_cannot_start_gets_the_way_out_of_its_zone(account, settings):
    made = box.ensure(account, settings().box)
    box.stop(account, made["instance_id"])
    world.fault(state(account), "capacity", count=0)
    with pytest.raises(Problem, match=r"us-east-1a has no g6.2xlarge for i-(.|\n)*inv down --snapshot(.|\n)*create-volume"):
        box.ensure(account, settings().box)


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
