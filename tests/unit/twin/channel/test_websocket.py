"""WebSockets as RFC 6455 shows them byte for byte."""

import socket
import threading

import pytest

from twin.channel import websocket
from twin.channel.websocket import WebSocket


def ends(client: bool) -> tuple[WebSocket, socket.socket]:
    ours, theirs = socket.socketpair()
    return WebSocket(ours, client), theirs


def test_the_answer_to_a_key_is_that_of_the_rfc():
    assert websocket.accepted("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # section 1.3


@pytest.mark.parametrize("frames", ["810548656c6c6f", "818537fa213d7f9f4d5158", "010348656c80026c6f"])
def test_the_frames_of_the_rfc_are_read(frames):
    """Section 5.7: a text, the same masked, the same in two pieces."""
    ours, theirs = ends(client=False)
    theirs.sendall(bytes.fromhex(frames))
    assert ours.receive() == b"Hello"


def test_a_ping_is_answered_with_its_content():
    ours, theirs = ends(client=False)
    theirs.sendall(bytes.fromhex("890548656c6c6f") + bytes.fromhex("810548656c6c6f"))
    assert ours.receive() == b"Hello" and theirs.recv(100) == bytes.fromhex("8a0548656c6c6f")


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_messages_of_every_length_cross_in_both_directions(size):
    ours, theirs = socket.socketpair()
    server, client = WebSocket(ours, client=False), WebSocket(theirs, client=True)
    for one, other in ((server, client), (client, server)):
        sender = threading.Thread(target=one.send, args=(bytes(size),))
        sender.start()
        assert other.receive() == bytes(size)
        sender.join()


def test_the_end_is_told():
    ours, theirs = ends(client=False)
    theirs.sendall(bytes.fromhex("880203e8"))
    with pytest.raises(websocket.Closed):
        ours.receive()
    assert theirs.recv(100) == bytes.fromhex("880203e8")
    ours, theirs = ends(client=True)
    theirs.close()
    with pytest.raises(websocket.Closed):
        ours.receive()


def test_a_server_that_refuses_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(ConnectionError, match="/v1/data-channel/x: HTTP/1.1 403"):
            websocket.connect(f"127.0.0.1:{listener.getsockname()[1]}", "/v1/data-channel/x?role=y", {})
        thread.join()
