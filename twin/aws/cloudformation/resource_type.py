"""What a resource type of a stack is: how one of it is made, changed, removed and found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Client = Any  # called with a service's name it gives the boto3 client of that; `key` is the caller's
Properties = dict[str, Any]


class AlreadyExists(Exception):
    """There is one of this name that no stack made."""


@dataclass(frozen=True)
class ResourceType:
    """How one type is handled; `create` answers the physical id."""

    create: Callable[[Client, Properties, str], str]  # the last: a name for what has none
    update: Callable[[Client, str, Properties], None]
    delete: Callable[[Client, str, Properties], None]
    known_properties: tuple[str, ...]
    create_only: tuple[str, ...] = ()  # properties, or parts of them, whose change means another resource in place of this one
    create_only_at_times: Callable[[Properties], tuple[str, ...]] = lambda properties: ()  # and those that are so by what others say
    attributes: dict[str, Callable[[Client, str], str]] = field(default_factory=dict)
    iam: bool = False  # the caller must say that he knows what he does
    primary_identifier: str = ""  # the property that is its primary identifier; where AWS gives that, there is none
    find: Callable[[Client, str], Any] | None = None  # what has this identifier; nothing, or one of GONE, where nothing has
    tagged: bool = True  # it takes the stack's tags
