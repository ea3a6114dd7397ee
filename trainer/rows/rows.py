"""The rows of a run: read as its settings say, checked, and identified by their sha256."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path

from conf import paths
from conf.problem import Problem
from conf.process.screen import screen
from conf.schema import Data
from conf.text import quoting
from data import rows as files
from data import score
from data.readers import arrow
from data.rows import Row, RowError, Scan
from trainer.files import digest


@dataclass(frozen=True)
class Table:
    rows: list[Row]
    sha256: str
    weight: float = 1.0  # how often an epoch visits each row


def read(data: Data, folder: Path) -> tuple[list[Table], Table]:
    """The training rows, a table for each source, and the held-out rows.

    A file that the run knows by its hash is taken from the inputs beside the runs.
    """
    inputs = folder.resolve().parent.parent / "inputs"
    training = [_table("data.train", data.train, data.train_sha256, inputs)]
    for source, weight in data.also.items():
        training.append(replace(_table("data.also", source, data.also_sha256.get(source), inputs), weight=weight))
    held_out = _table("data.validation", data.validation, data.validation_sha256, inputs)
    if held_out.sha256 in [table.sha256 for table in training]:
        hint = "hold rows out of training: `data.validation=OTHER.jsonl`"
        raise Problem("data.validation and rows to train on are the same: the scores would mean nothing", hint, "bad_data")
    return training, held_out


def check_scorable(rows: list[Row], fields: list[str] | None) -> None:
    """A Problem where these rows cannot be scored: before they are answered, not after."""
    try:
        score.check_scorable(rows, fields)
    except ValueError as error:
        what, _, hint = str(error).partition("; ")
        raise Problem(what, _scorable_hint(rows) or hint, "bad_data") from error


def _scorable_hint(rows: list[Row]) -> str:
    if any(row.output is None for row in rows):
        return "make every answer an object, or score free text: `data.fields=null`"
    names = sorted({name for row in rows for name in row.output or ()})
    return f"the {len(rows)} scored rows have: `{files.fields_override(names)}`; `data.eval_rows` scores more" if names else ""


def empty_counts(rows: list[Row], fields: list[str] | None) -> dict[str, int]:
    """How many rows leave each field empty."""
    return {name: sum(not score.values((row.output or {}).get(name), name) for row in rows) for name in fields or ()}


def shared_instruction(rows: list[Row]) -> str:
    """The task's text without any row's own: the paragraphs that all prompts begin with, else the most frequent first paragraph."""
    prompts = [row.messages[-1]["content"] for row in rows]
    shared = os.path.commonprefix(prompts).rpartition("\n\n")[0]  # noqa: RUF071 (of texts, not of paths)
    openings = Counter(prompt.partition("\n\n")[0] for prompt in prompts if "\n\n" in prompt)
    return shared or next((text for text, times in openings.most_common(1) if times > 1), "")


def shared_turns(rows: list[Row]) -> list[dict[str, str]]:
    """The turns with which all prompts begin, such as a system turn; the user's last one is not among them."""
    alike = takewhile(lambda turns: all(turn == turns[0] for turn in turns), zip(*(row.messages[:-1] for row in rows), strict=False))
    return [turns[0] for turns in alike]


def shared_tools(rows: list[Row]) -> list[dict]:
    """The tools that all prompts offer."""
    return rows[0].tools if all(row.tools == rows[0].tools for row in rows) else []


def _table(setting: str, source: str, sha256: str | None, inputs: Path) -> Table:
    if source.startswith(paths.HUB):
        rows = _from_hub(source)
        return Table(rows, hashlib.sha256(json.dumps([asdict(row) for row in rows], sort_keys=True, default=str).encode()).hexdigest())
    path = _file(setting, source, sha256, inputs)
    try:
        return Table(print_notes(files.scan_or_raise(path, source), setting), _checked_sha256(path, source, sha256))
    except RowError as error:
        raise Problem(str(error), data_check_hint(setting, source), "bad_data") from error


def print_notes(scan: Scan, setting: str) -> list[Row]:
    """Print the notes about the rows, and return the rows."""
    for line in scan.notes.lines():
        screen.note(f"note     {setting}: {line}")
    return scan.rows


def data_check_hint(setting: str, source: str) -> str:
    """A hint: the command that shows all errors of a file."""
    return f"see what else is wrong: `inv data.check -- {quoting.setting('data.train' if setting == 'data.also' else setting, source)}`"


def _file(setting: str, source: str, sha256: str | None, inputs: Path) -> Path:
    sent = inputs / sha256 if sha256 else None
    return sent if sent and paths.is_file(sent) else paths.rows_file(source, setting)


def _checked_sha256(path: Path, source: str, sha256: str | None) -> str:
    actual = digest(path)
    if sha256 and actual != sha256:
        what = f"{source} has the sha256 {actual[:12]}..., and the run was made for {sha256[:12]}..."
        raise Problem(what, "put the file back as it was, or start a new run with `inv train`", "damaged_run")
    return actual


def _from_hub(source: str) -> list[Row]:
    _, name, *split = source.split(":")
    if not name or len(split) != 1:
        raise Problem(f"cannot read the dataset `{source}`", "write `hub:OWNER/NAME:SPLIT`, such as `hub:owner/notes:train`", "bad_data")
    from datasets import load_dataset

    from trainer.hub_errors import explained

    with explained(name, os.environ.get("HF_ENDPOINT"), "datasets/"):
        try:
            return print_notes(_scanned(load_dataset(name, split=split[0]), source), source)
        except RowError as error:
            raise Problem(f"{error.where}: {error.what}", error.hint, "bad_data") from error
        except (ValueError, FileNotFoundError) as error:  # an unknown split; a repository without data
            raise Problem(f"{source}: {str(error).splitlines()[0]}", "see the dataset's page for its splits", "bad_data") from error


def _scanned(table, source: str) -> Scan:
    floats = "float32" in str(table.features)  # Python would give each more digits than were written
    whole = arrow.rows(table.with_format("arrow")[:]) if floats else table
    described = table.features.to_dict()
    named = (arrow.with_class_names(raw, described) for raw in whole)
    scan = files.collect(((f"{source} row {number}", raw) for number, raw in enumerate(named, start=1)), source, columns=True)
    if scan.errors:
        raise scan.errors[0]
    return scan
