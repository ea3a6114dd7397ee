"""Which values a setting accepts, and the hint that says so.

OmegaConf converts values to the schema's types: 7 and "on" to true, "7 " to 7, and it accepts nan as a number. Here a value is accepted
only if it has its setting's type without conversion.
"""

import json
import math
import re
import shlex
from enum import Enum
from typing import Any

from conf import setting_types
from conf.setting_types import Kind

BOOLEAN_WORDS = {"true", "false", "yes", "no", "on", "off"}  # YAML's words, in upper or lower case
WHOLE, NUMBER = re.compile(r"[-+]?\d+"), re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # as Parameter Store has them
LARGEST = 2**63  # of whole numbers
MAY_BE_EMPTY = {"model.note"}
REFERENCE = re.compile(r"(?<!\\)(\\\\)*\$\{")  # to another value, which is checked where it is known


def invalid_value(path: str, value: object) -> tuple[str, object] | None:
    """The setting, or its key, that has a value of another type, with that value; None where there is none."""
    kind, type_ = setting_types.kind_of(path), setting_types.annotation(path)
    if kind in (Kind.room, Kind.group):
        return None if isinstance(value, dict) or value in (None, "???") else (path, value)
    if kind is Kind.either:
        return None  # the schema has a rule for it
    if value is None:
        return None if setting_types.takes_null(path) else (path, value)
    if value == "???" or (isinstance(value, str) and REFERENCE.search(value)):
        return None
    if kind is Kind.options:
        return _invalid_option(path, value)
    if kind is Kind.texts:
        return None if isinstance(value, list) and all(isinstance(item, str) for item in value) else (path, value)
    if kind in (Kind.named_texts, Kind.named_numbers):
        if not isinstance(value, dict):
            return path, value
        fits_entry = _is_number if kind is Kind.named_numbers else lambda item: isinstance(item, str)
        return next(((f"{path}.{name}", item) for name, item in value.items() if not fits_entry(item)), None)
    if kind is Kind.text:
        empty = isinstance(value, str) and not value.strip() and path not in MAY_BE_EMPTY
        return (path, value) if isinstance(value, (list, dict)) or empty else None
    if issubclass(type_, Enum):
        return None if value in list(type_.__members__) else (path, value)
    fits = {bool: _is_boolean, int: _is_whole, float: _is_number}[type_]
    return None if fits(value) else (path, value)


def _invalid_option(path: str, value: object) -> tuple[str, object] | None:
    """The same for another library's options: to `if option` the text `no` is true."""
    if not isinstance(value, dict):
        return path, value
    stack = [(f"{path}.{name}", item) for name, item in value.items()]
    while stack:
        name, item = stack.pop(0)
        if (isinstance(item, str) and item.lower() in BOOLEAN_WORDS) or (isinstance(item, float) and not math.isfinite(item)):
            return name, item
        items = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        stack += [(f"{name}.{key}", inner) for key, inner in items]
    return None


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in BOOLEAN_WORDS)


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


def accepted_values(path: str) -> tuple[str, str, str]:
    """The setting that a path leads into, a description of its values, and an example ("" where there is none)."""
    setting = _setting_of(path)
    kind, type_ = setting_types.kind_of(setting), setting_types.annotation(setting)
    if kind is Kind.options and path != setting:
        return setting, "true or false for yes and no, and numbers that are finite", ""
    if isinstance(type_, type) and issubclass(type_, Enum):
        names = [member.name for member in type_]
        description, example = f"one of {', '.join(names)}", names[0]
    else:
        description, example = (KINDS.get(type_) if kind is Kind.other else KINDS.get(kind)) or ("a text", "text")
    return setting, description + ", or null" * setting_types.takes_null(setting), example


def _setting_of(path: str) -> str:
    """The setting that a path leads into: keys below it may be any name."""
    names = path.partition("[")[0].split(".")
    prefixes = [".".join(names[:size]) for size in range(1, len(names) + 1)]
    return next((prefix for prefix in prefixes if setting_types.kind_of(prefix) not in (Kind.room, Kind.group)), path)


def short_json(value: object) -> str:
    """A value as JSON, cut to fit a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def accepted_hint(path: str) -> str:
    """A hint: what the setting takes, with an override that it would."""
    setting, description, example = accepted_values(path)
    if example:
        return f"it takes {description}: `{shlex.quote(f'{setting}={example}')}`"
    return f"it takes {description}" + f": `ls conf/{path}`" * (setting_types.kind_of(path) is Kind.group)
