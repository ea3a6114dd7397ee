"""Stands for session-manager-plugin, which no registry that this is built from has: it does what the public source of that does.

Arguments, words on stdout and what goes over the channel are those of its pkg/sessionmanagerplugin/session and pkg/datachannel
(repository aws/session-manager-plugin); the session's token comes as the AWS CLI hands it on since 1.2.497.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from twin.channel import message, websocket
from twin.channel.message import Message
from twin.channel.mux import Mux
from twin.channel.stream import Stream

VERSION = "1.2.707.0"
CONTROLS = {signal.SIGINT: b"\x03", signal.SIGQUIT: b"\x1c", signal.SIGTSTP: b"\x1a"}
STDIN_LIMIT = 1024
RESIZE_EVERY = 0.5  # seconds


class Plugin:
    def __init__(self, session: dict, target: str, endpoint: str):
        self.id, self.target, self.endpoint = session["SessionId"], target, endpoint
        self.url, self.token = urlsplit(session["StreamUrl"]), session["TokenValue"]
        self.client = str(uuid.uuid4())
        self.kind, self.properties = "", {}
        self.known = threading.Event()  # of which kind the session is
        self.mux: Mux | None = None
        self.channel = self.open()
        self.stream = Stream(message.INPUT, lambda packed: self.channel.send(packed), self.take)

    def open(self) -> websocket.WebSocket:
        channel = websocket.connect(self.url.netloc, f"{self.url.path}?{self.url.query}", {})
        first = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": self.token, "ClientId": self.client}
        channel.send(json.dumps(first))
        return channel

    def run(self) -> None:
        say(f"\nStarting session with SessionId: {self.id}")
        for number, byte in CONTROLS.items():
            signal.signal(number, lambda *_, byte=byte: self.send(byte))
        threading.Thread(target=self.listen, daemon=True).start()
        self.known.wait()
        self.forward() if self.kind == "Port" else self.type()

    def listen(self) -> None:
        while True:
            try:
                received = message.checked(self.channel.receive())
            except message.Invalid:
                continue
            except websocket.Closed:
                self.resume()
                continue
            if received.kind == message.CLOSED:
                output = received.json["Output"]
                self.stop(f"\n\nSessionId: {self.id} : {output}\n" if output else f"\n\nExiting session with sessionId: {self.id}.\n")
            self.stream.receive(received)

    def resume(self) -> None:
        """By ResumeSession, with the caller's own credentials; without a token the session is over."""
        import boto3

        client = boto3.client("ssm", endpoint_url=self.endpoint)
        for attempt in range(5):
            with suppress(OSError, client.exceptions.ClientError):
                self.token = client.resume_session(SessionId=self.id).get("TokenValue")
                if not self.token:
                    self.stop(f"Session: {self.id} timed out.")
                self.channel = self.open()
                return
            time.sleep(0.1 * 2**attempt)
        self.stop("")

    def take(self, received: Message) -> bool:
        if received.payload_type == message.HANDSHAKE_REQUEST:
            self.answer(received.json)
        elif received.payload_type == message.HANDSHAKE_COMPLETE:
            self.known.set()
        elif received.payload_type == message.FLAG:
            if received.payload == message.CONNECT_TO_PORT_ERROR:
                say("\nConnection to destination port failed, check SSM Agent logs.")
        elif self.kind == "Port":
            if not self.mux:
                return False  # no connection yet to give it to: it comes again
            self.mux.feed(received.payload)
        else:
            self.known.set()  # an agent that shakes no hands has a shell
            os.write(1, received.payload)
        return True

    def answer(self, request: dict) -> None:
        processed = []
        for action in request["RequestedClientActions"]:
            self.kind, self.properties = action["ActionParameters"]["SessionType"], action["ActionParameters"]["Properties"]
            processed.append({"ActionType": action["ActionType"], "ActionStatus": 1, "ActionResult": None, "Error": ""})
        response = {"ClientVersion": VERSION, "ProcessedClientActions": processed, "Errors": None}
        self.send(json.dumps(response).encode(), message.HANDSHAKE_RESPONSE)

    def send(self, content: bytes, payload_type: int = message.DATA) -> None:
        self.stream.send(b"\r" if content == b"\n" else content, payload_type)

    def stop(self, words: str) -> None:
        say(words)
        if os.isatty(0):
            subprocess.run(["stty", "sane"], check=False)
        os._exit(0)

    # A shell, or a command

    def type(self) -> None:
        threading.Thread(target=self.resize, daemon=True).start()
        subprocess.run(["stty", "cbreak", "-echo"], stderr=subprocess.DEVNULL, check=False)
        while typed := os.read(0, STDIN_LIMIT):
            self.send(typed)
        say("Cannot perform start session: EOF")
        os._exit(0)

    def resize(self) -> None:
        previous = None
        while True:
            try:
                rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8)))
            except OSError:
                rows, columns = 100, 300
            if (rows, columns) != previous:
                previous = rows, columns
                self.send(json.dumps({"cols": columns, "rows": rows}).encode(), message.SIZE)
            time.sleep(RESIZE_EVERY)

    # A port

    def forward(self) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, self.terminate)
        self.mux = Mux(self.stream.send)
        listener = socket.create_server(("localhost", int(self.properties["localPortNumber"])))
        say(f"Port {listener.getsockname()[1]} opened for sessionId {self.id}.\nWaiting for connections...")
        accepted = False
        while True:
            connection, _ = listener.accept()
            accepted = accepted or say(f"\nConnection accepted for session [{self.id}]") is None
            self.mux.open(connection)

    def terminate(self, *_) -> None:
        say("Terminate signal received, exiting.")
        self.send(message.TERMINATE_SESSION, message.FLAG)
        self.stream.drain(1)
        self.stop(f"\n\nExiting session with sessionId: {self.id}.\n\n")


def say(words: str) -> None:
    print(words, flush=True)


def install(folder: Path) -> Path:
    """The folder with a program of that name in it, for PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "session-manager-plugin"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)
    assert shutil.which("session-manager-plugin", path=str(folder))
    return folder


def main(words: list[str]) -> None:
    if not words:
        say("\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n")
    elif words == ["--version"]:
        say(VERSION)
    elif len(words) != 6 or words[2] != "StartSession":
        say("Invalid Operation")
    else:
        response, _, _, _, parameters, endpoint = words
        session = os.environ.pop(response) if response.startswith("AWS_SSM_START_SESSION_RESPONSE") else response
        Plugin(json.loads(session), json.loads(parameters)["Target"], endpoint).run()


if __name__ == "__main__":
    main(sys.argv[1:])
