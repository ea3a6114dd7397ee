"""One row of training or held-out data, whatever way its author wrote it down.

Four kinds of row are read, told apart by their keys:

    {"instruction": "...", "input": "...", "output": {...} or "..."}     `input` may be missing or empty; `system` and `history` are read
    {"prompt": "...", "completion": "..."}                              `system` is read; both may be lists of turns
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}     with `tools`, tool calls and weights
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}         ShareGPT; `system`, `tools`

Any kind may also carry `id` (else the row is named after its file and line) and `meta` (an object that no model sees). A key that
is not read is counted and told (`Notes`), and refused where leaving it out would change what the model is asked.
A row that cannot be used raises `RowError`: where it is, what is wrong with which value, how to mend it.
"""

import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.readers import arrow, tables, turns
from data.readers.tables import RowError, described, records
from data.readers.turns import EMPTY, Talk, Turn

__all__ = ["Fact", "Notes", "Row", "RowError", "Scan", "normalise", "read", "scan"]

READ = {
    ("instruction", "output"): {"instruction", "input", "output", "system", "history"},
    ("prompt", "completion"): {"prompt", "completion", "input", "system"},
    ("messages",): {"messages", "input", "system", "tools"},
    ("conversations",): {"conversations", "input", "system", "tools"},
}
ALWAYS = {"id", "meta"}
# Keys of other people's rows that say what is asked, or which answer is wanted: no row is trained on without them.
MEANT = {"system", "history", "tools", "functions", "weight", "chosen", "rejected", "kto_tag", "chat_template_kwargs", "documents"}
# Texts of which a prompt is often made, and parts of other kinds of rows: what stands in the turns is said all the same.
ASKED = {"instruction", "context", "question", "query", "passage", "prompt", "completion", "output"}
MEANT |= {"system_prompt", "system_message", "system_instruction", "developer", *ASKED}
MEANT |= {"mask", "loss_mask", "labels", "assistant_masks", "completion_mask", "train_on_turns"}
MEANT |= {"prefix", "suffix", "enable_thinking", "reasoning_effort"}
MEANT |= {"image", "images", "video", "videos", "audio", "audios", "reasoning", "reasoning_content", "thinking"}
NAMED = 10  # keys that are named
KINDS_IN_WORDS = "use instruction/input/output, or prompt/completion, or messages, or conversations"


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
    messages: list[Turn]  # the prompt's turns; the last one is the user's, or a tool's result
    completion: str  # the text to learn
    output: dict | None  # the completion as an object, where it is one
    meta: dict = field(default_factory=dict)
    text: str = ""  # the row's own: `input` where it has one, else the user's last turn
    tools: list[dict] = field(default_factory=list)  # functions that the model may call
    calls: list[dict] = field(default_factory=list)  # those that the answer calls: how they are written is the model's template's to say
    weights: dict[int, int] = field(default_factory=dict)  # of answers in `messages`, by their places: 1 is learned, 0 never is

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


@dataclass
class Notes:
    """What the rows of a file hold that no model will see as it stands there."""

    unread: Counter = field(default_factory=Counter)  # keys, and how many rows have them
    spaced: int = 0  # rows of a CSV file with spaces around the text of a cell
    nulls: int = 0  # rows whose objects have nulls in a table of fixed columns, where an absent key looks the same

    def lines(self) -> list[str]:
        told = [f"`{key}` ({count:,} {'rows' if count > 1 else 'row'})" for key, count in self.unread.most_common()]
        if len(told) > NAMED:
            told = [*told[:NAMED], f"{len(told) - NAMED} more"]
        lines = [f"keys that are not read: {', '.join(told)}"] if told else []
        if self.spaced:
            count = f"{self.spaced:,} {'rows' if self.spaced > 1 else 'row'}"
            lines.append(f"cells with spaces around their text, which the model is told with it: {count}; write a,b and not a, b")
        if self.nulls:
            what = (
                f"answers, calls or tools with null, which in a table's columns also stands for a key that is absent: {self.nulls:,} rows"
            )
            lines.append(f"{what}; where absent is meant, keep them as JSON text or the rows as JSON Lines")
        return lines


class Scan(NamedTuple):
    rows: list[Row]
    errors: list[RowError]
    notes: Notes


def read(path: Path, name: str = "") -> list[Row]:
    """The rows of a file, in its order. `name` is what its owner calls it, where it lies under another."""
    return usable(path, name).rows


def usable(path: Path, name: str = "") -> Scan:
    """The rows of a file and what to say about them; a RowError where one cannot be used."""
    found = scan(path, name)
    if found.errors:
        raise found.errors[0]
    return found


def scan(path: Path, name: str = "") -> Scan:
    """The usable rows of a file, for each of the others what is wrong with it, and what is to be said about all."""
    name = name or str(path)
    kind = tables.kind(name)
    return collect(records(Path(path), name), name, columns=kind == ".parquet", cells=kind in (".csv", ".tsv"))


def collect(found, name: str, columns: bool = False, cells: bool = False) -> Scan:
    """The same of records. `columns`: they come from a table in which every row has every key; `cells`: from a table of text."""
    rows, errors, places, notes = [], [], {}, Notes()
    for where, raw in found:
        try:
            if isinstance(raw, RowError):
                raise raw
            row = normalise(raw, where, notes)
            if row.id in places:
                raise RowError(where, f"`id` {row.id!r} is also the id of {places[row.id]}", "give each row its own id, or none")
        except RowError as error:
            errors.append(error)
        else:
            places[row.id] = where
            rows.append(row)
            notes.spaced += cells and any(isinstance(each, str) and each != each.strip() for each in raw.values())
            notes.nulls += columns and _has_null([raw.get("output") or {}, row.tools, row.calls, row.messages])
    if not rows and not errors:
        mend = "put a line for each row below the names of the columns" if cells else "put one JSON object on each line"
        errors.append(RowError(name, "the file holds no rows", mend))
    return Scan(rows, errors, notes)


def normalise(raw: object, where: str, notes: Notes | None = None) -> Row:
    """The row that `raw`, one decoded line, stands for. `where` is its "file:line"; what is not read goes into `notes`."""
    if not isinstance(raw, dict):
        raise RowError(where, f"the row is {described(raw)}", "make it an object, such as " + '{"prompt": "...", "completion": "..."}')
    kind = _kind(raw, where)
    unread = _unread(raw, kind, where)
    talk = _talk(raw, kind, where)
    name, meta = raw.get("id"), raw.get("meta")
    if isinstance(name, (bool, float, list, dict)):
        raise RowError(where, f"`id` is {described(name)}", "make it a string or a whole number")
    if not isinstance(meta, (dict, type(None))):
        raise RowError(where, f"`meta` is {described(meta)}", "make it an object, or leave it out")
    if notes:
        notes.unread.update(unread)
    return _row(where if name is None else str(name), talk, raw, meta or {}, where)


def _row(name: str, talk: Talk, raw: dict, meta: dict, where: str) -> Row:
    own, calls = raw.get("input"), talk.answer.get("tool_calls", [])
    text = own if isinstance(own, str) and own else next(turn["content"] for turn in reversed(talk.before) if turn["role"] == "user")
    said = "\n".join(str(turn["content"]) for turn in talk.before)
    if isinstance(own, str) and own.strip() not in said:
        raise RowError(where, "`input` stands in none of the turns, so no model would see it", "write it into the prompt, or leave it out")
    completion = _compact(calls, "tool_calls", where) if calls else talk.answer["content"]
    tools = turns.tools(raw["tools"], where) if raw.get("tools") not in EMPTY else []
    output = None if calls else _object(completion)
    return Row(name, talk.before, completion, output, meta, text, tools, [talk.answer] if calls else [], talk.weights)


def _kind(raw: dict, where: str) -> tuple[str, ...]:
    # A table that mixes kinds (CSV, Parquet) fills the other kinds' columns with nulls: null means absent.
    present = {key for key, value in raw.items() if value is not None}
    kinds = [keys for keys in READ if present.issuperset(keys)]
    if len(kinds) == 1:
        return kinds[0]
    what = "is of more than one kind" if kinds else "is of no known kind"
    keys = ", ".join(sorted(map(str, present))) or "none"
    raise RowError(where, f"the row {what} (its keys: {keys})", KINDS_IN_WORDS)


def _unread(raw: dict, kind: tuple[str, ...], where: str) -> list[str]:
    """Keys that say something and are not read; a RowError where the model would be asked otherwise without them."""
    unread = [str(key) for key, value in raw.items() if key not in READ[kind] | ALWAYS and value not in EMPTY]
    said = json.dumps([raw.get(key) for key in READ[kind]], ensure_ascii=False, default=str)
    meant = [
        key
        for key in unread
        if (key in MEANT and not (key in ASKED and _is_said(raw[key], said))) or (key == "label" and isinstance(raw[key], bool))
    ]
    if meant:
        what = f"`{meant[0]}` is not read in a row of {'/'.join(kind)}, and leaving it out changes what is asked"
        raise RowError(where, what, f"write the row as messages, or take `{meant[0]}` out")
    return unread


def _is_said(value: object, said: str) -> bool:
    """Whether a text stands in what is read."""
    return isinstance(value, str) and json.dumps(value.strip(), ensure_ascii=False)[1:-1] in said


def _talk(raw: dict, kind: tuple[str, ...], where: str) -> Talk:
    """The row as turns."""
    if kind == ("messages",) or kind == ("conversations",):
        (key,) = kind
        said = raw[key]
        if not isinstance(said, list):
            raise RowError(where, f"`{key}` is {described(said)}", "make it a list of objects with role and content")
        talk = (turns.messages if key == "messages" else turns.sharegpt)(said, key, where)
    elif kind == ("prompt", "completion"):
        talk = _prompt(raw, where)
    else:
        talk = _instruction(raw, where)
    return _with_system(talk, raw, where)


def _with_system(talk: Talk, raw: dict, where: str) -> Talk:
    if raw.get("system") in EMPTY:
        return talk
    if talk.before[0]["role"] == "system":
        raise RowError(where, "`system` is said twice: by its key and by the first turn", "leave one of them")
    opening = {"role": "system", "content": _text(raw, "system", where)}
    return Talk([opening, *talk.before], talk.answer, {place + 1: weight for place, weight in talk.weights.items()})


def _instruction(raw: dict, where: str) -> Talk:
    parts = [_text(raw, "instruction", where)]
    if raw.get("input") not in (None, ""):
        parts.append(_text(raw, "input", where))
    output = raw["output"]
    answer = _compact(output, "output", where) if isinstance(output, dict) else _text(raw, "output", where, "an object or a string")
    before = turns.history(raw["history"], where) if raw.get("history") not in EMPTY else []
    return Talk([*before, *_user("\n\n".join(parts))], {"role": "assistant", "content": answer})


def _compact(value: object, key: str, where: str) -> str:
    if found := arrow.foreign(value, key):
        raise RowError(where, f"`{found[0]}` is {described(found[1])}", "write it as text or as a number, as the model is to answer it")
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(
            where, f"`{key}` cannot be written as JSON ({error})", "use strings, numbers, lists, objects and null only"
        ) from error


def _prompt(raw: dict, where: str) -> Talk:
    prompt, completion = raw["prompt"], raw["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):  # TRL's conversations
        talk = turns.messages([*prompt, *completion], "prompt and completion", where)
        later = {place: 1 for place, turn in enumerate(talk.before) if place >= len(prompt) and turn["role"] == "assistant"}
        return Talk(talk.before, talk.answer, later | talk.weights)  # all answers of the completion are to be learned
    return Talk(_user(_text(raw, "prompt", where)), {"role": "assistant", "content": _text(raw, "completion", where)})


def fields_word(names) -> str:
    """The override that scores these keys, as it can be pasted."""
    listed = [name if re.fullmatch(r"[\w.-]+", name) and name.lower() != "null" else json.dumps(name, ensure_ascii=False) for name in names]
    return shlex.quote(f"data.fields=[{','.join(listed)}]")


def _has_null(value: object) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(entry is None or _has_null(entry) for entry in inside)


def _fact(entry: object) -> Fact | None:
    parts = [entry.get(key) for key in Fact._fields] if isinstance(entry, dict) else entry
    if not isinstance(parts, list) or len(parts) != len(Fact._fields) or not all(isinstance(part, str) for part in parts[:3]):
        return None
    return Fact(*parts)


def _user(content: str) -> list[Turn]:
    return [{"role": "user", "content": content}]


def _text(raw: dict, key: str, where: str, wanted: str = "a string") -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise RowError(where, f"`{key}` is {described(value)}", f"make it {wanted}")
    if not value.strip():
        raise RowError(where, f"`{key}` is empty", "give it text, or drop the row")
    return value


def _object(completion: str) -> dict | None:
    try:
        value = json.loads(completion, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # plain text, as good a completion as any
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")  # Python's reader takes NaN, which equals nothing, and Infinity
