"""What is asked of a finished run, as JSON lines: a text, a file of text, or the rows of a file. Torch-free, for the laptop and the box."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from conf import paths
from conf.problem import Problem
from data import rows
from data.readers import tables, text
from data.rows import Row

HINT = 'write {"input": "..."} or {"prompt": "..."}'


def asked(what: str) -> list[str]:
    """The lines that the trainer reads: one for a text, or for a file of plain text; one for each row of a file of rows."""
    if what == "-":
        return [_line(_read(lambda: text.decode(sys.stdin.buffer.read()), "standard input"))]
    known = tables.kind(what) or what.endswith((".txt", ".md"))
    if "\n" in what or not (known or paths.is_file(Path(what))):
        return [_line(what)]
    path = Path(what).expanduser()
    if not paths.is_file(path):
        raise Problem(f"there is no file {what}", "name a file, or give the text itself", reason="bad_data")
    lines = _rows(path, what) if tables.kind(what) else [_line(_read(lambda: text.read(path, what), what))]
    if not lines:
        raise Problem(f"{what} has no text", 'write a JSON object a line, such as {"input": "..."}', reason="bad_data")
    return lines


def _line(words: str) -> str:
    if broken := text.half(words):
        raise Problem(f"the text holds half a character ({broken}), or bytes that are not UTF-8", "put it into a file in UTF-8", "bad_data")
    return json.dumps({"input": words})


def _read(read: Callable[[], str], name: str) -> str:
    try:
        return read()
    except text.TextError as error:
        raise Problem(f"{name}: {error}", error.mend, "bad_data") from error


def _rows(path: Path, name: str) -> list[str]:
    """Each row as a line: what it must hold besides is the trainer's to say."""
    lines = []
    for where, raw in tables.records(path, name):
        if isinstance(raw, rows.RowError):
            raise Problem(f"{raw.where}: {raw.what}", raw.mend, "bad_data")
        if not isinstance(raw, dict):
            raise Problem(f"{where}: the line is no JSON object", HINT, "bad_data")
        lines.append(json.dumps(raw, default=vars))  # what JSON has no form for is no text to answer
    return lines


def question(raw: object, where: str, instruction: str, notes: rows.Notes | None = None) -> Row:
    """The row whose answer is wanted; without an instruction of its own it has that of the rows that were trained on."""
    try:
        return rows.normalise(_with_answer(raw, instruction), where, notes)
    except rows.RowError as error:
        raise Problem(
            f"{error.where}: {error.what}", f"{error.mend}; a line is such as {HINT.removeprefix('write ')}", "bad_data"
        ) from error


def _with_answer(raw: object, instruction: str) -> object:
    """The row with some answer in the place of the one that is wanted."""
    if not isinstance(raw, dict):
        return raw
    for key, answer in (("messages", {"role": "assistant"}), ("conversations", {"from": "gpt"})):
        if isinstance(turns := raw.get(key), list):
            named = answer if all(isinstance(turn, dict) and "from" in turn for turn in turns) else {"role": "assistant"}
            return raw | {key: [*turns, named | {"value" if "from" in named else "content": "-"}]}
        if key in raw:
            return raw
    if "prompt" in raw:
        answer = [{"role": "assistant", "content": "-"}] if isinstance(raw["prompt"], list) else "-"
        return raw | {"completion": answer}
    if not (instruction or "instruction" in raw) and "input" in raw:
        return {"prompt": raw["input"], "completion": "-"} | {key: value for key, value in raw.items() if key != "input"}
    return {"instruction": instruction, **raw, "output": "-"} if "input" in raw or "instruction" in raw else raw
