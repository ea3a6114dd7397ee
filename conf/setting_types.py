"""The type of each setting, by its path: the schema's types, for all that parse text.

YAML and Hydra guess a value's type from its looks: `1e3` is a number, `no` a truth value, `2026-01-05` a date. Where the schema
says text, it is the text as it is written.
"""

from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from conf import renamed, schema

FOLDER = Path(__file__).parent
GROUPS = {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name.isalpha()}
ANY_TEXT = (
    "box.instance_type",
    "lora.targets",
    "train.gradient_checkpointing",
    "train.processes",
    "train.fsdp",
)  # text, or a list of texts: OmegaConf has no type for either
FILES = (
    "data.train",
    "data.validation",
    "data.also",
    "data.chat_template",
)  # they name files, relative to the working directory where they are typed


class Kind(Enum):
    group = "group"  # a choice among the files of a folder of conf/
    room = "room"  # settings of its own
    text = "text"
    texts = "texts"  # a list
    either = "either"  # a text, or a list of them
    named_texts = "named_texts"  # texts by names
    named_numbers = "named_numbers"  # numbers by texts
    options = "options"  # another library's, by its own names
    other = "other"  # numbers, truth values, choices


def kind_of(path: str) -> Kind | None:
    """What the setting takes; None where there is no such setting."""
    if not path:
        return None
    if path in GROUPS - {"hydra"}:
        return Kind.group
    if path in ANY_TEXT:
        return Kind.either
    return _kind(annotation(path))


def annotation(path: str) -> Any:
    """The type that the schema gives the setting; None where it has none of this path."""
    kind: Any = schema.Run
    for name in path.split(".") if path else ():
        if is_dataclass(kind):
            kind = kind.__dataclass_fields__[name].type if name in kind.__dataclass_fields__ else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif kind is not Any:
            return None
        kind = _without_none(kind)
    return kind


def takes_null(path: str) -> bool:
    """Whether null is a value of the setting."""
    room, _, name = path.rpartition(".")
    kind = annotation(room) if room else schema.Run
    field = getattr(kind, "__dataclass_fields__", {}).get(name)
    return field is not None and isinstance(field.type, UnionType)


def _without_none(kind: Any) -> Any:
    return next(member for member in get_args(kind) if member is not type(None)) if isinstance(kind, UnionType) else kind


def _kind(kind: Any) -> Kind | None:
    if kind is None:
        return None
    if is_dataclass(kind):
        return Kind.room
    by_type = {
        str: Kind.text,
        list[str]: Kind.texts,
        dict[str, str]: Kind.named_texts,
        dict[str, float]: Kind.named_numbers,
        dict[str, Any]: Kind.options,
    }
    return next((ours for theirs, ours in by_type.items() if kind == theirs), Kind.other)


def all_paths(kind: type = schema.Run, prefix: str = "") -> list[str]:
    """Every setting that there is."""
    paths = []
    for field in fields(kind):
        paths.append(prefix + field.name)
        if isinstance(field.type, type) and is_dataclass(field.type):
            paths += all_paths(field.type, f"{prefix}{field.name}.")
    return paths


def nearest(path: str) -> str:
    """A hint for an unknown setting: the most similar one, else what there is."""
    words = [word for word in path.split(".") if word]
    above = [".".join(words[:size]) for size in range(len(words) - 1, 0, -1)]
    for room in above:
        if kind_of(room) is Kind.named_numbers:
            return f"names of files go in braces: `'{room}={{more.jsonl: 0.5}}'`"
    close = get_close_matches(path, [*all_paths(), *renamed.NEW_NAMES], n=1, cutoff=0.6)
    if close and close[0] != path:
        return f"did you mean `{renamed.NEW_NAMES.get(close[0], close[0])}`?"
    room = next((room for room in above if kind_of(room)), "")
    if room and kind_of(room) in (Kind.group, Kind.room):
        return f"`{room}` has {', '.join(getattr(annotation(room), '__dataclass_fields__', ()))}"
    if room:
        return f"`{room}` takes a value: `{room}=VALUE`"
    return f"the settings begin with {', '.join(schema.Run.__dataclass_fields__)}; each is a line below conf/"
