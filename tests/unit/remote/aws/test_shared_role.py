"""Two people who log in with one role, as IAM Identity Center has them: whose a box and a volume is goes by the session's name."""

import pytest

from conf.problem import Problem
from remote.aws import instance, volume
from remote.aws.session import Aws

ROLE = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Power_0123"


def logged_in(aws, session: str) -> Aws:
    person = Aws(aws.cloud)
    person._caller = f"{ROLE}/{session}"
    return person


@pytest.fixture
def box(aws, settings):
    """Ann's box with its volume."""
    ann, wanted = logged_in(aws, "ann@example.org"), settings("box.name=ubuntu").box  # by the login's name, which both have
    made = instance.ensure(ann, wanted).instance_id
    volume.ensure(ann, wanted, made, instance.wait(ann, made).zone)
    yield made
    aws.client("ec2").terminate_instances(InstanceIds=[made])
    aws.client("ec2").get_waiter("instance_terminated").wait(InstanceIds=[made])
    volume.delete(ann, "ubuntu")


def test_a_box_of_the_same_name_is_not_taken_by_who_shares_the_role(aws, settings, box):
    eve = logged_in(aws, "eve@example.org")
    for verb in (instance.require, instance.get, instance.find_optional):
        with pytest.raises(Problem, match=f"belongs to {ROLE}/ann@example.org\n\nhint: use a name of your own"):
            verb(eve, "ubuntu")
    with pytest.raises(Problem, match="belongs to"):
        instance.ensure(eve, settings("box.name=ubuntu").box)
    assert volume.zone(eve, "ubuntu") is None
    volume.delete(eve, "ubuntu")
    ann_tomorrow = logged_in(aws, "ann@example.org")
    assert instance.get(ann_tomorrow, "ubuntu").instance_id == box and volume.zone(ann_tomorrow, "ubuntu")


def test_a_box_of_0_1_0_is_that_of_everybody_with_the_role_that_made_it(aws, box):
    ids = [box, *(one["VolumeId"] for one in aws.client("ec2").describe_volumes()["Volumes"] if one["Attachments"])]
    ann = {"Key": "fine-tune-slm:owner", "Value": f"{ROLE}/ann@example.org"}
    aws.client("ec2").create_tags(Resources=ids, Tags=[ann | {"Value": ROLE}])
    eve = logged_in(aws, "eve@example.org")
    assert instance.get(eve, "ubuntu").instance_id == box and volume.zone(eve, "ubuntu")
    assert instance.get(logged_in(aws, "botocore-session-1764400000"), "ubuntu").instance_id == box
    aws.client("ec2").create_tags(Resources=ids, Tags=[ann])
