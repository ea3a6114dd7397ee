"""Delivery and expiry of commands, by a clock of the test's own."""

import json
import threading

import pytest

from twin.aws import wire
from twin.aws.ssm import messages, run_command

BOX = "i-0123456789abcdef0"


class Service:
    """Run Command with one registered agent and nothing behind it."""

    def __init__(self):
        self.time = 1_000_000.0
        self.service = run_command.RunCommand("us-east-1", lambda _: True, lambda _: True, lambda _: {"role": "gpu"}, lambda: self.time)
        self.call("ssm.UpdateInstanceInformation", InstanceId=BOX)

    def call(self, name, **content):
        service, operation = name.split(".")
        environ = {"HTTP_X_AMZ_TARGET": operation, "HTTP_HOST": "here", "twin.by": BOX}
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
    assert service.invocation(command)["Status"] == "Pending"
    service.time += 30 + 100 - 2
    assert service.invocation(command)["Status"] == "Delayed"
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


def test_a_document_that_failed_before_its_plugin_is_not_delivered_again(service):
    """The agent does not acknowledge it, and its "runtimeStatus" is null."""
    command = service.send()
    (message,) = service.poll()
    payload = {"documentStatus": "Failed", "documentTraceOutput": "Input contains invalid parameters", "runtimeStatus": None}
    service.call("ec2messages.SendReply", MessageId=message["MessageId"], ReplyId="2", Payload=json.dumps(payload))
    invocation = service.invocation(command)
    assert (invocation["Status"], invocation["ResponseCode"], invocation["StandardErrorContent"]) == ("Failed", -1, "")
    assert service.poll() == []


def test_a_reply_about_a_cancel_message_changes_nothing(service):
    """The agent says InProgress of every message that it takes, of a cancel too."""
    command = service.send()
    (message,) = service.poll()
    service.reply(message, "InProgress")
    service.call("ssm.CancelCommand", CommandId=command)
    (cancel,) = [one for one in service.poll() if one["Topic"].startswith("aws.ssm.cancelCommand.")]
    payload = {"documentStatus": "InProgress", "runtimeStatus": None}
    service.call("ec2messages.SendReply", MessageId=cancel["MessageId"], ReplyId="3", Payload=json.dumps(payload))
    assert service.invocation(command)["Status"] == "Cancelling"


def test_a_poll_ends_before_the_agents_own_http_client_gives_up():
    assert messages.LONGEST_POLL < 20  # Mds.StopTimeoutMillis of the agent's configuration


def test_a_silent_agent_is_shown_as_lost(service):
    service.time += 300
    assert service.call("ssm.DescribeInstanceInformation")["InstanceInformationList"][0]["PingStatus"] == "Online"
    service.time += 60
    assert service.call("ssm.DescribeInstanceInformation")["InstanceInformationList"][0]["PingStatus"] == "ConnectionLost"


def test_a_command_that_no_agent_fetches_is_delayed_and_runs_when_one_does(service):
    command = service.send(TimeoutSeconds=600)
    service.time += 40
    assert (service.invocation(command)["Status"], service.invocation(command)["ResponseCode"]) == ("Delayed", -1)
    assert service.call("ssm.ListCommands", CommandId=command)["Commands"][0]["Status"] == "Pending"  # a command is never Delayed
    (message,) = service.poll()
    service.reply(message, "InProgress")
    assert service.invocation(command)["Status"] == "InProgress"
    service.reply(message, "Success", code=0)
    assert service.invocation(command)["Status"] == "Success"


def test_the_delivery_timeout_has_bounds(service):
    for seconds in (29, 2_592_001):
        with pytest.raises(wire.Refusal, match="2592000"):
            service.send(TimeoutSeconds=seconds)


def test_a_cancel_shows_as_cancelling_until_the_agent_answers(service):
    command = service.send()
    (message,) = service.poll()
    service.reply(message, "InProgress")
    service.call("ssm.CancelCommand", CommandId=command)
    assert service.invocation(command)["Status"] == "Cancelling"
    assert service.call("ssm.ListCommands", CommandId=command)["Commands"][0]["Status"] == "Cancelling"
    service.reply(message, "Success", code=0)  # no guarantee that it is ended
    assert service.invocation(command)["Status"] == "Success"


def test_a_command_goes_to_the_instances_that_a_tag_names(service):
    def sent(**target):
        parameters = {"commands": ["true"]}
        answer = service.call("ssm.SendCommand", Targets=[target], DocumentName="AWS-RunShellScript", Parameters=parameters)["Command"]
        service.time += 1
        return answer

    command = sent(Key="tag:role", Values=["gpu"])
    assert (command["TargetCount"], command["InstanceIds"]) == (1, [])
    assert len(service.call("ssm.ListCommandInvocations", CommandId=command["CommandId"])["CommandInvocations"]) == 1
    nobody = sent(Key="tag:role", Values=["cpu"])
    assert (nobody["TargetCount"], nobody["StatusDetails"]) == (0, "NoInstancesInTag")
    assert service.call("ssm.ListCommandInvocations", CommandId=nobody["CommandId"])["CommandInvocations"] == []


def test_sending_twice_runs_twice_and_only_the_comment_tells(service):
    first, second = service.send(Comment="run-1"), service.send(Comment="run-1")
    assert first != second and len(service.poll()) == 2
    listed = service.call("ssm.ListCommands", InstanceId=BOX)["Commands"]
    assert [one["CommandId"] for one in listed if one["Comment"] == "run-1"] == [second, first]
    with pytest.raises(wire.Refusal, match="comment"):
        service.send(Comment="c" * 101)


def test_lists_by_status_and_by_time(service):
    first = service.send()
    service.time += 100
    second = service.send()
    after = "1970-01-12T13:47:00+00:00"  # between the two
    filters = [{"key": "InvokedAfter", "value": after}]
    assert [one["CommandId"] for one in service.call("ssm.ListCommands", Filters=filters)["Commands"]] == [second]
    service.reply(service.poll()[0], "Success", code=0)
    filters = [{"key": "Status", "value": "Success"}]
    assert [one["CommandId"] for one in service.call("ssm.ListCommands", Filters=filters)["Commands"]] == [first]
