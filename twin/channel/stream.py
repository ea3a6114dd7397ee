"""The stream data of one end of a data channel: numbered, sent again until it is acknowledged, and taken in order, each once.

Figures and rules as in agent/session/config/config.go and datachannel.go of amazon-ssm-agent, and in streaming.go of the plugin.
"""

import threading
import time
from collections.abc import Callable

from twin.channel import message
from twin.channel.message import Message

PIECE = 1024  # bytes of one message's payload (StreamDataPayloadSize)
RESEND_EVERY, FIRST_TIMEOUT, LONGEST_TIMEOUT = 0.1, 0.2, 1.0  # seconds
GRANULARITY, SMOOTHING, VARIATION = 0.01, 1 / 8, 1 / 4  # of the round-trip time, as TCP has it
MOST_WAITING = 1000  # messages that came too early; 100,000 in the agent
WINDOW = 64  # messages on their way, where the agent sleeps a millisecond after each: no buffer between the ends can be full


class Stream:
    def __init__(self, kind: str, send: Callable[[bytes], None], take: Callable[[Message], bool]):
        self.kind = kind  # of what it sends: `input_stream_data` for a client, `output_stream_data` for an agent
        self.transmit = send
        self.take = take  # whether a message found its place; one that did not comes again
        self.sequence = self.expected = 0
        self.unacknowledged: dict[int, tuple[bytes, float]] = {}
        self.early: dict[int, Message] = {}
        self.round_trip, self.variation, self.timeout = 0.1, 0.0, FIRST_TIMEOUT
        self.paused = False
        self.lock = threading.Condition()
        self.receiver = 0  # the thread that brings acknowledgements waits for none
        self.over = threading.Event()
        threading.Thread(target=self.send_again, daemon=True).start()

    def send(self, payload: bytes, payload_type: int = message.DATA) -> None:
        """In messages of at most 1,024 bytes of data; what is no data goes as one."""
        size = PIECE if payload_type == message.DATA else max(len(payload), 1)
        for start in range(0, len(payload), size):
            with self.lock:
                if threading.get_ident() != self.receiver:
                    self.lock.wait_for(lambda: len(self.unacknowledged) < WINDOW or self.over.is_set())
                flags = message.FIRST if self.kind == message.OUTPUT and not self.sequence else 0
                packed = Message(self.kind, payload[start : start + size], payload_type, self.sequence, flags).pack()
                self.unacknowledged[self.sequence] = packed, time.monotonic()
                self.sequence += 1
                if not self.paused:
                    self.try_to_send(packed)

    def try_to_send(self, packed: bytes) -> None:
        try:
            self.transmit(packed)
        except OSError:
            return  # it is sent again, where the channel is opened again

    def send_again(self) -> None:
        """The oldest of what is not acknowledged, once its time is over."""
        while not self.over.wait(RESEND_EVERY):
            with self.lock:
                oldest = next(iter(self.unacknowledged), None)
                if oldest is None or self.paused:
                    continue
                packed, sent = self.unacknowledged[oldest]
                if time.monotonic() - sent > self.timeout:
                    self.unacknowledged[oldest] = packed, time.monotonic()
                    self.try_to_send(packed)

    def receive(self, received: Message) -> None:
        """Stream data of the other end, or its word about ours."""
        self.receiver = threading.get_ident()
        if received.kind == message.ACKNOWLEDGE:
            self.acknowledged(received.json["AcknowledgedMessageSequenceNumber"])
        elif received.kind == message.PAUSE:
            self.paused = True
        elif received.kind == message.START:
            self.paused = False
        else:
            self.take_in_order(received)

    def take_in_order(self, received: Message) -> None:
        self.paused = False
        if received.sequence > self.expected:
            if len(self.early) < MOST_WAITING:
                self.early[received.sequence] = received
                self.acknowledge(received)
        elif received.sequence < self.expected:
            self.acknowledge(received)  # ours was lost: that one was taken
        elif self.take(received):
            self.acknowledge(received)
            self.expected += 1
            while following := self.early.pop(self.expected, None):
                self.take(following)
                self.expected += 1

    def acknowledge(self, received: Message) -> None:
        self.try_to_send(message.acknowledging(received).pack())

    def acknowledged(self, sequence: int) -> None:
        with self.lock:
            self.paused = False
            if sequence in self.unacknowledged:
                self.adapt(time.monotonic() - self.unacknowledged.pop(sequence)[1])
            self.lock.notify_all()

    def adapt(self, seconds: float) -> None:
        self.variation += VARIATION * (abs(self.round_trip - seconds) - self.variation)
        self.round_trip += SMOOTHING * (seconds - self.round_trip)
        self.timeout = min(LONGEST_TIMEOUT, self.round_trip + max(GRANULARITY, 4 * self.variation))

    def drain(self, seconds: float) -> bool:
        """Whether all that was sent is acknowledged, within that time (PrepareToCloseChannel)."""
        with self.lock:
            return self.lock.wait_for(lambda: not self.unacknowledged, seconds)

    def close(self) -> None:
        with self.lock:
            self.over.set()
            self.lock.notify_all()
