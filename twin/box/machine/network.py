"""The network of a box of the machine grade: one of its own, whose gateway leads to the world's services and to nothing else here.

As on EC2 a box has an address and a way out, its metadata service is at 169.254.169.254, and a container is one hop further away from
that than the box. The gateway is a network namespace of its own: all that listens in it, or on the box's 127.0.0.1, are sockets of the
world's process, which was in there only to open them, and passes on to 127.0.0.1 of this machine what comes. Packets to anywhere else
leave through slirp4netns, as this machine's own; its 127.0.0.1 is not among where they may go. All of it ends with the box.
"""

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from twin.box.machine import prerequisites

BOX, GATEWAY = "10.77.0.2", "10.77.0.1"
METADATA = "169.254.169.254"
NEW_NETWORK = 0x40000000  # CLONE_NEWNET
PATIENCE = 20.0  # seconds until slirp4netns is ready

libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Network:
    """What a box's network consists of on this side of it."""

    sockets: list[socket.socket] = field(default_factory=list)
    slirp: subprocess.Popen | None = None
    held: int = -1  # while this end of a pipe is open slirp4netns runs

    def close(self) -> None:
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a connection
            one.close()
        if self.slirp:
            os.close(self.held)
            self.slirp.wait()


def connect(first: int, services: list[int], here: dict[int, int], metadata: int, hops: Callable[[], int]) -> Network:
    """The box of this first process is on the network.

    `services` are ports of this machine that the gateway leads to, `here` those that the box finds on its own 127.0.0.1, each by its port
    there; `metadata` is the port of its metadata service, and `hops` says how far that service's tokens travel.
    """
    network, opened = Network(), []

    def listen(address: str, port: int, target: int, hops: Callable[[], int] | None = None) -> None:
        opened.append((socket.create_server((address, port), backlog=128), target, hops))

    def build() -> None:
        raise_errno(libc.unshare(NEW_NETWORK))
        ip("link", "set", "lo", "up")
        ip("link", "add", "gateway", "type", "veth", "peer", "name", "eth0", "netns", str(first))
        ip("address", "add", f"{GATEWAY}/30", "dev", "gateway")
        ip("address", "add", f"{METADATA}/32", "dev", "gateway")
        ip("link", "set", "gateway", "up")
        for port in services:
            listen(GATEWAY, port, port)
        listen(METADATA, 80, metadata, hops)
        with open(f"/proc/{first}/ns/net", "rb") as box:
            raise_errno(libc.setns(box.fileno(), NEW_NETWORK))
        ip("link", "set", "lo", "up")
        ip("address", "add", f"{BOX}/30", "dev", "eth0")
        ip("link", "set", "eth0", "up")
        ip("route", "add", f"{METADATA}/32", "via", GATEWAY)
        for port, target in here.items():
            listen("127.0.0.1", port, target)

    in_a_thread(build)
    # A thread begins in the namespace of the one that starts it: these are in this machine's own.
    for listening, target, hops in opened:
        network.sockets.append(listening)
        threading.Thread(target=accept, args=(listening, target, hops), daemon=True).start()
    start_slirp(network, first)
    return network


def in_a_thread(work: Callable[[], None]) -> None:
    """A thread is in whatever namespace it goes to, and the process stays where it is."""
    failed = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def raise_errno(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def ip(*words: str) -> None:
    done = subprocess.run(
        [prerequisites.program("ip"), *words], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def start_slirp(network: Network, first: int) -> None:
    """The box's default route leads to slirp4netns, which runs as long as somebody holds the other end of its pipe."""
    exit_read, network.held = os.pipe()
    ready_read, ready_write = os.pipe()
    words = [
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        f"--exit-fd={exit_read}",
        f"--ready-fd={ready_write}",
        str(first),
        "way-out",
    ]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    network.slirp = subprocess.Popen(
        [prerequisites.program("slirp4netns"), *words], pass_fds=(exit_read, ready_write), start_new_session=True, **quiet
    )
    for one in (exit_read, ready_write):
        os.close(one)
    try:
        os.set_blocking(ready_read, False)
        deadline = time.monotonic() + PATIENCE
        while not is_ready(ready_read):
            if network.slirp.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("slirp4netns did not connect the box")
            time.sleep(0.02)
    finally:
        os.close(ready_read)


def is_ready(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b"1"
    except BlockingIOError:
        return False


def accept(listening: socket.socket, target: int, hops: Callable[[], int] | None) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # closed: the box is off
        threading.Thread(target=forward, args=(connection, target, hops), daemon=True).start()


def forward(connection: socket.socket, target: int, hops: Callable[[], int] | None) -> None:
    with connection, suppress(OSError):
        if hops and connection.recv(4, socket.MSG_PEEK) == b"PUT ":
            # "HttpPutResponseHopLimit": what answers a PUT goes so far, and no further.
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops())
        with socket.create_connection(("127.0.0.1", target)) as service:
            back = threading.Thread(target=pump, args=(service, connection), daemon=True)
            back.start()
            pump(connection, service)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 18):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
