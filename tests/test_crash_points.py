"""The laptop may die at any call that changes something: the same verb, run again, comes to the same end."""

import pytest

from twin import world

pytestmark = pytest.mark.system  # minutes: `up` is killed and run again


@pytest.fixture(scope="module")
def calls(laptop):
    """What `inv up` changes, call by call, when nothing goes wrong."""
    before = len(world.mutations(laptop.state))
    laptop.inv("up", overrides=("box.name=whole",))
    return world.mutations(laptop.state)[before:]


def owned(laptop, name: str) -> tuple[list[str], list[str]]:
    """States of the instances and of the volumes that bear the box's name."""
    ec2, filters = laptop.client("ec2"), [{"Name": "tag:fine-tune-slm:box", "Values": [name]}]
    groups = ec2.describe_instances(Filters=filters)["Reservations"]
    states = [entry["State"]["Name"] for group in groups for entry in group["Instances"]]
    return states, [entry["State"] for entry in ec2.describe_volumes(Filters=filters)["Volumes"]]


@pytest.mark.parametrize("call", ["ec2.RunInstances", "ec2.CreateVolume", "ec2.AttachVolume", "ssm.SendCommand"])
def test_up_killed_at_a_call_and_run_again_makes_one_box_with_one_volume(laptop, calls, call):
    name = call.replace(".", "-").lower()
    world.fault(laptop.state, "laptop-killed", after=calls.index(call))
    killed = laptop.inv("up", overrides=(f"box.name={name}",), ok=False)
    world.heal(laptop.state)
    assert killed.returncode == -9
    laptop.inv("up", overrides=(f"box.name={name}",))
    assert owned(laptop, name) == (["running"], ["in-use"])
