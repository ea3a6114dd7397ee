"""`ssmmessages`: the control channel of each agent and the data channel of each session, where agent and client meet.

Wire shapes as amazon-ssm-agent (agent/session/service, controlchannel, datachannel) and session-manager-plugin send and read them; boto3
has no client for this service. What passes between agent and client is passed on byte for byte.
"""

import json
import re
import secrets
import threading
from collections.abc import Callable

from twin.aws import wire
from twin.aws.ssm.sessions import ENDED, Session, Sessions, try_to_send
from twin.channel import message, websocket
from twin.channel.websocket import WebSocket

PLACE = re.compile(r"/v1/(control|data)-channel/([^/]+)")
SCHEMA = "1.0"
CREATED = 201
FROM_CLIENT, FROM_AGENT = (message.INPUT, message.ACKNOWLEDGE), (message.OUTPUT, message.ACKNOWLEDGE)


class Channels:
    """Sockets belong to this world's own HTTP server; each is served by the thread of the request that opened it."""

    def __init__(self, sessions: Sessions, refused: bool = False):
        self.sessions = sessions
        self.refused = refused  # to all agents: another program is the agent here, and it would want its commands this way
        self.tokens: dict[str, str] = {}  # of control channels, to their instances
        self.lock = threading.Lock()
        self.operations: dict[str, wire.Handler] = {"ssmmessages.POST": self.create, "ssmmessages.GET": self.open}

    def create(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        kind, name = place(request)
        target = name if kind == "control" else self.session(name).target if name in self.sessions.sessions else None
        if self.refused or request.by != target:
            what = f"ssmmessages:Create{kind.title()}Channel"
            raise wire.Refusal("AccessDeniedException", f"{request.by} is not authorized to perform: {what}", 403)
        if kind == "control":
            token = secrets.token_hex(48)
            with self.lock:
                self.tokens[token] = name
        else:
            token = self.session(name).token()
        answer = f"Create{kind.title()}ChannelResponse"
        text = f"<{answer}><MessageSchemaVersion>{SCHEMA}</MessageSchemaVersion><TokenValue>{token}</TokenValue></{answer}>"
        return wire.Response(text, CREATED, content_type="application/xml")

    def open(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """Answers when the channel is over: until then the request's connection is the channel."""
        kind, name = place(request)
        key = request.environ.get("HTTP_SEC_WEBSOCKET_KEY")
        if not key or "werkzeug.socket" not in request.environ:
            raise wire.Refusal("InvalidRequest", "a channel is a WebSocket", 426)
        way = websocket.serve(request.environ["werkzeug.socket"], key)
        try:
            first = json.loads(way.receive())  # in the first words is the token
            self.serve_control(name, way, first) if kind == "control" else self.serve_data(name, way, first)
        except (websocket.Closed, message.Invalid, ValueError, KeyError):
            pass
        finally:
            way.close()
        return wire.Response(status=101)

    def serve_control(self, instance: str, way: WebSocket, first: dict) -> None:
        with self.lock:
            if self.tokens.pop(first["TokenValue"], None) != instance:
                return
        self.sessions.control[instance] = way
        try:
            while True:
                self.sessions.completed(instance, message.unpack(way.receive()))
        finally:
            if self.sessions.control.get(instance) is way:
                del self.sessions.control[instance]

    def serve_data(self, name: str, way: WebSocket, first: dict) -> None:
        session = self.session(name)
        with self.sessions.lock:
            if first["TokenValue"] not in session.tokens or session.status in ENDED:
                return
            session.tokens.remove(first["TokenValue"])
        if "ClientInstanceId" in first:
            self.serve_agent(session, way)
        else:
            self.serve_client(session, way)

    def serve_agent(self, session: Session, way: WebSocket) -> None:
        with self.sessions.lock:
            session.agent = way
            if not session.client:
                self.tell(way, message.PAUSE)
        try:
            self.relay(way, FROM_AGENT, lambda: session.client, lambda received: self.sessions.heard(session, received))
        finally:
            if session.agent is way:
                session.agent = None

    def serve_client(self, session: Session, way: WebSocket) -> None:
        """The newest is the one; the agent publishes nothing while there is none."""
        with self.sessions.lock:
            previous, session.client = session.client, way
            if session.status == "Disconnected":
                session.status = "Connected"
            self.tell(session.agent, message.START)
        if previous:
            previous.close()
        try:
            self.relay(way, FROM_CLIENT, lambda: session.agent)
        finally:
            self.left(session, way)

    def left(self, session: Session, way: WebSocket) -> None:
        """The session waits for its client, which may come again with a new token."""
        with self.sessions.lock:
            if session.client is way:
                session.client = None
                session.status = session.status if session.status in ENDED else "Disconnected"
                self.tell(session.agent, message.PAUSE)

    def tell(self, agent: WebSocket | None, kind: str) -> None:
        if agent:
            try_to_send(agent, message.of_json(kind, {}).pack())

    def relay(
        self,
        way: WebSocket,
        kinds: tuple[str, ...],
        other: Callable[[], WebSocket | None],
        heard: Callable[[message.Message], None] = lambda received: None,
    ) -> None:
        """What one end sends, to the other, until it is gone; it is lost where the other is not there, and its sender sends it again."""
        while True:
            content = way.receive()
            received = message.unpack(content)
            if received.kind not in kinds:
                heard(received)
            elif to := other():
                try_to_send(to, content)

    def session(self, name: str) -> Session:
        return self.sessions.sessions[name]


def place(request: wire.Request) -> tuple[str, str]:
    match = PLACE.fullmatch(request.path)
    if not match:
        raise wire.Refusal("NotFound", f"there is no {request.path}", 404)
    return match[1], match[2]
