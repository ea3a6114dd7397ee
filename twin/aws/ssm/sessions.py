"""Session Manager: what boto3's `ssm` client sees of sessions; agents and clients meet in them through `channels`.

Rules and what is only assumed: SESSIONS.md.
"""

import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from twin.aws import wire
from twin.aws.ssm import documents
from twin.channel import message
from twin.channel.message import Message
from twin.channel.websocket import WebSocket

ENDED = ("Terminated", "Failed")
TAG = "ssm:resourceTag/aws:ssmmessages:session-id"  # by which a policy tells whose session it is
FILTERS = {"Target": "target", "Owner": "owner", "Status": "status", "SessionId": "id"}


@dataclass
class Session:
    target: str
    owner: str  # the ARN of who started it
    user: str  # his id, as IAM has it
    document: str
    parameters: dict[str, list[str]]
    reason: str
    started: float
    id: str
    status: str = "Connecting"
    ended: float = 0.0
    tokens: set[str] = field(default_factory=set)  # each opens the data channel once, for a client or for the agent
    agent: WebSocket | None = None
    client: WebSocket | None = None

    def token(self) -> str:
        self.tokens.add(made := secrets.token_hex(48))
        return made

    def told(self) -> bytes:
        """What the agent gets over its control channel."""
        task = {"DocumentName": self.document, "DocumentContent": documents.find(self.document).content(), "SessionId": self.id}
        task |= {"Parameters": self.parameters, "RunAsUser": "", "SessionOwner": self.owner}
        content = {"Content": json.dumps(task), "TaskId": str(uuid.uuid4()), "Topic": "", "SchemaVersion": 1}
        return message.of_json(message.INTERACTIVE_SHELL, content, flags=0).pack()

    def shown(self) -> dict:
        about = {"SessionId": self.id, "Target": self.target, "Status": self.status, "StartDate": self.started, "Owner": self.owner}
        about |= {"DocumentName": self.document, "OutputUrl": {}, "AccessType": "Standard"}
        return about | ({"Reason": self.reason} if self.reason else {}) | ({"EndDate": self.ended} if self.ended else {})


class Sessions:
    def __init__(
        self, region: str, running: Callable[[str], bool], caller: Callable[[str], tuple[str, str]], now: Callable[[], float] = time.time
    ):
        self.region, self.running, self.now = region, running, now
        self.caller = caller  # tells of who asks his ARN and his id
        self.lock = threading.RLock()
        self.sessions: dict[str, Session] = {}
        self.control: dict[str, WebSocket] = {}  # by instance
        own = {
            "StartSession": self.start,
            "ResumeSession": self.resume,
            "TerminateSession": self.terminate,
            "DescribeSessions": self.describe,
        }
        self.operations: dict[str, wire.Handler] = {f"ssm.{name}": self.handler(function) for name, function in own.items()}

    def handler(self, function: Callable[[wire.Request], dict]) -> wire.Handler:
        def handle(request: wire.Request, forward: wire.Forward) -> wire.Response:
            with self.lock:
                return wire.answer(function(request))

        return handle

    # What clients ask

    def start(self, request: wire.Request) -> dict:
        content = request.parameters
        target, document = content["Target"], content.get("DocumentName", documents.PREFERENCES)
        parameters = documents.parameters(document, content.get("Parameters", {}))
        if target not in self.control or not self.running(target):
            raise wire.Refusal("TargetNotConnected", f"{target} is not connected.")
        arn, user = self.caller(request.by)
        name = re.split("[:/]", arn)[-1]
        made = Session(target, arn, user, document, parameters, content.get("Reason", ""), self.now(), f"{name}-{secrets.token_hex(9)[1:]}")
        self.sessions[made.id] = made
        try_to_send(self.control[target], made.told())
        return self.way_in(request, made)

    def resume(self, request: wire.Request) -> dict:
        session = self.find(request.parameters["SessionId"])
        return {"SessionId": session.id} if session.status in ENDED else self.way_in(request, session)

    def terminate(self, request: wire.Request) -> dict:
        session = self.find(request.parameters["SessionId"])
        if session.status not in ENDED:
            self.tell_agent(session)
            self.end(session)
        return {"SessionId": session.id}

    def describe(self, request: wire.Request) -> dict:
        content = request.parameters
        for session in self.sessions.values():  # nobody is left to say so where the box went off
            if session.status not in ENDED and not session.agent and not self.running(session.target):
                self.end(session)
        matching = [one for one in self.sessions.values() if (one.status in ENDED) is (content["State"] == "History")]
        for one in content.get("Filters", []):
            if one["key"] not in FILTERS:
                raise wire.Refusal("InvalidFilterKey", f"this emulation filters by {', '.join(FILTERS)}, not {one['key']}")
            matching = [session for session in matching if getattr(session, FILTERS[one["key"]]) == one["value"]]
        return {"Sessions": [one.shown() for one in sorted(matching, key=lambda session: -session.started)]}

    def find(self, name: str) -> Session:
        if name not in self.sessions:
            raise wire.Refusal("DoesNotExistException", f"Session {name} does not exist.")
        return self.sessions[name]

    def way_in(self, request: wire.Request, session: Session) -> dict:
        """By the address that the client knows this world by: on AWS it is wss://ssmmessages.REGION.amazonaws.com."""
        url = f"ws://{request.environ['HTTP_HOST']}/v1/data-channel/{session.id}?role=publish_subscribe"
        return {"SessionId": session.id, "TokenValue": session.token(), "StreamUrl": url}

    def tags_of(self, arn: str) -> dict[str, str]:
        """The tags that Session Manager itself gives a session, as conditions ask for them."""
        session = self.sessions.get(arn.rpartition(":session/")[2])
        return {TAG: session.user, "ssm:resourceTag/aws:ssmmessages:target-id": session.target} if session else {}

    # What agents say, and what becomes of sessions

    def heard(self, session: Session, received: Message) -> None:
        """An agent's word about the state of its session."""
        if received.kind == message.STATE and session.status not in ENDED:
            session.status = received.json["SessionState"]

    def completed(self, instance: str, received: Message) -> None:
        """A session of this instance is over, as its agent says."""
        session = self.sessions.get(received.json["TaskId"])
        if received.kind == message.TASK_COMPLETE and session and session.target == instance:
            self.end(session, received.json.get("Output", ""))

    def tell_agent(self, session: Session) -> None:
        if way := session.agent or self.control.get(session.target):
            try_to_send(way, message.closed(session.id, session.target).pack())

    def end(self, session: Session, output: str = "") -> None:
        with self.lock:
            if session.status in ENDED:
                return
            session.status, session.ended = "Terminated", self.now()
            session.tokens.clear()
        if session.client:
            try_to_send(session.client, message.closed(session.id, session.target, output).pack())


def try_to_send(way: WebSocket, content: bytes) -> None:
    try:
        way.send(content)
    except OSError:
        return  # who is gone hears nothing
