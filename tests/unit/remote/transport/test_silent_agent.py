"""An agent that AWS has refused once, because its role was new, sleeps for half an hour: its new box is rebooted, and no other box is."""

import re
from pathlib import Path

import pytest

from conf.problem import Problem
from remote.account import permissions
from remote.aws import instance
from remote.transport import agent
from twin import world

pytestmark = pytest.mark.slow  # each waits for an agent

LAUNCHED = {"changed": "launched", "reboot_after": 0.5, "seconds": 60}


@pytest.fixture
def silent(aws, settings):
    """A new box whose agent sleeps, and how often it was rebooted."""
    world.fault(Path(aws.cloud.state), "agent-refused")
    made = instance.ensure(aws, settings("box.name=silent").box).instance_id
    instance.wait(aws, made)
    yield made
    aws.client("ec2").terminate_instances(InstanceIds=[made])
    world.enforce(Path(aws.cloud.state), None)


def reboots(aws) -> int:
    return len(re.findall('"RebootInstances"', (Path(aws.cloud.state) / "journal.jsonl").read_text()))


def test_a_new_box_whose_agent_is_silent_is_rebooted_once_and_answers(aws, silent, capsys):
    """With no more rights than our policy gives."""
    policies = permissions.roles(aws.cloud, "123456789012", "arn:aws:iam::123456789012:user/me")
    world.enforce(Path(aws.cloud.state), [policies["laptop"], policies["files"]])
    before = reboots(aws)
    assert agent.wait(aws, silent, **LAUNCHED)
    assert reboots(aws) == before + 1
    assert "sleeps for half an hour. The box is rebooted, once; waiting on" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["started", None])
def test_a_box_that_this_command_has_not_launched_is_never_rebooted(aws, silent, changed):
    """A run may go on on it."""
    before = reboots(aws)
    with pytest.raises(Problem, match=rf"did not register within 2 s(.|\n)*aws ec2 reboot-instances --instance-ids {silent}"):
        agent.wait(aws, silent, **LAUNCHED | {"changed": changed, "seconds": 2})
    assert reboots(aws) == before


def test_an_agent_that_stays_silent_is_waited_for_so_long_and_its_box_not_rebooted_again(aws, silent):
    world.fault(Path(aws.cloud.state), "agent-refused", count=1)
    before = reboots(aws)
    with pytest.raises(Problem, match="did not register within 4 s"):
        agent.wait(aws, silent, **LAUNCHED | {"seconds": 4})
    assert reboots(aws) == before + 1


def test_who_may_not_reboot_is_told_and_the_wait_goes_on(aws, silent, capsys):
    world.fault(Path(aws.cloud.state), "access-denied", only="ec2.RebootInstances")
    with pytest.raises(Problem, match="did not register"):
        agent.wait(aws, silent, **LAUNCHED | {"seconds": 2})
    world.clear_faults(Path(aws.cloud.state))
    assert "your policy has no ec2:RebootInstances" in capsys.readouterr().err
