"""Many connections over one stream of bytes."""

import socket
import threading
import time

from twin.channel.mux import Mux


def joined(opened) -> tuple[Mux, Mux]:
    client = Mux(lambda content: server.feed(content))
    server = Mux(lambda content: [client.feed(content[at : at + 3]) for at in range(0, len(content), 3)], opened)  # in pieces
    return client, server


def test_frames_have_the_bytes_of_smux():
    """As github.com/xtaci/smux packs them, and pyssm-client 0.2.0 too: version, command, length and stream, little-endian."""
    seen = []
    mux = Mux(seen.append)
    near, far = socket.socketpair()
    mux.open(near)
    far.sendall(b"hi")
    far.close()
    while len(seen) < 3:
        time.sleep(0.01)
    assert [one.hex() for one in seen] == ["0100000003000000", "01020200030000006869", "0101000003000000"]


def test_connections_do_not_mix_and_each_ends_by_itself():
    far = []

    def opened():
        ours, theirs = socket.socketpair()
        far.append(theirs)
        return ours

    client, _ = joined(opened)
    near = []
    for number in (1, 2):
        ours, theirs = socket.socketpair()
        client.open(ours)
        near.append(theirs)
        theirs.sendall(b"%d asks" % number)
        assert far[-1].recv(100) == b"%d asks" % number
    far[0].sendall(b"1 hears")
    assert near[0].recv(100) == b"1 hears"
    near[0].close()
    assert far[0].recv(100) == b""
    far[1].sendall(b"2 hears")
    assert near[1].recv(100) == b"2 hears"


def test_frames_of_connections_that_send_at_once_stay_whole():
    far = []

    def opened():
        ours, theirs = socket.socketpair()
        far.append(theirs)
        return ours

    def in_pieces(content: bytes) -> None:
        for at in range(0, len(content), 1000):
            server.feed(content[at : at + 1000])
            time.sleep(0.001)

    client, server = Mux(in_pieces), Mux(lambda content: client.feed(content), opened)
    contents = [bytes([number]) * 100_000 for number in range(3)]
    for content in contents:
        ours, theirs = socket.socketpair()
        client.open(ours)
        threading.Thread(target=theirs.sendall, args=(content,), daemon=True).start()
    for theirs, content in zip(far, contents, strict=True):
        received = b""
        while len(received) < len(content):
            received += theirs.recv(65536)
        assert received == content


def test_what_cannot_be_reached_ends_its_stream():
    client, _ = joined(lambda: None)
    ours, theirs = socket.socketpair()
    client.open(ours)
    assert theirs.recv(100) == b""
