"""The input of `predict` as JSON lines: from a text, a file of text, or the rows of a file. Torch-free, for the laptop and the box."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from conf import paths
from conf.problem import Problem
from data import rows
from data.readers import tables, text
from data.rows import Row

PATH = re.compile(r"(?:~|\.{0,2})/\S*|[\w./~-]+\.[a-z]{1,8}", re.ASCII)  # what is no text, but the name of a file
HINT = 'write {"input": "..."} or {"prompt": "..."}'


def input_lines(source: str) -> list[str]:
    """The lines that the trainer reads: one for a text, or for a file of plain text; one for each row of a file of rows."""
    if source == "-":
        return [_line(_read(lambda: text.decode(sys.stdin.buffer.read()), "standard input"))]
    names_a_file = tables.kind(source) or source.endswith((".txt", ".md"))
    if not source.strip():
        raise Problem("the text is empty", 'give a text, a file, or `-` for standard input: `inv predict "a text"`', reason="bad_data")
    looks_like_a_file = names_a_file or PATH.fullmatch(source)
    if "\n" in source or not (looks_like_a_file or paths.is_file(Path(source))):
        return [_line(source)]
    path = Path(source).expanduser()
    if not paths.is_file(path):
        raise Problem(f"there is no file {source}", "name a file, or give the text itself", reason="bad_data")
    lines = _rows(path, source) if tables.kind(source) else [_line(_read(lambda: text.read(path, source), source))]
    if not lines:
        raise Problem(f"{source} has no text", 'write a JSON object a line, such as {"input": "..."}', reason="bad_data")
    return lines


def _line(content: str) -> str:
    if broken := text.lone_surrogate(content):
        raise Problem(f"the text holds half a character ({broken}), or bytes that are not UTF-8", "put it into a file in UTF-8", "bad_data")
    return json.dumps({"input": content})


def _read(read: Callable[[], str], name: str) -> str:
    try:
        return read()
    except text.TextError as error:
        raise Problem(f"{name}: {error}", error.hint, "bad_data") from error


def _rows(path: Path, name: str) -> list[str]:
    """Each row as a line; the trainer checks its keys."""
    lines = []
    for where, raw in tables.records(path, name):
        if isinstance(raw, rows.RowError):
            raise Problem(f"{raw.where}: {raw.what}", raw.hint, "bad_data")
        if not isinstance(raw, dict):
            raise Problem(f"{where}: the line is no JSON object", HINT, "bad_data")
        lines.append(json.dumps(raw, default=vars))  # what JSON has no form for is no text to answer
    return lines


def prompt_row(raw: object, where: str, instruction: str, notes: rows.ScanNotes | None = None) -> Row:
    """The row whose answer is wanted; without an instruction of its own it has that of the rows that were trained on."""
    try:
        return rows.normalise(_with_answer(raw, instruction), where, notes)
    except rows.RowError as error:
        raise Problem(
            f"{error.where}: {error.what}", f"{error.hint}; a line is such as {HINT.removeprefix('write ')}", "bad_data"
        ) from error


def _with_answer(raw: object, instruction: str) -> object:
    """The row with a placeholder as its answer."""
    if not isinstance(raw, dict):
        return raw
    for key, answer in (("messages", {"role": "assistant"}), ("conversations", {"from": "gpt"})):
        if isinstance(turns := raw.get(key), list):
            answer_turn = answer if all(isinstance(turn, dict) and "from" in turn for turn in turns) else {"role": "assistant"}
            return raw | {key: [*turns, answer_turn | {"value" if "from" in answer_turn else "content": "-"}]}
        if key in raw:
            return raw
    if "prompt" in raw:
        return raw | {"completion": [{"role": "assistant", "content": "-"}] if isinstance(raw["prompt"], list) else "-"}
    if not (instruction or "instruction" in raw) and "input" in raw:
        return {"prompt": raw["input"], "completion": "-"} | {key: value for key, value in raw.items() if key != "input"}
    return {"instruction": instruction, **raw, "output": "-"} if "input" in raw or "instruction" in raw else raw
