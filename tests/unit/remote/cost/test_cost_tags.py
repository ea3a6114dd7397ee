"""All that a box costs bears the tags by which AWS's bill is divided: at its launch, or where it was launched before, by the next `up`."""

from pathlib import Path

import pytest

from remote.account import permissions
from remote.aws import instance, volume
from remote.aws.tags import BOX, COST, OWNER, RUN, STACK, tags_of
from remote.cost import cost_tags
from twin import world

pytestmark = pytest.mark.slow  # a box is launched


@pytest.fixture
def box(aws, settings):
    """A box with its volume, its user held to our policies."""
    run = settings("box.name=billed")
    policies = permissions.roles(run.cloud, world.ACCOUNT, world.CALLER)
    world.enforce(state(aws), [policies["laptop"], policies["files"]])
    made = instance.ensure(aws, run.box).instance_id
    volume.ensure(aws, run.box, made, instance.wait(aws, made).zone)
    yield made
    world.enforce(state(aws), None)
    world.clear_faults(state(aws))
    instance.stop(aws, made)
    instance.terminate(aws, made)
    volume.delete(aws, "billed")


def state(aws) -> Path:
    return Path(aws.cloud.state)


def tags(aws, box: str) -> dict[str, dict[str, str]]:
    """Of the box and of each of its disks."""
    ec2 = world.client(state(aws), "ec2")
    (described,) = ec2.describe_instances(InstanceIds=[box])["Reservations"][0]["Instances"]
    disks = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [box]}])["Volumes"]
    return {box: tags_of(described)} | {disk["VolumeId"]: tags_of(disk) for disk in disks}


def paid_for(aws) -> dict[str, str]:
    return {STACK: "fine-tune-slm", OWNER: aws.owner}


def test_box_root_disk_volume_and_copy_have_them_at_their_launch(aws, box):
    every = tags(aws, box)
    assert len(every) == 3 and all(paid_for(aws).items() <= each.items() for each in every.values())
    assert [BOX in each for each in every.values()].count(False) == 1, "the root disk is not taken for the volume"
    assert cost_tags.ensure(aws, box).resources == (), "nothing is left to do"
    volume.snapshot(aws, "billed")
    mine = [{"Name": f"tag:{BOX}", "Values": ["billed"]}]
    (copy,) = aws.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]
    assert paid_for(aws).items() <= tags_of(copy).items()


def test_what_was_launched_without_them_gets_them_with_our_policies_and_keeps_its_own(aws, box):
    ec2, before = world.client(state(aws), "ec2"), tags(aws, box)
    ec2.delete_tags(Resources=list(before), Tags=[{"Key": STACK}])
    (root,) = [one for one, each in before.items() if BOX not in each]
    ec2.delete_tags(Resources=[root], Tags=[{"Key": OWNER}])
    assert set(cost_tags.ensure(aws, box).resources) == set(before)
    assert tags(aws, box) == before


def test_a_disk_of_another_stack_or_of_another_box_is_not_tagged_with_our_policies(aws, box):
    ec2 = world.client(state(aws), "ec2")
    for other in ({STACK: "fine-tune-slm-other"}, {BOX: "other:box"}):
        key, value = next(iter(other.items()))
        given = [{"ResourceType": "volume", "Tags": [{"Key": key, "Value": value}]}]
        disk = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, TagSpecifications=given)["VolumeId"]
        assert not cost_tags._tag(aws, disk, paid_for(aws))
        ec2.delete_volume(VolumeId=disk)
    untagged = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    assert not cost_tags._tag(aws, untagged, paid_for(aws) | {BOX: "billed"}), "nor made a box's volume"
    ec2.delete_volume(VolumeId=untagged)


def test_the_box_says_which_run_it_costs_for_until_it_is_started_again(aws, box, settings):
    cost_tags.note_run(aws, box, "20261130-220000-receipts-b19d")
    assert set(COST) <= set(tags(aws, box)[box]) and tags(aws, box)[box][RUN] == "20261130-220000-receipts-b19d"
    instance.stop(aws, box)
    instance.ensure(aws, settings("box.name=billed").box)
    assert RUN not in tags(aws, box)[box]


def test_who_may_not_tag_is_told_what_the_bill_lacks_and_goes_on(aws, box, capsys):
    world.client(state(aws), "ec2").delete_tags(Resources=[box], Tags=[{"Key": STACK}])
    world.fault(state(aws), "access-denied", only="ec2.CreateTags", by="laptop")
    assert cost_tags.ensure(aws, box).resources == ()
    said = capsys.readouterr().err
    assert f"AWS's bill does not say what {box} is for" in said and f"--resources {box} --tags 'Key={STACK},Value=fine-tune-slm'" in said
