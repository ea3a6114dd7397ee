"""`inv destroy` leaves nothing that goes on costing, and forgets nothing that `inv init` was told."""

import pytest
import yaml
from conftest import Laptop

from conf import load
from twin import world

BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"


@pytest.mark.slow
def test_no_spot_request_launches_another_box_and_copies_go_with_the_data(laptop):
    laptop.inv("up", overrides=("box.spot=true",))
    laptop.inv("down", "--snapshot")
    ec2 = laptop.client("ec2")
    tags = [{"Key": BOX, "Value": "theirs"}, {"Key": OWNER, "Value": "arn:aws:iam::123456789012:user/other"}]
    their = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}])[
        "VolumeId"
    ]
    done = laptop.inv("destroy", "--yes")
    requests = laptop.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]
    assert [one["State"] for one in requests] == ["cancelled"]
    (copy,) = copies(laptop)
    assert f"= EBS Snapshot               {copy}, of 100 GB  stays" in done.stderr and copy in done.stdout
    assert f"= EBS Volume                 {their} of arn:aws:iam::123456789012:user/other  stays" in done.stderr
    laptop.inv("destroy", "--data", "--yes")
    assert copies(laptop) == []
    assert [one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]] == [their]


def copies(laptop) -> list[str]:
    ours = [{"Name": "tag-key", "Values": [BOX]}]
    return [one["SnapshotId"] for one in laptop.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=ours)["Snapshots"]]


@pytest.mark.slow
def test_a_bucket_that_was_named_on_the_command_line_is_found_again_when_the_stack_is_gone(tmp_path):
    """On the twin the file is written, and not read: a test reads it as the next command of an AWS account would."""
    laptop = Laptop(tmp_path / "named")
    laptop.inv("twin.start", "--empty")
    try:
        laptop.inv("init", "--yes", overrides=("cloud.bucket=mine", "cloud.prefix=runs"))
        laptop.inv("destroy", "--yes")
        assert [one["Name"] for one in laptop.client("s3").list_buckets()["Buckets"]] == ["mine"]
        local = laptop.state / "local.yaml"
        assert yaml.safe_load(local.read_text()) == {"cloud": "twin", "cloud.prefix": "runs", "cloud.bucket": "mine"}
        words = [f"cloud.{name}={getattr(load.load([], local=local).cloud, name)}" for name in ("bucket", "prefix")]
        laptop.inv("destroy", "--data", "--yes", overrides=tuple(words))
        assert laptop.client("s3").list_buckets()["Buckets"] == []
        laptop.inv("init", "--yes", overrides=("cloud.bucket=fine-tune-slm", "cloud.prefix=runs"))
        assert yaml.safe_load(local.read_text())["cloud.bucket"] == "fine-tune-slm"  # what is written there would win
    finally:
        world.stop(laptop.state)
