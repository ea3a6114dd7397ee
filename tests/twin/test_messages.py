"""Delivery and expiry of commands, by a clock of the test's own."""

import json
import threading

import pytest

from twin import messages, run_command, wire

BOX = "i-0123456789abcdef0"


class Service:
    """Run Command with one registered agent and nothing behind it."""

    def __init__(self):
        self.time = 1_000_000.0
        self.service = run_command.RunCommand(lambda instance: True, lambda instance: True, lambda: self.time)
        self.call("ssm.UpdateInstanceInformation", InstanceId=BOX)

    def call(self, name, **content):
        service, operation = name.split(".")
        environ = {"HTTP_X_AMZ_TARGET": operation, "HTTP_HOST": "here"}
        request = wire.Request(environ, service, operation, "us-east-1", json.dumps(content).encode())
        return json.loads(self.service.operations[name](request, None).get_data())

    def send(self, **more):
        parameters = {"commands": ["true"], "executionTimeout": ["100"]}
        sent = self.call("ssm.SendCommand", InstanceIds=[BOX], DocumentName="AWS-RunShellScript", Parameters=parameters, **more)
        self.time += 1
        return sent["Command"]["CommandId"]

    def invocation(self, command):
        return self.call("ssm.GetCommandInvocation", CommandId=command, InstanceId=BOX)

    def poll(self, seconds=0):
        return self.call("ec2messages.GetMessages", Destination=BOX, MessagesRequestId="1", VisibilityTimeoutInSeconds=seconds)["Messages"]

    def reply(self, message, status, **plugin):
        payload = {"documentStatus": status, "runtimeStatus": {"aws:runShellScript": plugin}}
        self.call("ec2messages.SendReply", MessageId=message["MessageId"], ReplyId="2", Payload=json.dumps(payload))


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(messages, "LONGEST_POLL", 0.2)
    return Service()


def test_an_undelivered_command_times_out_after_both_timeouts_together(service):
    command = service.send(TimeoutSeconds=30)
    service.time += 30 + 100 - 2
    assert service.invocation(command)["Status"] == "Pending"
    service.time += 2
    assert service.invocation(command)["StatusDetails"] == "Delivery Timed Out"
    assert service.poll() == []


def test_a_command_on_a_box_that_vanished_stays_in_progress_until_then(service):
    command = service.send(TimeoutSeconds=30)
    service.reply(service.poll()[0], "InProgress")
    service.time += 128
    assert service.invocation(command)["Status"] == "InProgress"
    service.time += 2
    assert service.invocation(command)["StatusDetails"] == "Execution Timed Out"


def test_a_message_comes_again_until_it_is_acknowledged(service):
    service.send()
    (first,), (again,) = service.poll(), service.poll()
    assert first == again
    service.call("ec2messages.AcknowledgeMessage", MessageId=first["MessageId"])
    assert service.poll() == []


def test_message_has_the_shape_that_the_real_agent_reads(service):
    command = service.send()
    (message,) = service.poll()
    assert message["MessageId"] == f"aws.ssm.{command}.{BOX}"
    assert message["Topic"].startswith("aws.ssm.sendCommand.") and message["Destination"] == BOX
    payload = json.loads(message["Payload"])
    assert payload["CommandId"] == command
    assert payload["Parameters"] == {"commands": ["true"], "executionTimeout": "100", "workingDirectory": ""}
    assert payload["DocumentContent"]["runtimeConfig"]["aws:runShellScript"]["properties"][0]["id"] == "0.aws:runShellScript"


def test_a_dead_agents_open_poll_swallows_nothing(service, monkeypatch):
    monkeypatch.setattr(messages, "LONGEST_POLL", 5)
    swallowed = []
    dead = threading.Thread(target=lambda: swallowed.extend(service.poll(60)))
    dead.start()
    while BOX not in service.service.messages.newest_poll:
        pass
    service.call("ssm.UpdateInstanceInformation", InstanceId=BOX)
    dead.join(2)
    assert not dead.is_alive()
    service.send()
    assert swallowed == [] and len(service.poll(60)) == 1


def test_cancel_before_delivery_needs_no_agent(service):
    command = service.send()
    service.call("ssm.CancelCommand", CommandId=command)
    assert service.invocation(command)["Status"] == "Cancelled"
    assert [message["Topic"] for message in service.poll()] == ["aws.ssm.cancelCommand."]


def test_an_ended_command_takes_no_later_reply(service):
    command = service.send()
    (message,) = service.poll()
    service.reply(message, "Failed", code=9)
    service.reply(message, "Success", code=0)
    assert service.invocation(command)["ResponseCode"] == 9


def test_a_silent_agent_is_shown_as_lost(service):
    service.time += 300
    assert service.call("ssm.DescribeInstanceInformation")["InstanceInformationList"][0]["PingStatus"] == "Online"
    service.time += 60
    assert service.call("ssm.DescribeInstanceInformation")["InstanceInformationList"][0]["PingStatus"] == "ConnectionLost"
