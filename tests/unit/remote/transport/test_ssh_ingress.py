"""Port 22 is open to one address while somebody asked for it, and the key of a box is what its console showed first."""

import http.server
import os
import threading
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote.aws import instance
from remote.transport import agent, ssh_ingress
from twin import world


@pytest.fixture(scope="module")
def state(aws):
    return Path(os.environ["FABRIC_SSH_CONFIG_PATH"]).parent


@pytest.fixture(scope="module")
def mine(aws):
    """The id of a box that runs."""
    instance_id = instance.ensure(aws, load.load(["cloud=twin", "box.name=mine"], local=Path("none")).box).instance_id
    instance.wait(aws, instance_id)
    return instance_id


@pytest.fixture(autouse=True)
def healed(state):
    yield
    world.clear_faults(state)


def rules(aws, instance_id: str) -> dict[str, str]:
    return ssh_ingress._networks(aws, instance.ssh_endpoint(aws, instance_id).group)


def tags(aws, instance_id: str) -> dict[str, str]:
    instance = aws.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def test_the_port_is_open_to_one_address_follows_it_and_is_closed_again(aws, mine):
    assert rules(aws, mine) == {}
    assert ssh_ingress.open_port(aws, mine, "mine", "auto") == "127.0.0.1/32"
    ssh_ingress.open_port(aws, mine, "mine", "203.0.113.7/32")
    ssh_ingress.open_port(aws, mine, "mine", "203.0.113.7/32")
    assert rules(aws, mine) == {"203.0.113.7/32": "fine-tune-slm:box=mine"}
    assert ssh_ingress.close_port(aws, mine, "mine") is True
    assert rules(aws, mine) == {}
    assert ssh_ingress.close_port(aws, mine, "mine") is False


def test_a_rule_of_somebody_else_stays_and_serves(aws, mine):
    group = instance.ssh_endpoint(aws, mine).group
    ours = ssh_ingress._rule([{"CidrIp": "203.0.113.9/32", "Description": "the office"}])
    aws.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[ours])
    ssh_ingress.open_port(aws, mine, "mine", "203.0.113.9/32")
    assert ssh_ingress.close_port(aws, mine, "mine") is False
    assert rules(aws, mine) == {"203.0.113.9/32": "the office"}
    aws.client("ec2").revoke_security_group_ingress(GroupId=group, IpPermissions=[ours])


@pytest.mark.parametrize("operation", ["AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"])
def test_a_lost_answer_changes_nothing(aws, mine, state, operation):
    ssh_ingress.open_port(aws, mine, "mine", "198.51.100.1/32")
    world.fault(state, "answer-lost", only=f"ec2.{operation}")
    ssh_ingress.open_port(aws, mine, "mine", "198.51.100.2/32")
    assert set(rules(aws, mine)) == {"198.51.100.2/32"}
    ssh_ingress.close_port(aws, mine, "mine")


def test_who_may_not_change_the_group_is_told_which_rights_and_which_command(aws, mine, state):
    world.fault(state, "access-denied", only="ec2.AuthorizeSecurityGroupIngress")
    with pytest.raises(Problem, match="you may not open port 22 of the box's security group sg-") as caught:
        ssh_ingress.open_port(aws, mine, "mine", "auto")
    for words in ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress", "--cidr 127.0.0.1/32"):
        assert words in caught.value.hint
    ssh_ingress.open_port(aws, mine, "mine", "auto")
    world.fault(state, "access-denied", only="ec2.RevokeSecurityGroupIngress")
    with pytest.raises(Problem, match="is still open to 127.0.0.1/32") as caught:
        ssh_ingress.close_port(aws, mine, "mine")
    assert "aws ec2 revoke-security-group-ingress --group-id sg-" in caught.value.hint
    ssh_ingress.close_port(aws, mine, "mine")


def test_a_key_that_the_console_shows_late_is_waited_for_and_pinned_for_good(aws, mine, state):
    world.fault(state, "console-late", seconds=1.5)
    assert ssh_ingress.pin_host_key(aws, mine, 0) is None
    shown = ssh_ingress.pin_host_key(aws, mine, 20)
    assert shown.startswith("ssh-ed25519 AAAA")
    assert tags(aws, mine)[instance.HOST_KEY] == shown
    world.fault(state, "console-late", seconds=1000)
    assert ssh_ingress.pin_host_key(aws, mine, 0) == shown
    world.forward(state, 1001)


def test_another_key_in_the_console_is_refused_with_the_way_out(aws, mine, state):
    before = ssh_ingress.pin_host_key(aws, mine, 20)
    world.fault(state, "host-key-changed", instance=mine)
    with pytest.raises(Problem, match="shows another host key than it did at first") as caught:
        ssh_ingress.pin_host_key(aws, mine, 20)
    assert f"aws ec2 delete-tags --resources {mine} --tags Key={instance.HOST_KEY}" in caught.value.hint
    aws.client("ec2").delete_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY}])
    assert ssh_ingress.pin_host_key(aws, mine, 20) != before


def test_a_later_boot_shows_no_key_and_needs_none_that_was_noted(aws, mine, state):
    ec2 = aws.client("ec2")
    ec2.delete_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY}])
    noted = ssh_ingress.note_host_key(aws, mine)
    assert noted.startswith("ssh-ed25519 ") and ssh_ingress.note_host_key(aws, mine) is None
    instance.stop(aws, mine)
    ec2.start_instances(InstanceIds=[mine])
    assert "BEGIN SSH HOST KEY KEYS" not in ec2.get_console_output(InstanceId=mine, Latest=True)["Output"]
    assert ssh_ingress.pin_host_key(aws, mine, 0) == noted
    ec2.delete_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY}])
    with pytest.raises(Problem, match="has shown no host key for 1 s") as caught:
        ssh_ingress.pin_host_key(aws, mine, 1)
    assert "aws ec2 terminate-instances" in caught.value.hint


def test_a_precaution_that_is_not_allowed_ends_nothing(aws, mine, state, capsys):
    aws.client("ec2").delete_tags(Resources=[mine], Tags=[{"Key": instance.HOST_KEY}])
    world.fault(state, "access-denied", only="ec2.GetConsoleOutput")
    assert ssh_ingress.note_host_key(aws, mine) is None
    assert "the host key was not noted (UnauthorizedOperation)" in capsys.readouterr().err


def test_an_agent_that_never_registers_ends_in_a_sentence_that_names_the_other_way(aws, state):
    world.fault(state, "agent-never-registers")
    silent = instance.ensure(aws, load.load(["cloud=twin", "box.name=silent"], local=Path("none")).box).instance_id
    with pytest.raises(Problem, match=f"the agent on {silent} did not register within 1 s") as caught:
        agent.wait(aws, silent, 1)
    assert "`inv up -- box.ssh=true`" in caught.value.hint


@pytest.fixture
def service():
    """What answers to the question for our address; its words can be set."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.words)

        def log_message(self, *_):
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_callers_address_is_asked_for_and_checked(service):
    url = f"http://127.0.0.1:{service.server_port}"
    service.words = b"203.0.113.77\n"
    assert ssh_ingress.public_network(url) == "203.0.113.77/32"
    for words in (b"<html>log in to this network</html>", b"", b"2001:db8::1", b"0.0.0.0/0 "):
        service.words = words
        with pytest.raises(Problem, match="no IPv4 address") as caught:
            ssh_ingress.public_network(url)
        assert "`box.ssh_from=ADDRESS/32`" in caught.value.hint
    with pytest.raises(Problem, match="does not tell this machine's address"):
        ssh_ingress.public_network("http://127.0.0.1:1")


@pytest.mark.parametrize(("value", "words"), [("0.0.0.0/0", "4294967296 addresses"), ("10.0.0.1/8", "use auto"), ("home", "use auto")])
def test_the_port_is_never_opened_to_the_world(value, words):
    with pytest.raises(Problem, match="box.ssh_from") as caught:
        load.load(["cloud=twin", f"box.ssh_from={value}"], local=Path("none"))
    assert words in str(caught.value)
