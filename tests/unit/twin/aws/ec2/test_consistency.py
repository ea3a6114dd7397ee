"""A new thing is denied to the first request of the laptop that names it, and only to that."""

import pytest
from botocore.exceptions import ClientError

from twin import world
from twin.aws.iam.keys import LAPTOP


@pytest.fixture(scope="module")
def laptop(cloud):
    """A client of the laptop's that tries nothing again."""
    return world.client(cloud.state, "ec2", LAPTOP, retries={"total_max_attempts": 1})


def denied(call, **arguments) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Message"]


def test_a_new_volume_and_its_snapshot(laptop):
    volume = laptop.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    assert denied(laptop.describe_volumes, VolumeIds=[volume]) == f"The volume '{volume}' does not exist."
    assert laptop.describe_volumes(VolumeIds=[volume])["Volumes"]
    snapshot = laptop.create_snapshot(VolumeId=volume)["SnapshotId"]
    assert denied(laptop.describe_snapshots, SnapshotIds=[snapshot]) == f"The snapshot '{snapshot}' does not exist."
    assert laptop.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]


def test_what_a_list_has_shown_is_known(laptop):
    volume = laptop.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    assert laptop.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume]}])["Volumes"], "a filter is no error"
    assert laptop.describe_volumes(VolumeIds=[volume])["Volumes"]
    laptop.delete_volume(VolumeId=volume)


def test_a_new_instance_and_whatever_names_it(cloud, laptop):
    request = {"ImageId": cloud.image(), "InstanceType": "g6.2xlarge", "MinCount": 1, "MaxCount": 1, "ClientToken": "twice"}
    instance = laptop.run_instances(**request)["Instances"][0]["InstanceId"]
    assert denied(laptop.create_tags, Resources=[instance], Tags=[{"Key": "a", "Value": "b"}]) == (
        f"The instance ID '{instance}' does not exist"
    )
    assert laptop.describe_instances(InstanceIds=[instance])["Reservations"]
    assert laptop.run_instances(**request)["Instances"][0]["InstanceId"] == instance
    assert laptop.describe_instances(InstanceIds=[instance])["Reservations"], "the same launch is nothing new"
    laptop.terminate_instances(InstanceIds=[instance])


def test_the_account_s_owner_sees_it_at_once(cloud):
    volume = cloud.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    assert cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    cloud.ec2.delete_volume(VolumeId=volume)
