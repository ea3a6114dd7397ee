"""Many connections over one stream of bytes: smux, version 1, as session-manager-plugin and agents from 3.0.196.0 on speak it.

A frame is a version, a command, a length and a stream's number, little-endian, then so many bytes
(github.com/xtaci/smux, frame.go). Nothing is asked for keep-alive: agents of 3.1.1511.0 and later have that turned off.
"""

import queue
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

HEAD = struct.Struct("<BBHI")
VERSION = 1
OPEN, END, PUSH, NOTHING = range(4)
LARGEST = 32768  # bytes of a frame's content (MaxFrameSize)


WAITING = 128  # frames that a connection may have still to take: smux holds 4 MB of all (MaxReceiveBuffer)


class Connection:
    """One connection on its stream. What comes for it is written in a thread of its own: one that takes nothing holds up no other."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.coming: queue.Queue[bytes] = queue.Queue(WAITING)
        threading.Thread(target=self.write, daemon=True).start()

    def write(self) -> None:
        while content := self.coming.get():
            with suppress(OSError):  # one that is gone takes it as well: who brings it must not wait for ever
                self.connection.sendall(content)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def end(self) -> None:
        self.coming.put(b"")


class Mux:
    """One end. `send` takes bytes for the other; `opened` gives the connection for a stream that the other has opened, or None."""

    def __init__(self, send: Callable[[bytes], None], opened: Callable[[], socket.socket | None] = lambda: None):
        self.send, self.opened = send, opened
        self.connections: dict[int, Connection] = {}
        self.buffer = bytearray()
        self.number = 1  # a client's streams have odd numbers from 3 on
        self.lock, self.sending = threading.Lock(), threading.Lock()

    def open(self, connection: socket.socket) -> None:
        """A stream of its own for a connection."""
        with self.lock:
            self.number += 2
            number = self.number
        self.connections[number] = Connection(connection)  # first: the other end may say at once that it goes nowhere
        self.frame(OPEN, number)
        self.start(number, connection)

    def start(self, number: int, connection: socket.socket) -> None:
        threading.Thread(target=self.copy, args=(number, connection), daemon=True).start()

    def copy(self, number: int, connection: socket.socket) -> None:
        """What comes out of a connection goes over its stream, until it ends."""
        with suppress(OSError):
            while content := connection.recv(LARGEST):
                self.frame(PUSH, number, content)
        if self.drop(number):
            self.frame(END, number)

    def drop(self, number: int) -> bool:
        """Whether the connection was still there; it ends when it has taken what came before."""
        dropped = self.connections.pop(number, None)
        if dropped:
            threading.Thread(target=dropped.end, daemon=True).start()
        return bool(dropped)

    def frame(self, command: int, number: int, content: bytes = b"") -> None:
        with self.sending:  # a frame goes as one, in however many messages
            self.send(HEAD.pack(VERSION, command, len(content), number) + content)

    def feed(self, content: bytes) -> None:
        """Bytes from the other end; a frame may come in pieces."""
        self.buffer += content
        while len(self.buffer) >= HEAD.size:
            version, command, length, number = HEAD.unpack_from(self.buffer)
            if version != VERSION:
                raise ValueError(f"smux of version {version}")
            if len(self.buffer) < HEAD.size + length:
                return
            content = bytes(self.buffer[HEAD.size : HEAD.size + length])
            del self.buffer[: HEAD.size + length]
            self.obey(command, number, content)

    def obey(self, command: int, number: int, content: bytes) -> None:
        if command == OPEN:
            if connection := self.opened():
                self.connections[number] = Connection(connection)
                self.start(number, connection)
            else:
                # Not in this thread: who sends may wait for acknowledgements, which it is that brings them.
                threading.Thread(target=self.frame, args=(END, number), daemon=True).start()
        elif command == PUSH and content and (to := self.connections.get(number)):
            to.coming.put(content)
        elif command == END:
            self.drop(number)

    def close(self) -> None:
        for number in list(self.connections):
            self.drop(number)
