"""The box's role is for the box: its metadata service answers no container on it, `up` sees to that, and no run starts before."""

from pathlib import Path

import pytest

from conf.problem import Problem
from remote.account import permissions
from remote.aws import instance
from remote.aws.s3 import Store
from remote.runs import predictions
from twin import world


@pytest.fixture
def opened(aws, settings):
    """A box that was launched when containers could come to its role."""
    made = instance.ensure(aws, settings("box.name=opened").box).instance_id
    instance.wait(aws, made)
    aws.client("ec2").modify_instance_metadata_options(InstanceId=made, HttpTokens="required", HttpPutResponseHopLimit=2)
    yield made
    world.clear_faults(Path(aws.cloud.state))
    world.enforce(Path(aws.cloud.state), None)
    aws.client("ec2").terminate_instances(InstanceIds=[made])


def options(aws, instance: str) -> tuple:
    metadata = aws.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["MetadataOptions"]
    return metadata["HttpTokens"], metadata["HttpPutResponseHopLimit"]


def test_up_closes_it_by_our_own_policy_and_once(aws, opened):
    policies = permissions.roles(aws.cloud, "123456789012", "arn:aws:iam::123456789012:user/me")
    world.enforce(Path(aws.cloud.state), [policies["laptop"], policies["files"]])
    for _ in range(2):
        instance.close_metadata(aws, opened)
    assert options(aws, opened) == ("required", 1)
    journal = (Path(aws.cloud.state) / "journal.jsonl").read_text()
    assert journal.count('"ModifyInstanceMetadataOptions"') == 2, "the fixture's and one more"


def test_until_then_nothing_of_ours_starts_a_container_there_but_a_run_can_be_ended(aws, opened):
    with pytest.raises(Problem, match=r"act by the box's role\n\nhint: `inv up` closes"):
        instance.require(aws, "opened")
    assert instance.require(aws, "opened", metadata_closed=False).instance_id == opened
    assert predictions.choose_machine(aws, Store(aws), "opened")[0] is None
    instance.close_metadata(aws, opened)
    assert instance.require(aws, "opened").instance_id == opened
    assert predictions.choose_machine(aws, Store(aws), "opened")[0].id == opened


def test_who_may_not_close_it_is_told_who_can(aws, opened):
    world.fault(Path(aws.cloud.state), "access-denied", only="ec2.ModifyInstanceMetadataOptions")
    with pytest.raises(
        Problem, match="aws ec2 modify-instance-metadata-options --instance-id i-.* --http-put-response-hop-limit 1`; then `inv up`"
    ):
        instance.close_metadata(aws, opened)
