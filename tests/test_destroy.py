"""`inv destroy` leaves nothing that goes on costing, and forgets nothing that `inv init` was told."""

import yaml
from conftest import Laptop

from conf import load
from twin import world

BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"


def test_a_spot_box_leaves_no_request_that_would_launch_another_in_its_place(laptop):
    laptop.inv("up", overrides=("box.spot=true",))
    laptop.inv("down")
    laptop.inv("destroy", "--yes")
    requests = laptop.client("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]
    assert [one["State"] for one in requests] == ["cancelled"]


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
