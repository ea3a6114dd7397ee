"""The binary form of messages, held to bytes that another program makes: the npm package ssm-session 1.0.6."""

import uuid

import pytest

from twin.channel import message
from twin.channel.message import Message

# What ssm-session makes of "ls\r" with the sequence number 1, and of a terminal of 197 columns. It pads a type with zeros in front, and
# its digest is half of the sum in letters: AWS passes such messages on, and agents take them.
TYPED = (
    "00000074000000000000000000000000000000696e7075745f73747265616d5f64617461000000010000015e0baa788400000000000000010000000000000000"
    "b579be02468bdf132468adf1358a4ce0323136323063356130303038373931613839343939633262373831343738333100000001000000036c730d"
)
SIZE = (
    "00000074000000000000000000000000000000696e7075745f73747265616d5f64617461000000010000015e0baa788400000000000000010000000000000001"
    "b9bdf1468acf135768ace13579ce4024613665666363386362616334616436323234313462633461303966396431303000000003000000167b22636f6c73223a"
    "3139372c22726f7773223a33347d"
)


def test_what_another_client_makes_is_read():
    typed, size = message.unpack(bytes.fromhex(TYPED)), message.unpack(bytes.fromhex(SIZE))
    assert (typed.kind, typed.payload, typed.payload_type, typed.sequence) == (message.INPUT, b"ls\r", message.DATA, 1)
    assert (typed.created, typed.schema_version) == (1503434274948, 1)
    assert typed.id == uuid.UUID("2468adf1-358a-4ce0-b579-be02468bdf13")
    assert (size.payload_type, size.json) == (message.SIZE, {"cols": 197, "rows": 34})


def test_what_is_packed_has_the_same_bytes_but_for_blanks_and_the_whole_digest():
    theirs = bytes.fromhex(TYPED)
    ours = message.unpack(theirs).pack()
    assert ours[:4] == theirs[:4] and ours[36:80] == theirs[36:80] and ours[112:] == theirs[112:]
    assert ours[4:36] == b"input_stream_data               "
    assert message.checked(ours).payload == b"ls\r"


def test_a_client_takes_nothing_whose_digest_is_wrong_and_an_agent_does():
    changed = bytes.fromhex(TYPED)
    with pytest.raises(message.Invalid, match="digest"):
        message.checked(changed)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(119), bytes(200)])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(message.Invalid):
        message.unpack(content)


def test_an_acknowledgement_names_what_it_is_about():
    received = Message(message.OUTPUT, b"x", message.DATA, 7, id=uuid.UUID("dd01e56b-ff48-483e-a508-b5f073f31b16"))
    acknowledgement = message.unpack(message.acknowledging(received).pack())
    assert acknowledgement.json == {
        "AcknowledgedMessageType": "output_stream_data",
        "AcknowledgedMessageId": "dd01e56b-ff48-483e-a508-b5f073f31b16",
        "AcknowledgedMessageSequenceNumber": 7,
        "IsSequentialMessage": True,
    }
    assert (acknowledgement.kind, acknowledgement.flags, acknowledgement.sequence) == (message.ACKNOWLEDGE, 3, 0)
