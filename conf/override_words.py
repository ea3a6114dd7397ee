"""Overrides as they were typed: each word once more, in Hydra's own spelling, with text as text.

Hydra reads `name=1e3` as a number and refuses `data.train=données.jsonl`. Where the schema takes text, what follows `=` is
put in quotes, unless Hydra takes it for that very text anyway. Lists, `KEY=A,B` and choice(A,B) are looked into; quotes and
backslashes mean what they mean to Hydra. A word that is spelled so already stays as it is.
"""

import json
import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from conf import paths, setting_types
from conf.problem import Problem
from conf.setting_types import Kind

WORD = re.compile(r"(?P<sign>\+{0,2})(?P<key>[^=@~+\s]+)=(?P<value>.*)", re.DOTALL)
# What Hydra reads as the same text. After a dot it may see a number, and true, false, null, nan and inf are values.
PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_/][A-Za-z0-9_/.@-]*", re.IGNORECASE)
NAME = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][A-Za-z0-9_/.-]*", re.IGNORECASE)  # of an entry of {...}
QUOTED = re.compile(r"""'(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)'|"(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)\"""", re.DOTALL)
ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")
CALL = re.compile(r"(?:choice|shuffle|sort|range|interval|glob|tag|extend_list|int|float|str|bool|json_str)\s*\(.*\)", re.DOTALL)
CHOICE = re.compile(r"choice\s*\((.*)\)", re.DOTALL)
CLOSING = {"[": "]", "{": "}", "(": ")"}


def quoted(words: list[str], here: Path | None = None) -> list[str]:
    """The overrides in Hydra's spelling. With `here`, the working directory, paths in them become relative to the repository."""
    return [_quoted(word, here) for word in words]


def word(key: str, value: object) -> str:
    """The override that gives the setting this value."""
    return f"{key}={_value(value)}"


def split(text: str, brackets: bool = True) -> list[str]:
    """The parts of a text between its commas, but for those in quotes and, where they count, in brackets."""
    parts, start, position, open_ones = [], 0, 0, []
    while position < len(text):
        character = text[position]
        quoted = QUOTED.match(text, position) if character in "'\"" and _opens(text, start, position) else None
        if quoted:
            position = quoted.end()
            continue
        if character == "\\":
            position += 1
        elif character in CLOSING and brackets:
            open_ones.append(CLOSING[character])
        elif open_ones and character == open_ones[-1]:
            open_ones.pop()
        elif character == "," and not open_ones:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]


def _opens(text: str, start: int, position: int) -> bool:
    """Whether a quote may open here: `it's` has none that does."""
    return not text[start:position].strip() or text[:position].rstrip()[-1:] in ("[", "{", ",", ":", "(")


def _quoted(word: str, here: Path | None) -> str:
    match = WORD.fullmatch(word)
    if match is None:
        return word
    kind = setting_types.kind_of(match["key"])
    if kind in (None, Kind.room, Kind.options, Kind.other):
        return word
    if any("\ud800" <= character <= "\udfff" for character in word):
        escaped = word.encode("ascii", "backslashreplace").decode()
        raise Problem(
            f"`{escaped}` holds bytes that are no UTF-8 text", "rename the file, or type the word in a terminal that is set to UTF-8"
        )
    rename = (lambda text: paths.from_typed(text, here)) if here and match["key"] in setting_types.FILES else str
    value = match["value"].strip()
    if choice := CHOICE.fullmatch(value):
        value = f"choice({_values(choice[1], kind, rename)})"
    elif not CALL.fullmatch(value):
        value = _values(value, kind, rename)
    return f"{match['sign']}{match['key']}={value}"


def _values(value: str, kind: Kind, rename) -> str:
    """One value, or several with commas between them."""
    return ",".join(_one(part.strip(), kind, rename) for part in split(value, brackets=kind not in (Kind.text, Kind.group)))


def _one(value: str, kind: Kind, rename) -> str:
    listed, named = re.fullmatch(r"\[(.*)\]", value, re.DOTALL), re.fullmatch(r"\{(.*)\}", value, re.DOTALL)
    if kind in (Kind.texts, Kind.either) and listed:
        return f"[{','.join(_text(part.strip(), rename) for part in _entries(listed[1]))}]"
    if kind in (Kind.named_texts, Kind.named_numbers) and named:
        return _braces([_entry(part, kind) for part in _entries(named[1])], kind, rename)
    return _text(value, rename) if kind in (Kind.text, Kind.group, Kind.either) else value


def _entries(inside: str) -> list[str]:
    return [part for part in split(inside) if part.strip()]


def _entry(text: str, kind: Kind) -> tuple[str, str]:
    """Name and value of an entry of {...}. A name of a file may hold colons, as `hub:owner/name:train` does; a number holds none."""
    text = text.strip()
    if quoted := QUOTED.match(text):
        return unquoted(quoted[0]), text[quoted.end() :].lstrip().removeprefix(":").strip()
    name, _, value = text.rpartition(":") if kind is Kind.named_numbers else text.partition(":")
    return unquoted(name.strip()), value.strip()


def _braces(entries: list[tuple[str, str]], kind: Kind, rename) -> str:
    entries = [(rename(name), value) for name, value in entries]
    if kind is Kind.named_texts:
        return "{" + ", ".join(f"{name}: {_text(value, str)}" for name, value in entries) + "}"
    if all(NAME.fullmatch(name) for name, _ in entries):
        return "{" + ", ".join(f"{name}: {value}" for name, value in entries) + "}"
    return quote(json.dumps(dict(entries), ensure_ascii=False))  # Hydra has no such names: `load` reads them from a text


def _text(value: str, rename) -> str:
    if not value or value.lower() == "null":
        return value
    return _quoted_if_need_be(rename(unquoted(value)), bool(QUOTED.fullmatch(value)))


def _quoted_if_need_be(text: str, quoted: bool = False) -> str:
    return quote(text) if not PLAIN.fullmatch(text) or (quoted and text.lower() == "null") else text


def unquoted(value: str) -> str:
    """The text of a value, without its quotes or its backslashes."""
    if not QUOTED.fullmatch(value):
        return ESCAPED.sub(r"\1", value)
    # Within quotes only backslashes before a quote, or at the end, are doubled; and a quote has one before it.
    mark = value[0]
    return re.sub(rf"(\\+)({mark}|\Z)", lambda match: "\\" * (len(match[1]) // 2) + match[2], value[1:-1])


def quote(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _value(value: object) -> str:
    if isinstance(value, str):
        return _quoted_if_need_be(value)
    if isinstance(value, dict):
        if all(NAME.fullmatch(str(name)) for name in value):
            return "{" + ", ".join(f"{name}: {_value(item)}" for name, item in value.items()) + "}"
        return quote(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
