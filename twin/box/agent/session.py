"""One session: a data channel, and behind it a terminal with a shell or a command, or the ports of this box.

As the source of amazon-ssm-agent has it (agent/session: sessionplugin.go, datachannel.go, shell_unix.go, port_mux.go). The shell of a
real box is ssm-user's; here it is of the user whom sshd lets in.
"""

import fcntl
import http.client
import json
import os
import pty
import re
import signal
import socket
import struct
import termios
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import channels
from service import Service
from worker import VERSION

from twin.channel import message
from twin.channel.message import Message
from twin.channel.mux import Mux
from twin.channel.stream import PIECE, Stream

HANDSHAKE = 15.0  # seconds for the client's answer
LAST_WORDS = 5.0  # seconds for what was said last to be acknowledged
ATTEMPTS, BETWEEN = 5, 0.1  # at a channel that was lost
PARAMETER = re.compile(r"\{\{ *(\w+) *\}\}")
SHELL, COMMAND, PORT = "Standard_Stream", "InteractiveCommands", "Port"


class Session:
    def __init__(self, content: dict, instance: str, root: Path, service: Service):
        self.id, self.instance, self.root, self.service = content["SessionId"], instance, root, service
        self.kind = content["DocumentContent"]["sessionType"]
        values = {name: one[0] if isinstance(one, list) else one for name, one in content["Parameters"].items()}
        self.properties = filled(content["DocumentContent"].get("properties") or {}, values)
        self.client = str(uuid.uuid4())
        self.over, self.answered = threading.Event(), threading.Event()
        self.terminal: int | None = None
        self.process = 0
        self.mux: Mux | None = None
        self.channel = self.open()
        self.stream = Stream(message.OUTPUT, lambda packed: self.channel.send(packed), self.take)

    def open(self) -> channels.websocket.WebSocket:
        return channels.open_channel(self.service, channels.DATA, self.id, ClientId=self.client, ClientInstanceId=self.instance)

    def run(self) -> bool:
        """Whether it came to its end in order."""
        threading.Thread(target=self.listen, daemon=True).start()
        self.say("Connected")
        if self.kind != SHELL and not self.shake_hands():
            return False
        if self.kind == PORT:
            self.mux = Mux(self.stream.send, self.connect)
            self.over.wait()
            self.mux.close()
        else:
            self.run_terminal()
        self.stream.drain(LAST_WORDS)
        self.say("Terminating")
        self.stream.close()
        return True

    # What comes in

    def listen(self) -> None:
        while not self.over.is_set():
            try:
                received = message.unpack(self.channel.receive())
            except (channels.websocket.Closed, message.Invalid):
                if not self.reopen():
                    self.end()
                continue
            if received.kind == message.CLOSED:
                self.end()
            else:
                self.stream.receive(received)

    def reopen(self) -> bool:
        for attempt in range(ATTEMPTS):
            if self.over.wait(BETWEEN * 2**attempt):
                return False
            with suppress(OSError, http.client.HTTPException):
                self.channel = self.open()
                return True
        return False

    def take(self, received: Message) -> bool:
        """Whether what the client sent has found its place; what comes before that is sent again."""
        if received.payload_type == message.HANDSHAKE_RESPONSE:
            self.answered.set()
        elif received.payload_type == message.FLAG:
            if received.payload == message.TERMINATE_SESSION:
                self.end()
        elif self.mux and received.payload_type == message.DATA:
            self.mux.feed(received.payload)
        elif self.terminal is None:
            return False
        elif received.payload_type == message.SIZE:
            size = received.json
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size["rows"], size["cols"], 0, 0))
        elif received.payload_type == message.DATA:
            os.write(self.terminal, received.payload)
        return True

    # What goes out

    def say(self, state: str) -> None:
        content = {"SchemaVersion": 1, "SessionState": state, "SessionId": self.id}
        with suppress(OSError):
            self.channel.send(message.of_json(message.STATE, content).pack())

    def shake_hands(self) -> bool:
        begun = time.monotonic_ns()
        action = {"ActionType": "SessionType", "ActionParameters": {"SessionType": self.kind, "Properties": self.properties}}
        request = {"AgentVersion": VERSION, "RequestedClientActions": [action]}
        self.stream.send(json.dumps(request).encode(), message.HANDSHAKE_REQUEST)
        if not self.answered.wait(HANDSHAKE):
            return False
        complete = {"HandshakeTimeToComplete": time.monotonic_ns() - begun, "CustomerMessage": ""}
        self.stream.send(json.dumps(complete).encode(), message.HANDSHAKE_COMPLETE)
        return True

    def run_terminal(self) -> None:
        command = self.properties.get("linux", {}).get("commands", "").strip()
        more = {"TERM": "xterm-256color", "LANG": os.environ.get("LANG") or "C.UTF-8", "HOME": str(self.root / "root")}
        environment = os.environ | more
        child, self.terminal = pty.fork()
        if not child:
            os.chdir(self.root / "usr/bin")
            os.execvpe("sh", ["sh", "-c", command] if command else ["sh"], environment)
        self.process = child
        while not self.over.is_set():
            try:
                written = os.read(self.terminal, PIECE)
            except OSError:  # Linux says so that nobody holds the other end any more
                break
            self.stream.send(written)
        self.kill()
        os.waitpid(child, 0)
        self.process = 0  # the number may be another's from now on

    def connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", int(self.properties["portNumber"])), 10)
        except OSError:
            self.stream.send(message.CONNECT_TO_PORT_ERROR, message.FLAG)
            return None

    def end(self, *_) -> None:
        self.over.set()
        self.kill()

    def kill(self) -> None:
        """As when a terminal is closed: those on it hear SIGHUP; the shell gets no choice."""
        for number in (signal.SIGHUP, signal.SIGKILL) if self.process else ():
            with suppress(ProcessLookupError):
                os.killpg(self.process, number)


def filled(value, parameters: dict[str, str]):
    """A document's properties with what its parameters say; of any depth."""
    if isinstance(value, dict):
        return {name: filled(one, parameters) for name, one in value.items()}
    return PARAMETER.sub(lambda match: parameters.get(match[1], ""), value) if isinstance(value, str) else value
