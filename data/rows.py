"""One row of training or held-out data, whatever way its author wrote it down.

Four kinds of row are read, distinguished by their keys:

    {"instruction": "...", "input": "...", "output": {...} or "..."}     `input` may be missing or empty; `system` and `history` are read
    {"prompt": "...", "completion": "..."}                              `system` is read; both may be lists of turns
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}     with `tools`, tool calls and weights
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}         ShareGPT; `system`, `tools`

Any kind may also carry `id` (else the row is named after its file and line) and `meta` (an object that no model sees). A key that
is not read is counted and reported (`ScanNotes`), and refused where leaving it out would change the prompt.
A row that cannot be used raises `RowError`: where it is, what is wrong with which value, and a hint.
"""

import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.readers import arrow, numbers, tables, turns
from data.readers.tables import RowError, describe, records
from data.readers.turns import ABSENT, Conversation, Turn

__all__ = ["Fact", "Row", "RowError", "Scan", "ScanNotes", "normalise", "read", "scan"]

KEYS_READ = {
    ("instruction", "output"): {"instruction", "input", "output", "system", "history"},
    ("prompt", "completion"): {"prompt", "completion", "input", "system"},
    ("messages",): {"messages", "input", "system", "tools"},
    ("conversations",): {"conversations", "input", "system", "tools"},
}
ANY_KIND = {"id", "meta"}
# Keys of other formats that change the prompt or the wanted answer: a row that has one is refused, not trained on without it.
CHANGES_MEANING = {"system", "history", "tools", "functions", "weight", "chosen", "rejected", "kto_tag", "documents"}
CHANGES_MEANING |= {"chat_template_kwargs"}
# Texts that a prompt often contains, and keys of other kinds of rows: they are not needed where the turns contain them.
PROMPT_TEXTS = {"instruction", "context", "question", "query", "passage", "prompt", "completion", "output"}
CHANGES_MEANING |= {"system_prompt", "system_message", "system_instruction", "developer", *PROMPT_TEXTS}
CHANGES_MEANING |= {"mask", "loss_mask", "labels", "assistant_masks", "completion_mask", "train_on_turns"}
CHANGES_MEANING |= {"prefix", "suffix", "enable_thinking", "reasoning_effort"}
CHANGES_MEANING |= {"image", "images", "video", "videos", "audio", "audios", "reasoning", "reasoning_content", "thinking"}
NAMED = 10  # keys that a note names
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
        facts = [_fact(fact_record) for fact_record in record] if isinstance(record, list) else [None]
        return None if None in facts else facts

    @property
    def phenomena(self) -> list[str]:
        """What `meta.phenomena` says is hard about the row."""
        names = self.meta.get("phenomena")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


@dataclass
class ScanNotes:
    """What the rows of a file hold that the model does not see."""

    unread: Counter = field(default_factory=Counter)  # keys, and how many rows have them
    spaced: int = 0  # rows of a CSV file with spaces around the text of a cell
    labels: Counter = field(default_factory=Counter)  # numbers under `label`, and how many rows have them
    nulls: int = 0  # rows whose objects have nulls in a table of fixed columns, where an absent key looks the same

    def lines(self) -> list[str]:
        unread_keys = [f"`{key}` ({count:,} {'rows' if count > 1 else 'row'})" for key, count in self.unread.most_common()]
        if len(unread_keys) > NAMED:
            unread_keys = [*unread_keys[:NAMED], f"{len(unread_keys) - NAMED} more"]
        lines = [f"keys that are not read: {', '.join(unread_keys)}"] if unread_keys else []
        if self.labels:
            rated = "; where 0 says that an answer is bad, take the row out: it is learned too" if {*self.labels} <= {"0", "1"} else ""
            lines.append(f"`label` holds numbers, and answers are learned as their text stands, without them{rated}")
        if self.spaced:
            count = f"{self.spaced:,} {'rows' if self.spaced > 1 else 'row'}"
            lines.append(f"cells with spaces around their text, which the model reads too: {count}; write a,b and not a, b")
        if self.nulls:
            what = (
                f"answers, calls or tools with null, which in a table's columns also stands for a key that is absent: {self.nulls:,} rows"
            )
            lines.append(f"{what}; where absent is meant, keep them as JSON text or the rows as JSON Lines")
        return lines


class Scan(NamedTuple):
    rows: list[Row]
    errors: list[RowError]
    notes: ScanNotes


def read(path: Path, name: str = "") -> list[Row]:
    """The rows of a file, in its order. `name` is the user's name of it, where the path is another."""
    return scan_or_raise(path, name).rows


def scan_or_raise(path: Path, name: str = "") -> Scan:
    """The rows of a file with notes; a RowError where one cannot be used."""
    file_scan = scan(path, name)
    if file_scan.errors:
        raise file_scan.errors[0]
    return file_scan


def scan(path: Path, name: str = "") -> Scan:
    """The usable rows of a file, an error for each of the others, and notes about all."""
    name = name or str(path)
    kind = tables.kind(name)
    return collect(records(Path(path), name), name, columns=kind == ".parquet", cells=kind in (".csv", ".tsv"))


def collect(raw_records, name: str, columns: bool = False, cells: bool = False) -> Scan:
    """The same of records. `columns`: they come from a table in which every row has every key; `cells`: from a table of text."""
    rows, errors, seen_ids, notes = [], [], {}, ScanNotes()
    for where, raw in raw_records:
        try:
            if isinstance(raw, RowError):
                raise raw
            row = normalise(raw, where, notes)
            if row.id in seen_ids:
                raise RowError(where, f"`id` {row.id!r} is also the id of {seen_ids[row.id]}", "give each row its own id, or none")
        except RowError as error:
            errors.append(error)
        else:
            seen_ids[row.id] = where
            rows.append(row)
            notes.spaced += cells and any(isinstance(value, str) and value != value.strip() for value in raw.values())
            notes.nulls += columns and _has_null([raw.get("output") or {}, row.tools, row.calls, row.messages])
    if not rows and not errors:
        hint = "put a line for each row below the names of the columns" if cells else "put one JSON object on each line"
        errors.append(RowError(name, "the file holds no rows", hint))
    return Scan(rows, errors, notes)


def normalise(raw: object, where: str, notes: ScanNotes | None = None) -> Row:
    """The row that `raw`, one decoded line, describes. `where` is its "file:line"; what is not read goes into `notes`."""
    if not isinstance(raw, dict):
        raise RowError(where, f"the row is {describe(raw)}", "make it an object, such as " + '{"prompt": "...", "completion": "..."}')
    kind = _kind(raw, where)
    unread = _unread(raw, kind, where)
    conversation = _conversation(raw, kind, where)
    name, meta = raw.get("id"), raw.get("meta")
    if isinstance(name, (bool, float, list, dict)):
        raise RowError(where, f"`id` is {describe(name)}", "make it a string or a whole number")
    if not isinstance(meta, (dict, type(None))):
        raise RowError(where, f"`meta` is {describe(meta)}", "make it an object, or leave it out")
    if notes:
        notes.unread.update(unread)
        if "label" in unread and re.fullmatch(r"-?\d+", number := str(raw["label"]).strip()):
            notes.labels[number] += 1
    return _row(where if name is None else str(name), conversation, raw, meta or {}, where)


def _row(name: str, conversation: Conversation, raw: dict, meta: dict, where: str) -> Row:
    input_text, calls = raw.get("input"), conversation.answer.get("tool_calls", [])
    text = (
        input_text
        if isinstance(input_text, str) and input_text
        else next(turn["content"] for turn in reversed(conversation.prompt) if turn["role"] == "user")
    )
    prompt_text = "\n".join(str(turn["content"]) for turn in conversation.prompt)
    if isinstance(input_text, str) and input_text.strip() not in prompt_text:
        raise RowError(where, "`input` is in none of the turns, so the model would not see it", "write it into the prompt, or leave it out")
    completion = _compact(calls, "tool_calls", where) if calls else conversation.answer["content"]
    tools = turns.tools(raw["tools"], where) if raw.get("tools") not in ABSENT else []
    output = None if calls else _object(completion)
    return Row(
        name, conversation.prompt, completion, output, meta, text, tools, [conversation.answer] if calls else [], conversation.weights
    )


def _kind(raw: dict, where: str) -> tuple[str, ...]:
    # A table that mixes kinds (CSV, Parquet) fills the other kinds' columns with nulls: null means absent.
    present = {key for key, value in raw.items() if value is not None}
    kinds = [keys for keys in KEYS_READ if present.issuperset(keys)]
    if len(kinds) == 1:
        return kinds[0]
    what = "is of more than one kind" if kinds else "is of no known kind"
    keys = ", ".join(sorted(map(str, present))) or "none"
    raise RowError(where, f"the row {what} (its keys: {keys})", KINDS_IN_WORDS)


def _unread(raw: dict, kind: tuple[str, ...], where: str) -> list[str]:
    """Keys that say something and are not read; a RowError where the model would be asked otherwise without them."""
    unread = [str(key) for key, value in raw.items() if key not in KEYS_READ[kind] | ANY_KIND and value not in ABSENT]
    read_text = json.dumps([raw.get(key) for key in KEYS_READ[kind]], ensure_ascii=False, default=str)
    meaningful = [key for key in unread if _changes_meaning(key, raw[key], read_text)]
    if meaningful:
        what = f"`{meaningful[0]}` is not read in a row of {'/'.join(kind)}, and leaving it out changes what is asked"
        raise RowError(where, what, f"write the row as messages, or take `{meaningful[0]}` out")
    return unread


def _changes_meaning(key: str, value: object, read_text: str) -> bool:
    """Whether the row means something else without the key; not where its text is a part of what is read."""
    if key == "label":  # of preference data: whether the answer is a good one
        return isinstance(value, bool) or str(value).strip().lower() in ("true", "false")
    return key in CHANGES_MEANING and not (key in PROMPT_TEXTS and _is_contained(value, read_text))


def _is_contained(value: object, read_text: str) -> bool:
    """Whether a text is part of what is read."""
    return isinstance(value, str) and json.dumps(value.strip(), ensure_ascii=False)[1:-1] in read_text


def _conversation(raw: dict, kind: tuple[str, ...], where: str) -> Conversation:
    """The row as turns."""
    if kind == ("messages",) or kind == ("conversations",):
        (key,) = kind
        raw_turns = raw[key]
        if not isinstance(raw_turns, list):
            raise RowError(where, f"`{key}` is {describe(raw_turns)}", "make it a list of objects with role and content")
        conversation = (turns.messages if key == "messages" else turns.sharegpt)(raw_turns, key, where)
    elif kind == ("prompt", "completion"):
        conversation = _prompt(raw, where)
    else:
        conversation = _instruction(raw, where)
    return _with_system(conversation, raw, where)


def _with_system(conversation: Conversation, raw: dict, where: str) -> Conversation:
    if raw.get("system") in ABSENT:
        return conversation
    if conversation.prompt[0]["role"] == "system":
        raise RowError(where, "there are two system turns: the key `system` and the first turn", "leave one of them")
    opening = {"role": "system", "content": _text(raw, "system", where)}
    return Conversation(
        [opening, *conversation.prompt], conversation.answer, {index + 1: weight for index, weight in conversation.weights.items()}
    )


def _instruction(raw: dict, where: str) -> Conversation:
    parts = [_text(raw, "instruction", where)]
    if raw.get("input") not in (None, ""):
        parts.append(_text(raw, "input", where))
    output = raw["output"]
    answer = _compact(output, "output", where) if isinstance(output, dict) else _text(raw, "output", where, "an object or a string")
    before = turns.history(raw["history"], where) if raw.get("history") not in ABSENT else []
    return Conversation([*before, *_user("\n\n".join(parts))], {"role": "assistant", "content": answer})


def _compact(value: object, key: str, where: str) -> str:
    if foreign := arrow.foreign(value, key):
        raise RowError(where, f"`{foreign[0]}` is {describe(foreign[1])}", "write it as text or as a number, as the model is to answer it")
    try:
        return numbers.dumps(value)
    except numbers.TooLargeError as error:
        raise RowError(where, f"`{key}` has the number {error}, too large to be read back", "write it as text, in quotes") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(
            where, f"`{key}` cannot be written as JSON ({error})", "use strings, numbers, lists, objects and null only"
        ) from error


def _prompt(raw: dict, where: str) -> Conversation:
    prompt, completion = raw["prompt"], raw["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):  # TRL's conversations
        conversation = turns.messages([*prompt, *completion], "prompt and completion", where)
        later = {index: 1 for index, turn in enumerate(conversation.prompt) if index >= len(prompt) and turn["role"] == "assistant"}
        return Conversation(
            conversation.prompt, conversation.answer, later | conversation.weights
        )  # all answers of the completion have loss
    return Conversation(_user(_text(raw, "prompt", where)), {"role": "assistant", "content": _text(raw, "completion", where)})


def fields_override(names) -> str:
    """The override that scores these keys, as it can be pasted."""
    quoted_names = [
        name if re.fullmatch(r"[\w.-]+", name) and name.lower() != "null" else json.dumps(name, ensure_ascii=False) for name in names
    ]
    return shlex.quote(f"data.fields=[{','.join(quoted_names)}]")


def _has_null(value: object) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(item is None or _has_null(item) for item in inside)


def _fact(record: object) -> Fact | None:
    parts = [record.get(key) for key in Fact._fields] if isinstance(record, dict) else record
    if not isinstance(parts, list) or len(parts) != len(Fact._fields) or not all(isinstance(part, str) for part in parts[:3]):
        return None
    return Fact(*parts)


def _user(content: str) -> list[Turn]:
    return [{"role": "user", "content": content}]


def _text(raw: dict, key: str, where: str, expected_type: str = "a string") -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise RowError(where, f"`{key}` is {describe(value)}", f"make it {expected_type}")
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
