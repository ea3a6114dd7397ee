"""An instance becomes a box when its user names it and agrees, having seen what it is; nothing in the account names it for him."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conf.problem import Problem
from remote.aws import instance
from remote.aws.session import Aws
from twin import world


@pytest.fixture
def instance_id(aws):
    """Somebody's instance, with a tag that says what it is for."""
    ec2 = world.client(Path(aws.cloud.state), "ec2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "payroll"}]}]
    request = {"ImageId": ec2.describe_images()["Images"][0]["ImageId"], "InstanceType": "g6.2xlarge", "MinCount": 1, "MaxCount": 1}
    made = ec2.run_instances(**request, TagSpecifications=tags)["Instances"][0]["InstanceId"]
    ec2.describe_instances(InstanceIds=[made])  # it is no longer new
    yield made
    ec2.terminate_instances(InstanceIds=[made])


def tags(aws, instance_id: str) -> dict[str, str]:
    ec2 = world.client(Path(aws.cloud.state), "ec2")
    instance = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}


def test_a_value_in_parameter_store_alone_adopts_nothing(aws, settings, instance_id):
    aws.client("ssm").put_parameter(Name="/fine-tune-slm/ec2/instance-id", Value=instance_id, Type="String", Overwrite=True)
    here = Aws(replace(aws.cloud, instance_id=instance_id))
    made = instance.ensure(here, settings("box.name=named").box)
    assert made.changed == "launched" and made.instance_id != instance_id and tags(aws, instance_id) == {"Name": "payroll"}
    instance.terminate(here, made.instance_id)


def test_who_is_not_there_agrees_to_nothing(aws, settings, instance_id):
    with pytest.raises(Problem, match=f"there is no terminal to ask at: {instance_id} is g6.2xlarge"):
        instance.ensure(aws, settings("box.name=alone", f"box.adopt={instance_id}").box)
    assert tags(aws, instance_id) == {"Name": "payroll"}


@pytest.mark.parametrize("answer", ["n", "y"])
def test_the_question_shows_what_the_instance_is(aws, settings, instance_id, monkeypatch, answer):
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda words: asked.append(words) or answer)
    wanted = settings("box.name=asked", f"box.adopt={instance_id}").box
    if answer == "n":
        with pytest.raises(Problem, match="it stays as it is"):
            instance.ensure(aws, wanted)
        assert tags(aws, instance_id) == {"Name": "payroll"}
    else:
        assert instance.ensure(aws, wanted).instance_id == instance_id
        assert tags(aws, instance_id) == {"Name": "payroll", "fine-tune-slm:box": "asked", "fine-tune-slm:owner": aws.caller}
        assert instance.ensure(aws, wanted).instance_id == instance_id, "and is asked once"
    (words,) = asked
    assert f"{instance_id} is g6.2xlarge" in words and "Name=payroll" in words and "no role" in words and "as root" in words


def test_somebodys_box_is_not_taken(aws, settings, instance_id):
    world.client(Path(aws.cloud.state), "ec2").create_tags(
        Resources=[instance_id], Tags=[{"Key": "fine-tune-slm:box", "Value": "theirs"}, {"Key": "fine-tune-slm:owner", "Value": "them"}]
    )
    with pytest.raises(Problem, match=f"{instance_id} is the box `theirs` of them"):
        instance.ensure(aws, settings("box.name=mine", f"box.adopt={instance_id}").box)
    with pytest.raises(Problem, match="there is no instance i-0123456789abcdef0"):
        instance.ensure(aws, settings("box.name=mine", "box.adopt=i-0123456789abcdef0").box)
