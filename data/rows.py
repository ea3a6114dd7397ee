"""One row of training or held-out data, whatever way its author wrote it down.

Three kinds of row are read, told apart by their keys:

    {"instruction": "...", "input": "...", "output": {...} or "..."}     `input` may be missing or empty
    {"prompt": "...", "completion": "..."}
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Any kind may also carry `id` (else the row is named after its file and line) and `meta` (an object that no model sees).
A row that cannot be used raises `RowError`: where it is, what is wrong with which value, how to mend it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.tables import RowError, records

__all__ = ["Fact", "Row", "RowError", "normalise", "read", "scan"]

ROLES = ("system", "user", "assistant")


class Fact(NamedTuple):
    """What a row's text says at one place: `meta.evidence` holds these five as a list or as an object."""

    field: str
    value: str
    status: str  # "asserted" for a label; else why it is none: negated, planned, family ...
    start: int | None  # in the row's text
    end: int | None


@dataclass(frozen=True)
class Row:
    id: str
    messages: list[dict[str, str]]  # the prompt's turns; the last one is the user's
    completion: str  # the text to learn
    output: dict | None  # the completion as an object, where it is one
    meta: dict = field(default_factory=dict)
    text: str = ""  # the row's own: `input` where it has one, else the user's last turn

    @property
    def evidence(self) -> list[Fact] | None:
        """The facts that `meta.evidence` records of the text, labels or not; None without such a record."""
        record = self.meta.get("evidence")
        facts = [_fact(entry) for entry in record] if isinstance(record, list) else [None]
        return None if None in facts else facts

    @property
    def phenomena(self) -> list[str]:
        """What `meta.phenomena` says is hard about the row."""
        names = self.meta.get("phenomena")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def read(path: Path, name: str = "") -> list[Row]:
    """The rows of a JSONL, CSV or Parquet file, in its order. `name` is what its owner calls it, where it lies under another."""
    rows, errors = scan(path, name)
    if errors:
        raise errors[0]
    return rows


def scan(path: Path, name: str = "") -> tuple[list[Row], list[RowError]]:
    """The usable rows of a file, and for each of the others what is wrong with it."""
    rows, errors, places = [], [], {}
    for where, raw in records(Path(path), name or str(path)):
        try:
            if isinstance(raw, RowError):
                raise raw
            row = normalise(raw, where)
            if row.id in places:
                raise RowError(where, f"`id` {row.id!r} is also the id of {places[row.id]}", "give each row its own id, or none")
        except RowError as error:
            errors.append(error)
        else:
            places[row.id] = where
            rows.append(row)
    if not rows and not errors:
        errors.append(RowError(name or str(path), "the file holds no rows", "put one JSON object on each line"))
    return rows, errors


def normalise(raw: dict, where: str) -> Row:
    """The row that `raw`, one decoded line, stands for. `where` is its "file:line"."""
    if not isinstance(raw, dict):
        raise RowError(where, f"the row is {_describe(raw)}", "make it an object, such as " + '{"prompt": "...", "completion": "..."}')
    messages, completion = _kind(raw, where)(raw, where)
    name, meta = raw.get("id"), raw.get("meta")
    if isinstance(name, (bool, float, list, dict)):
        raise RowError(where, f"`id` is {_describe(name)}", "make it a string or a whole number")
    if not isinstance(meta, (dict, type(None))):
        raise RowError(where, f"`meta` is {_describe(meta)}", "make it an object, or leave it out")
    own = raw.get("input")
    text = own if isinstance(own, str) and own else messages[-1]["content"]
    return Row(where if name is None else str(name), messages, completion, _object(completion), meta or {}, text)


def _kind(raw: dict, where: str) -> Callable[[dict, str], tuple[list[dict[str, str]], str]]:
    # A table that mixes kinds (CSV, Parquet) fills the other kinds' columns with nulls: null means absent.
    present = {key for key, value in raw.items() if value is not None}
    kinds = [keys for keys in KINDS if present.issuperset(keys)]
    if len(kinds) == 1:
        return KINDS[kinds[0]]
    what = "is of more than one kind" if kinds else "is of no known kind"
    keys = ", ".join(sorted(present)) or "none"
    raise RowError(where, f"the row {what} (its keys: {keys})", "use instruction/input/output, or prompt/completion, or messages")


def _instruction(raw: dict, where: str) -> tuple[list[dict[str, str]], str]:
    parts = [_text(raw, "instruction", where)]
    if raw.get("input") not in (None, ""):
        parts.append(_text(raw, "input", where))
    output = raw["output"]
    if not isinstance(output, dict):
        return _user("\n\n".join(parts)), _text(raw, "output", where, "an object or a string")
    try:
        completion = json.dumps(output, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RowError(
            where, f"`output` cannot be written as JSON ({error})", "use strings, numbers, lists, objects and null only"
        ) from error
    return _user("\n\n".join(parts)), completion


def _prompt(raw: dict, where: str) -> tuple[list[dict[str, str]], str]:
    return _user(_text(raw, "prompt", where)), _text(raw, "completion", where)


def _messages(raw: dict, where: str) -> tuple[list[dict[str, str]], str]:
    turns = raw["messages"]
    if not isinstance(turns, list):
        raise RowError(where, f"`messages` is {_describe(turns)}", "make it a list of objects with role and content")
    turns = [_turn(turn, f"messages[{index}]", where) for index, turn in enumerate(turns)]
    roles = [turn["role"] for turn in turns]
    if roles[-2:] != ["user", "assistant"]:
        raise RowError(
            where, f"`messages` has the roles {', '.join(roles) or 'of nobody'}", "end it with a user turn and the assistant's answer"
        )
    if "system" in roles[1:]:
        raise RowError(where, "`messages` has a system turn that is not the first", "move it to the front, or make it a user turn")
    return turns[:-1], turns[-1]["content"]


def _turn(turn: object, name: str, where: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise RowError(where, f"`{name}` is {_describe(turn)}", "make it an object with role and content")
    if turn.get("role") not in ROLES:
        raise RowError(where, f"`{name}.role` is {_describe(turn.get('role'))}", f"use one of {', '.join(ROLES)}")
    return {"role": turn["role"], "content": _text(turn, "content", where, name=f"{name}.content")}


KINDS = {
    ("instruction", "output"): _instruction,
    ("prompt", "completion"): _prompt,
    ("messages",): _messages,
}


def _fact(entry: object) -> Fact | None:
    parts = [entry.get(key) for key in Fact._fields] if isinstance(entry, dict) else entry
    if not isinstance(parts, list) or len(parts) != len(Fact._fields) or not all(isinstance(part, str) for part in parts[:3]):
        return None
    return Fact(*parts)


def _user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def _text(raw: dict, key: str, where: str, wanted: str = "a string", name: str = "") -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise RowError(where, f"`{name or key}` is {_describe(value)}", f"make it {wanted}")
    if not value.strip():
        raise RowError(where, f"`{name or key}` is empty", "give it text, or drop the row")
    return value


def _object(completion: str) -> dict | None:
    try:
        value = json.loads(completion)
    except (ValueError, RecursionError):  # plain text, as good a completion as any
        return None
    return value if isinstance(value, dict) else None


def _describe(value: object) -> str:
    kinds = {
        type(None): "missing or null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    kind = kinds.get(type(value), f"a {type(value).__name__}")
    if value is None or isinstance(value, dict):
        return kind
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return f"{kind} ({shown if len(shown) <= 40 else shown[:37] + '...'})"
