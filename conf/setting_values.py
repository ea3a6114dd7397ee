"""What each setting takes: whether a value is one, and how to say what is.

OmegaConf turns what it is given into what the schema wants: 7 and "on" into true, "7 " into 7, and it takes nan for a number. A value
is taken here only where it is of its setting's type as it stands.
"""

import json
import math
import re
import shlex
from enum import Enum
from typing import Any

from conf import setting_types
from conf.setting_types import Kind

TRUTH = {"true", "false", "yes", "no", "on", "off"}  # words of YAML, in any case
WHOLE, NUMBER = re.compile(r"[-+]?\d+"), re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # as Parameter Store has them
LARGEST = 2**63  # of whole numbers
MAY_BE_EMPTY = {"model.note"}
STANDS_FOR = re.compile(r"(?<!\\)(\\\\)*\$\{")  # another value, which is looked at where it is known


def wrong(path: str, value: object) -> tuple[str, object] | None:
    """The setting, or the entry of it, whose value it cannot have, with that value; None where all is well."""
    kind, type_ = setting_types.of(path), setting_types.annotation(path)
    if kind in (Kind.room, Kind.group):
        return None if isinstance(value, dict) or value in (None, "???") else (path, value)
    if kind is Kind.either:
        return None  # by a rule of its own
    if value is None:
        return None if setting_types.takes_null(path) else (path, value)
    if value == "???" or (isinstance(value, str) and STANDS_FOR.search(value)):
        return None
    if kind is Kind.options:
        return _wrong_option(path, value)
    if kind is Kind.texts:
        return None if isinstance(value, list) and all(isinstance(entry, str) for entry in value) else (path, value)
    if kind in (Kind.named_texts, Kind.named_numbers):
        if not isinstance(value, dict):
            return path, value
        one = _is_number if kind is Kind.named_numbers else lambda entry: isinstance(entry, str)
        return next(((f"{path}.{name}", entry) for name, entry in value.items() if not one(entry)), None)
    if kind is Kind.text:
        empty = isinstance(value, str) and not value.strip() and path not in MAY_BE_EMPTY
        return (path, value) if isinstance(value, (list, dict)) or empty else None
    if issubclass(type_, Enum):
        return None if value in list(type_.__members__) else (path, value)
    fits = {bool: _is_truth, int: _is_whole, float: _is_number}[type_]
    return None if fits(value) else (path, value)


def _wrong_option(path: str, value: object) -> tuple[str, object] | None:
    """The same of another library's options: whoever asks `if option` takes the text `no` for true."""
    if not isinstance(value, dict):
        return path, value
    left = [(f"{path}.{name}", each) for name, each in value.items()]
    while left:
        name, each = left.pop(0)
        if (isinstance(each, str) and each.lower() in TRUTH) or (isinstance(each, float) and not math.isfinite(each)):
            return name, each
        inside = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        left += [(f"{name}.{key}", entry) for key, entry in inside]
    return None


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in TRUTH)


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return bool(WHOLE.fullmatch(value)) and abs(int(value)) < LARGEST
    return type(value) is int and abs(value) < LARGEST


def _is_number(value: object) -> bool:
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return False
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and math.isfinite(float(value))


KINDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "8"),
    float: ("a number", "0.5"),
    bool: ("true or false", "true"),
    Kind.texts: ("a list of texts", "[one,two]"),
    Kind.either: ("a text or a list of them", "[one,two]"),
    Kind.named_numbers: ("files, each with a number", "{more.jsonl: 0.5}"),
    Kind.named_texts: ("names, each with a text", "{NAME: text}"),
    Kind.options: ("names, each with a value", "{name: 1}"),
    Kind.group: ("the name of a file", ""),
    Kind.room: ("no value, its settings do", ""),
}


def taken(path: str) -> tuple[str, str, str]:
    """The setting that a path leads into, what it takes in words, and a value that it would take ("" where none is an example)."""
    setting = _setting(path)
    kind, type_ = setting_types.of(setting), setting_types.annotation(setting)
    if kind is Kind.options and path != setting:
        return setting, "true or false for yes and no, and numbers that are finite", ""
    if isinstance(type_, type) and issubclass(type_, Enum):
        names = [each.name for each in type_]
        words, example = f"one of {', '.join(names)}", names[0]
    else:
        words, example = (KINDS.get(type_) if kind is Kind.other else KINDS.get(kind)) or ("a text", "text")
    return setting, words + ", or null" * setting_types.takes_null(setting), example


def _setting(path: str) -> str:
    """What is below a setting may be anybody's name."""
    words = path.partition("[")[0].split(".")
    places = [".".join(words[:size]) for size in range(1, len(words) + 1)]
    return next((place for place in places if setting_types.of(place) not in (Kind.room, Kind.group)), path)


def shown(value: object) -> str:
    """A value as one would write it, as much of it as fits a line."""
    written = json.dumps(value, ensure_ascii=False, default=str)
    return written if len(written) <= 60 else f"{written[:57]}..."


def takes(path: str) -> str:
    """A hint: what the setting takes, with an override that it would."""
    setting, words, example = taken(path)
    if example:
        return f"it takes {words}: `{shlex.quote(f'{setting}={example}')}`"
    return f"it takes {words}" + f": `ls conf/{path}`" * (setting_types.of(path) is Kind.group)
