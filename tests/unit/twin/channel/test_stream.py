"""Stream data arrives whole and in order, whatever is lost, doubled or early on its way."""

import threading
import time

from twin.channel import message
from twin.channel.message import Message
from twin.channel.stream import WINDOW, Stream


def pair(drop=lambda number: False) -> tuple[Stream, bytearray, Stream]:
    """An agent's end whose messages to the client are lost where `drop` says so, and what the client has of it."""
    taken, sent = bytearray(), [0]

    def over(packed: bytes) -> None:
        sent[0] += 1
        if not drop(sent[0]):
            client.receive(message.unpack(packed))

    def take(received: Message) -> bool:
        taken.extend(received.payload)
        return True

    agent = Stream(message.OUTPUT, over, lambda received: True)
    client = Stream(message.INPUT, lambda packed: agent.receive(message.unpack(packed)), take)
    agent.receiver = -1
    return agent, taken, client


def test_what_is_lost_is_sent_again_and_taken_once_and_in_order():
    agent, taken, client = pair(drop=lambda number: number in (2, 3, 6))
    content = bytes(range(256)) * 24
    agent.send(content)
    assert agent.drain(30) and bytes(taken) == content
    agent.close(), client.close()


def test_messages_hold_at_most_1024_bytes_and_the_first_says_that_it_is():
    seen = []
    stream = Stream(message.OUTPUT, lambda packed: seen.append(message.unpack(packed)), lambda received: True)
    stream.send(bytes(2500))
    stream.close()
    assert [len(one.payload) for one in seen[:3]] == [1024, 1024, 452]
    assert [(one.sequence, one.flags) for one in seen[:3]] == [(0, 1), (1, 0), (2, 0)]


def test_nothing_is_published_while_the_service_says_pause():
    seen = []
    stream = Stream(message.OUTPUT, seen.append, lambda received: True)
    stream.receive(message.of_json(message.PAUSE, {}))
    stream.receiver = -1
    stream.send(b"hello")
    time.sleep(0.3)
    assert not seen
    stream.receive(message.of_json(message.START, {}))
    assert wait(lambda: seen) and message.unpack(seen[0]).payload == b"hello"
    stream.close()


def test_what_finds_no_place_is_not_acknowledged_and_comes_again():
    ready, acknowledged = [False], []
    stream = Stream(message.INPUT, lambda packed: acknowledged.append(message.unpack(packed)), lambda received: ready[0])
    early = Message(message.OUTPUT, b"x", message.DATA)
    stream.receive(early)
    assert not acknowledged
    ready[0] = True
    stream.receive(early)
    assert [one.kind for one in acknowledged] == [message.ACKNOWLEDGE]
    stream.close()


def test_a_sender_waits_where_too_much_is_on_its_way():
    seen = []
    stream = Stream(message.OUTPUT, seen.append, lambda received: True)
    stream.timeout = 1e9
    sender = threading.Thread(target=stream.send, args=(bytes(1024 * (WINDOW + 5)),), daemon=True)
    sender.start()
    assert wait(lambda: len(seen) == WINDOW) and sender.is_alive()
    for packed in list(seen):
        stream.receive(message.acknowledging(message.unpack(packed)))
    sender.join(30)
    assert len(seen) == WINDOW + 5
    stream.close()


def wait(condition) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())
