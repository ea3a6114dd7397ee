"""AgentMessage (the plugin calls it ClientMessage): the binary form of all that goes over a control or data channel but the first words.

Layout and names as in agent/session/contracts/agentmessage.go and model.go of amazon-ssm-agent and pkg/message/clientmessage.go of
session-manager-plugin: big-endian, a type of 32 characters filled up with blanks, the UUID with its last eight bytes first.
"""

import hashlib
import json
import struct
import time
import uuid
from dataclasses import dataclass, field

HEAD = struct.Struct(
    ">I32sIQqQ16s32sII"
)  # header length, type, schema version, created, sequence, flags, id, digest, payload type and length
HEADER_LENGTH = HEAD.size - 4  # as it is told: without the payload's length

# Types of messages
INTERACTIVE_SHELL, TASK_COMPLETE = "interactive_shell", "agent_task_complete"  # of a control channel
INPUT, OUTPUT, ACKNOWLEDGE, CLOSED = "input_stream_data", "output_stream_data", "acknowledge", "channel_closed"
PAUSE, START, STATE = "pause_publication", "start_publication", "agent_session_state"

# Types of payloads of stream data
DATA, ERROR, SIZE, PARAMETER, HANDSHAKE_REQUEST, HANDSHAKE_RESPONSE, HANDSHAKE_COMPLETE = range(1, 8)
FLAG = 10
DISCONNECT_TO_PORT, TERMINATE_SESSION, CONNECT_TO_PORT_ERROR = (number.to_bytes(4, "big") for number in (1, 2, 3))  # what a flag says
FIRST, ALONE = 1, 3  # flags: SYN; SYN and FIN


class Invalid(ValueError):
    """No message, or one whose payload was changed on its way."""


@dataclass(frozen=True)
class Message:
    kind: str
    payload: bytes = b""
    payload_type: int = 0
    sequence: int = 0
    flags: int = 0
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    created: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    schema_version: int = 1

    def pack(self) -> bytes:
        identity = self.id.bytes[8:] + self.id.bytes[:8]
        kind, digest = self.kind.encode().ljust(32), hashlib.sha256(self.payload).digest()
        head = (HEADER_LENGTH, kind, self.schema_version, self.created, self.sequence, self.flags, identity, digest)
        return HEAD.pack(*head, self.payload_type, len(self.payload)) + self.payload

    @property
    def json(self) -> dict:
        return json.loads(self.payload)


def unpack(content: bytes) -> Message:
    """The message in these bytes, as agents read it: its payload begins where the header says that it ends, and no digest is looked at."""
    if len(content) < HEAD.size:
        raise Invalid(f"{len(content)} bytes are no message")
    length, kind, version, created, sequence, flags, identity, _, payload_type, _ = HEAD.unpack_from(content)
    payload = content[length + 4 :]
    name = kind.strip(b" \0").decode(errors="replace")
    if not name or not created or length < HEADER_LENGTH:
        raise Invalid("a message without type, time or header")
    return Message(name, payload, payload_type, sequence, flags, uuid.UUID(bytes=identity[8:] + identity[:8]), created, version)


def checked(content: bytes) -> Message:
    """The same as the plugin reads it: a payload must be what its digest says."""
    received = unpack(content)
    if received.payload and hashlib.sha256(received.payload).digest() != HEAD.unpack_from(content)[7]:
        raise Invalid(f"the payload of a {received.kind} is not what its digest says")
    return received


def of_json(kind: str, content: dict, flags: int = ALONE) -> Message:
    return Message(kind, json.dumps(content).encode(), flags=flags)


def acknowledging(received: Message) -> Message:
    content = {"AcknowledgedMessageType": received.kind, "AcknowledgedMessageId": str(received.id)}
    return of_json(ACKNOWLEDGE, content | {"AcknowledgedMessageSequenceNumber": received.sequence, "IsSequentialMessage": True})


def closed(session: str, target: str, output: str = "") -> Message:
    """The end of a session: to the agent that it is to end, to the client that it has, with what is to be said of it."""
    content = {"MessageType": CLOSED, "MessageId": str(uuid.uuid4()), "DestinationId": target, "SessionId": session, "SchemaVersion": 1}
    return of_json(CLOSED, content | {"CreatedDate": str(time.time_ns() // 1_000_000), "Output": output})
