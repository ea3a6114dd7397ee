"""The service that agents poll (`ec2messages`): commands wait here for their box, results come back through it.

Wire shapes as the open source amazon-ssm-agent sends and reads them; boto3 has no client for this service.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from twin.aws import wire

LONGEST_POLL = 15.0  # seconds; the agent's own HTTP client gives up after 20 (its StopTimeoutMillis)


@dataclass
class Message:
    id: str
    instance: str
    topic: str
    payload: dict
    created: float
    hidden_until: float = 0.0  # delivered, not yet acknowledged

    def seen(self) -> dict:
        created = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.created))
        return {
            "MessageId": self.id,
            "Destination": self.instance,
            "CreatedDate": created,
            "Topic": self.topic,
            "Payload": json.dumps(self.payload),
        }


class Messages:
    """Mailboxes, one for each instance; a message comes again until it is acknowledged."""

    def __init__(self, on_reply: Callable[[str, str, dict], None], on_failure: Callable[[str, str], None]):
        self.waiting: dict[str, Message] = {}
        self.newest_poll: dict[str, str] = {}
        self.arrived = threading.Condition()
        self.on_reply = on_reply
        self.on_failure = on_failure
        names = ("GetMessages", "AcknowledgeMessage", "SendReply", "DeleteMessage", "FailMessage", "GetEndpoint")
        self.operations: dict[str, wire.Handler] = {f"ec2messages.{name}": self.handle for name in names}

    def put(self, message: Message) -> None:
        with self.arrived:
            self.waiting[message.id] = message
            self.arrived.notify_all()

    def withdraw(self, message_id: str) -> None:
        with self.arrived:
            self.waiting.pop(message_id, None)

    def is_waiting(self, message_id: str) -> bool:
        return message_id in self.waiting

    def agent_started(self, instance: str) -> None:
        """What its predecessor was given and did not acknowledge comes again, and no old connection takes anything more."""
        with self.arrived:
            self.newest_poll.pop(instance, None)
            for message in self.waiting.values():
                if message.instance == instance:
                    message.hidden_until = 0.0
            self.arrived.notify_all()

    def handle(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        content = request.parameters
        self.check_caller(request)
        if request.operation == "GetMessages":
            return wire.answer(self.poll(content))
        if request.operation in ("AcknowledgeMessage", "DeleteMessage"):
            self.withdraw(content["MessageId"])
        elif request.operation == "SendReply":
            self.on_reply(*parties(content["MessageId"]), json.loads(content["Payload"]))
        elif request.operation == "FailMessage":
            self.withdraw(content["MessageId"])
            self.on_failure(*parties(content["MessageId"]))
        elif request.operation == "GetEndpoint":
            return wire.answer({"Endpoint": {"Protocol": "http", "Endpoint": request.environ["HTTP_HOST"]}})
        return wire.answer({})

    def check_caller(self, request: wire.Request) -> None:
        """An instance hears and answers for itself alone."""
        content = request.parameters
        about = content["Destination"] if "Destination" in content else parties(content["MessageId"])[1] if "MessageId" in content else None
        if about not in (None, request.by):
            raise wire.Refusal("AccessDeniedException", f"{request.by} is not {about}", 400)

    def poll(self, content: dict) -> dict:
        """Messages for one agent, as soon as there are some; none after the longest poll, or when a newer poll took over."""
        instance, poll = content["Destination"], str(uuid.uuid4())
        deadline = time.monotonic() + LONGEST_POLL
        with self.arrived:
            # The connection of an agent that died still polls; it must not swallow what its successor waits for.
            self.newest_poll[instance] = poll
            self.arrived.notify_all()
            while (
                not (due := self.due(instance))
                and (seconds_left := deadline - time.monotonic()) > 0
                and self.newest_poll.get(instance) == poll
            ):
                self.arrived.wait(min(seconds_left, 1.0))  # a hidden message becomes visible without a notice
            if self.newest_poll.get(instance) != poll:
                due = []
            for message in due:
                message.hidden_until = time.monotonic() + content["VisibilityTimeoutInSeconds"]
        return {"Destination": instance, "MessagesRequestId": content["MessagesRequestId"], "Messages": [one.seen() for one in due]}

    def due(self, instance: str) -> list[Message]:
        now = time.monotonic()
        return [one for one in self.waiting.values() if one.instance == instance and one.hidden_until <= now]


def message_id(command: str, instance: str) -> str:
    return f"aws.ssm.{command}.{instance}"


def parties(identifier: str) -> tuple[str, str]:
    """The command and the instance that a message id names."""
    _, _, command, instance = identifier.split(".")
    return command, instance
