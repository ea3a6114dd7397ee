"""The main job on a box whose agent is dead: all of it by SSH, to a real sshd; afterwards the port is closed."""

import pytest

from twin import world

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("sshd")]


def ingress(laptop) -> list[str]:
    groups = laptop.client("ec2").describe_security_groups()["SecurityGroups"]
    rules = [rule for group in groups for rule in group["IpPermissions"] if rule.get("FromPort") == 22]
    return [network["CidrIp"] for rule in rules for network in rule.get("IpRanges", [])]


def test_the_chain_runs_by_ssh_alone_and_leaves_the_port_closed(laptop):
    world.fault(laptop.state, "agent-never-registers")
    up = laptop.inv("--echo", "up", overrides=("box.ssh=true",))
    assert "Open port 22 of the box's security group to this machine's address" in up.stderr
    assert ingress(laptop) == ["127.0.0.1/32"]
    refused = laptop.inv("deploy", ok=False)
    assert refused.returncode == 1 and " box.ssh=true`" in refused.stderr and "Traceback" not in refused.stderr
    done = laptop.inv("--echo", "deploy", "train", "publish", "down", overrides=("box.ssh=true",), timeout=900)
    assert "is published and verified" in done.stdout and "Close port 22" in done.stderr
    assert ingress(laptop) == []
    calls = [f"{entry['service']}.{entry['operation']}" for entry in laptop.journal()]
    assert calls.count("ssm.SendCommand") == 1  # that of the refused command
    assert calls.count("ec2-instance-connect.SendSSHPublicKey") >= 5  # setup, volume, deploy, train, stop; build where there is no image
    states = [
        instance["State"]["Name"] for group in laptop.client("ec2").describe_instances()["Reservations"] for instance in group["Instances"]
    ]
    assert states == ["stopped"]


def test_a_port_that_was_left_open_is_closed_by_the_next_up_without_ssh(laptop):
    laptop.inv("up", overrides=("box.ssh=true",))
    assert ingress(laptop) == ["127.0.0.1/32"]
    laptop.inv("up")
    assert ingress(laptop) == []
