"""A WebSocket (RFC 6455) over a connection that is open already: messages in, messages out, pings answered. No extensions."""

import base64
import hashlib
import os
import socket
import struct
import threading
from contextlib import suppress

KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LARGEST = 1 << 20  # bytes of one message; those of Session Manager have some thousands


class Closed(ConnectionError):
    """The other end is gone, or has said that it goes."""


class WebSocket:
    """One end. A client masks what it sends, as the RFC wants."""

    def __init__(self, connection: socket.socket, client: bool):
        self.connection, self.client = connection, client
        self.reader = connection.makefile("rb")
        self.lock = threading.Lock()

    def send(self, content: bytes | str) -> None:
        """Text for a string, a binary message for bytes."""
        self.frame(TEXT if isinstance(content, str) else BINARY, content.encode() if isinstance(content, str) else content)

    def receive(self) -> bytes:
        """The next message, whole; Closed when there will be none."""
        message = b""
        while True:
            final, kind, content = self.read()
            if kind == PING:
                self.frame(PONG, content)
            elif kind == CLOSE:
                with suppress(OSError):
                    self.frame(CLOSE, content[:2])
                raise Closed("closed by the other end")
            elif kind != PONG:
                message += content
                if len(message) > LARGEST:
                    raise Closed(f"a message above {LARGEST} bytes")
                if final:
                    return message

    def ping(self) -> None:
        self.frame(PING, b"keepalive")

    def close(self) -> None:
        """Says goodbye and hangs up."""
        with suppress(OSError):
            self.frame(CLOSE, struct.pack(">H", 1000))
        self.cut()

    def cut(self) -> None:
        """Hangs up without a word, as when the power goes."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def frame(self, kind: int, content: bytes) -> None:
        length = len(content)
        head = bytes([0x80 | kind])
        mask = 0x80 if self.client else 0
        if length < 126:
            head += bytes([mask | length])
        else:
            head += bytes([mask | 126]) + struct.pack(">H", length) if length < 1 << 16 else bytes([mask | 127]) + struct.pack(">Q", length)
        if self.client:
            key = os.urandom(4)
            head, content = head + key, masked(content, key)
        with self.lock:
            self.connection.sendall(head + content)

    def read(self) -> tuple[bool, int, bytes]:
        first, second = self.exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self.exactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.exactly(8))
        if length > LARGEST:
            raise Closed(f"a frame above {LARGEST} bytes")
        key = self.exactly(4) if second & 0x80 else b""
        content = self.exactly(length)
        return bool(first & 0x80), first & 0x0F, masked(content, key) if key else content

    def exactly(self, count: int) -> bytes:
        try:
            content = self.reader.read(count)
        except (OSError, ValueError) as error:  # ValueError: this end has closed it
            raise Closed(str(error)) from error
        if len(content) < count:
            raise Closed("the connection ended")
        return content


def masked(content: bytes, key: bytes) -> bytes:
    """Masking and its undoing (section 5.3)."""
    whole = int.from_bytes(content, "big") ^ int.from_bytes((key * (len(content) // 4 + 1))[: len(content)], "big")
    return whole.to_bytes(len(content), "big")


def accepted(key: str) -> str:
    """What a server answers to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + KEY).encode()).digest()).decode()


def serve(connection: socket.socket, key: str) -> WebSocket:
    """The server's end, once its answer is sent."""
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accepted(key)}")
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return WebSocket(connection, client=False)


def connect(address: str, path: str, headers: dict[str, str], timeout: float = 60) -> WebSocket:
    """The client's end, to a host and port; ConnectionError where the server refuses."""
    host, _, port = address.partition(":")
    connection = socket.create_connection((host, int(port)), timeout)
    key = base64.b64encode(os.urandom(16)).decode()
    fixed = {"Host": address, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    head = "".join(f"{name}: {value}\r\n" for name, value in (fixed | headers).items())
    connection.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    made = WebSocket(connection, client=True)
    status, lines = made.reader.readline(), {}
    while line := made.reader.readline().strip():
        name, _, value = line.decode().partition(":")
        lines[name.lower()] = value.strip()
    if b" 101 " not in status or lines.get("sec-websocket-accept") != accepted(key):
        connection.close()
        raise ConnectionError(f"{path.partition('?')[0]}: {status.decode(errors='replace').strip() or 'no answer'}")
    connection.settimeout(None)
    return made
