"""SSM Run Command: what boto3's `ssm` client sees of commands; agents fetch and answer them through `messages`.

Statuses, limits and errors follow the AWS API reference and the agent's source; moto only pretends to run commands.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime

from twin.aws import wire
from twin.aws.ssm.commands import DEFAULTS, DOCUMENT, ENDED, Command, Invocation, described, detailed, finish, listed, payload, stamp
from twin.aws.ssm.messages import Message, Messages, message_id

LARGEST_DOCUMENT = 64 * 1024
SOONEST_SEEN = 0.3  # seconds until a new command shows: the real service is eventually consistent
DELAYED = 30.0  # seconds after which a command that no agent has fetched shows as Delayed; the real service names no figure
LONGEST_COMMENT = 100  # characters
PING_STALE = 330.0  # seconds; an agent reports every five minutes
EXECUTION_TIMEOUT = re.compile(r"[1-9]\d{0,4}|1[0-6]\d{4}|17[01]\d{3}|172[0-7]\d{2}|172800")  # the document's allowedPattern


class RunCommand:
    def __init__(
        self,
        region: str,
        running: Callable[[str], bool],
        may_register: Callable[[str], bool],
        tags: Callable[[str], dict[str, str]],
        now: Callable[[], float] = time.time,
    ):
        self.region = region
        self.running = running  # asks EC2 whether an instance runs
        self.may_register = may_register  # asks IAM whether its profile lets it talk to SSM
        self.tags = tags  # asks EC2 for an instance's tags
        self.soonest_seen = SOONEST_SEEN
        self.now = now
        self.lock = threading.RLock()
        self.commands: dict[str, Command] = {}
        self.agents: dict[str, dict] = {}
        self.messages = Messages(
            self.take_reply, lambda command, instance: self.take_reply(command, instance, {"documentStatus": "Failed"})
        )
        own = {
            "SendCommand": self.send,
            "GetCommandInvocation": self.get_invocation,
            "ListCommands": self.list_commands,
            "ListCommandInvocations": self.list_invocations,
            "CancelCommand": self.cancel,
            "DescribeInstanceInformation": self.describe_agents,
            "UpdateInstanceInformation": self.register,
        }
        self.operations = {f"ssm.{name}": self.handler(function) for name, function in own.items()} | self.messages.operations

    def handler(self, function: Callable[[dict], dict]) -> wire.Handler:
        def handle(request: wire.Request, forward: wire.Forward) -> wire.Response:
            with self.lock:
                self.expire()
                return wire.answer(function(request.parameters))

        return handle

    # What clients ask

    def send(self, content: dict) -> dict:
        validate(content)
        instances = content.get("InstanceIds") or self.targeted(content["Targets"])
        invalid = [instance for instance in instances if instance not in self.agents or not self.running(instance)]
        if invalid:
            raise wire.Refusal("InvalidInstanceId", f"Instances [[{', '.join(invalid)}]] not in a valid state for account {wire.ACCOUNT}")
        command = Command(content, self.now(), self.region, invocations={instance: Invocation(instance) for instance in instances})
        self.commands[command.id] = command
        for instance in instances:
            self.messages.put(Message(message_id(command.id, instance), instance, "aws.ssm.sendCommand.", payload(command), self.now()))
        return {"Command": described(command)}

    def targeted(self, targets: list[dict]) -> list[str]:
        """The managed instances that run and match every target; possibly none, which is no error."""
        matching = [one for one in self.agents if self.running(one)]
        for target in targets:
            key, values = target["Key"], target["Values"]
            if key.lower() == "instanceids":
                matching = [one for one in matching if one in values]
            elif key.startswith("tag:"):
                matching = [one for one in matching if self.tags(one).get(key.removeprefix("tag:")) in values]
            elif key == "tag-key":
                matching = [one for one in matching if set(values) & set(self.tags(one))]
            else:
                raise wire.Refusal("InvalidTarget", f"this emulation knows targets InstanceIds, tag:NAME and tag-key, not {key}")
        return matching

    def get_invocation(self, content: dict) -> dict:
        command = self.commands.get(content["CommandId"])
        if not command or not self.visible(command) or content["InstanceId"] not in command.invocations:
            raise wire.Refusal("InvocationDoesNotExist", "")
        return detailed(command, command.invocations[content["InstanceId"]])

    def list_commands(self, content: dict) -> dict:
        return page([described(command) for command in self.matching(content)], "Commands", content)

    def list_invocations(self, content: dict) -> dict:
        invocations = []
        for command in self.matching(content):
            for invocation in command.invocations.values():
                if content.get("InstanceId") in (None, invocation.instance):
                    invocations.append(listed(command, invocation, content.get("Details", False)))
        return page(invocations, "CommandInvocations", content)

    def cancel(self, content: dict) -> dict:
        command = self.commands.get(content["CommandId"])
        if not command:
            raise wire.Refusal("InvalidCommandId", "")
        for instance in content.get("InstanceIds") or command.invocations:
            invocation = command.invocations[instance]
            sent = message_id(command.id, instance)
            if invocation.status in ("Pending", "Delayed"):
                self.messages.withdraw(sent)
                invocation.end("Cancelled", "Cancelled")
            elif invocation.status == "InProgress":
                invocation.status, invocation.details = "Cancelling", "Cancelling"
            if invocation.status in ("Cancelled", "Cancelling"):
                own = message_id(str(uuid.uuid4()), instance)
                self.messages.put(Message(own, instance, "aws.ssm.cancelCommand.", {"CancelMessageId": sent}, self.now()))
        return {}

    def describe_agents(self, content: dict) -> dict:
        wanted = {filter["Key"]: filter["Values"] for filter in content.get("Filters", [])}
        wanted |= {filter["key"]: filter["valueSet"] for filter in content.get("InstanceInformationFilterList", [])}
        agents = []
        for agent in self.agents.values():
            online = self.now() - agent["LastPingDateTime"] < PING_STALE
            shown = agent | {"PingStatus": "Online" if online else "ConnectionLost"}
            if all(shown.get(key.removesuffix("s") if key == "InstanceIds" else key) in values for key, values in wanted.items()):
                agents.append(shown)
        return page(agents, "InstanceInformationList", content)

    # What agents say

    def register(self, content: dict) -> dict:
        instance = content["InstanceId"]
        if not self.may_register(instance):
            raise wire.Refusal("AccessDeniedException", f"{instance} is not authorized to perform: ssm:UpdateInstanceInformation")
        names = ("InstanceId", "AgentVersion", "PlatformType", "PlatformName", "PlatformVersion", "ComputerName", "IPAddress")
        known = {name: content[name] for name in names if name in content}
        fixed = {"ResourceType": "EC2Instance", "IsLatestVersion": True, "LastPingDateTime": self.now()}
        self.messages.agent_started(instance)
        self.agents[instance] = self.agents.get(instance, {}) | known | fixed
        return {}

    def take_reply(self, command_id: str, instance: str, reply: dict) -> None:
        with self.lock:
            command = self.commands.get(command_id)
            invocation = command.invocations.get(instance) if command else None
            if not invocation or invocation.status in ENDED:
                return
            status = reply["documentStatus"]
            if status in ENDED:
                # A document that fails before its plugin runs has "runtimeStatus": null, and its message is never acknowledged.
                self.messages.withdraw(message_id(command_id, instance))
                finish(invocation, status, (reply.get("runtimeStatus") or {}).get("aws:runShellScript", {}))
            elif invocation.status in ("Pending", "Delayed"):
                invocation.status, invocation.details = "InProgress", "In Progress"
                invocation.started = stamp(self.now())

    def pinged(self, instances: list[str]) -> None:
        """These agents live: the clock was moved, and they had no time to say so themselves."""
        with self.lock:
            for instance in set(instances) & set(self.agents):
                self.agents[instance]["LastPingDateTime"] = self.now()

    # What is true of commands

    def expire(self) -> None:
        for command in self.commands.values():
            for invocation in command.invocations.values():
                late = invocation.status == "Pending" and self.now() - command.requested > DELAYED
                if late and self.messages.is_waiting(message_id(command.id, invocation.instance)):
                    invocation.status, invocation.details = "Delayed", "Delayed"
            if self.now() < command.expires:
                continue
            for invocation in command.invocations.values():
                if invocation.status in ("Pending", "Delayed"):
                    self.messages.withdraw(message_id(command.id, invocation.instance))
                    invocation.end("TimedOut", "Delivery Timed Out")
                elif invocation.status not in ENDED:
                    invocation.end("TimedOut", "Execution Timed Out")

    def visible(self, command: Command) -> bool:
        return self.now() - command.requested >= self.soonest_seen

    def matching(self, content: dict) -> list[Command]:
        """Commands that a list call asks for, newest first."""
        commands = [command for command in self.commands.values() if self.visible(command)]
        for one in content.get("Filters", []):
            commands = [command for command in commands if passes(command, one["key"], one["value"])]
        commands = [command for command in commands if content.get("CommandId") in (None, command.id)]
        commands = [command for command in commands if content.get("InstanceId") is None or content["InstanceId"] in command.invocations]
        return sorted(commands, key=lambda command: command.requested, reverse=True)


def passes(command: Command, key: str, value: str) -> bool:
    """Whether a command is among those that a filter of the list calls asks for."""
    if key == "Status":
        return command.status == value
    if key == "DocumentName":
        return value == DOCUMENT
    if key in ("InvokedAfter", "InvokedBefore"):
        moment = datetime.fromisoformat(value).timestamp()
        return command.requested > moment if key == "InvokedAfter" else command.requested < moment
    raise wire.Refusal("InvalidFilterKey", f"this emulation filters by Status, DocumentName, InvokedAfter and InvokedBefore, not {key}")


def validate(content: dict) -> None:
    """Refuses what the real service refuses before it looks for instances."""
    if content["DocumentName"] != DOCUMENT:
        raise wire.Refusal("InvalidDocument", f"Document with name {content['DocumentName']} does not exist.")
    if bool(content.get("Targets")) == bool(content.get("InstanceIds")):
        raise wire.Refusal("ValidationException", "Either InstanceIds or Targets must be given, and not both")
    if len(content.get("Comment", "")) > LONGEST_COMMENT:
        raise wire.Refusal("ValidationException", f"comment: Member must have length less than or equal to {LONGEST_COMMENT}")
    if len(content.get("InstanceIds", [])) > 50:
        raise wire.Refusal("ValidationException", "InstanceIds: Member must have length less than or equal to 50")
    parameters = content.get("Parameters", {})
    unknown = set(parameters) - {"commands", "workingDirectory", "executionTimeout"}
    timeout = parameters.get("executionTimeout", [DEFAULTS["executionTimeout"]])
    if unknown or not parameters.get("commands") or len(timeout) != 1 or not EXECUTION_TIMEOUT.fullmatch(timeout[0]):
        raise wire.Refusal("InvalidParameters", f"Parameters of {DOCUMENT} are commands, workingDirectory and executionTimeout (1-172800)")
    if not 30 <= content.get("TimeoutSeconds", 3600) <= 2_592_000:
        raise wire.Refusal("ValidationException", "timeoutSeconds: Member must be between 30 and 2592000")
    if len(json.dumps(parameters)) > LARGEST_DOCUMENT:
        raise wire.Refusal("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")


def page(items: list[dict], name: str, content: dict) -> dict:
    """One page of a list; the token is the place where the next page starts."""
    start = int(content.get("NextToken", 0))
    end = start + content.get("MaxResults", 50)
    return {name: items[start:end]} | ({"NextToken": str(end)} if end < len(items) else {})
