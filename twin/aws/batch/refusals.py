"""How Batch says no, and how it finds a thing by its name or its ARN."""

from collections.abc import Mapping
from typing import TypeVar

from twin.aws import wire

Thing = TypeVar("Thing")


def client_error(message: str) -> wire.Refusal:
    """Batch knows two errors, https://docs.aws.amazon.com/batch/latest/APIReference/CommonErrors.html; this one is the caller's."""
    return wire.Refusal("ClientException", message)


def known_by(things: Mapping[str, Thing], name: str) -> Thing | None:
    """What has this name, or an ARN that ends in it."""
    return things.get(name.rpartition("/")[2] if name.startswith("arn:") else name)
