"""The rows of a run: read from where its settings say, checked, and known by their sha256."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path

from conf import paths
from conf.problem import Problem
from conf.schema import Data
from conf.text import quoting
from data import rows as files
from data.readers import arrow
from data.rows import Row, RowError, Scan
from data.score import check
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
        raise Problem("data.validation and rows to train on are the same: the scores would tell nothing", hint, "bad_data")
    return training, held_out


def scorable(rows: list[Row], fields: list[str] | None) -> None:
    """Nothing, or the Problem that would come up when the model has answered these rows, and all is paid for."""
    try:
        check(rows, fields)
    except ValueError as error:
        what, _, hint = str(error).partition("; ")
        raise Problem(what, _mending(rows) or hint, "bad_data") from error


def _mending(rows: list[Row]) -> str:
    if any(row.output is None for row in rows):
        return "make every answer an object, or score free text: `data.fields=null`"
    known = sorted({name for row in rows for name in row.output})
    return f"the {len(rows)} scored rows have: `{files.fields_word(known)}`; `data.eval_rows` scores more" if known else ""


def instruction(rows: list[Row]) -> str:
    """What the task says without any row's own text: the paragraphs that all prompts begin with, else the first one most often seen."""
    prompts = [row.messages[-1]["content"] for row in rows]
    shared = os.path.commonprefix(prompts).rpartition("\n\n")[0]  # noqa: RUF071 (of texts, not of paths)
    openings = Counter(prompt.partition("\n\n")[0] for prompt in prompts if "\n\n" in prompt)
    return shared or next((text for text, times in openings.most_common(1) if times > 1), "")


def opening(rows: list[Row]) -> list[dict[str, str]]:
    """The turns with which all prompts begin, such as a system turn; the user's last one is not among them."""
    alike = takewhile(lambda turns: all(turn == turns[0] for turn in turns), zip(*(row.messages[:-1] for row in rows), strict=False))
    return [turns[0] for turns in alike]


def tools(rows: list[Row]) -> list[dict]:
    """The tools that all prompts offer."""
    return rows[0].tools if all(row.tools == rows[0].tools for row in rows) else []


def _table(setting: str, source: str, sha256: str | None, inputs: Path) -> Table:
    if source.startswith("hub:"):
        rows = _from_hub(source)
        return Table(rows, hashlib.sha256(json.dumps([asdict(row) for row in rows], sort_keys=True, default=str).encode()).hexdigest())
    path = _file(setting, source, sha256, inputs)
    try:
        return Table(told(files.usable(path, source), setting), _verified(path, source, sha256))
    except RowError as error:
        raise Problem(str(error), check_with(setting, source), "bad_data") from error


def told(found: Scan, setting: str) -> list[Row]:
    """The rows, once what is to be said about them is in the log."""
    for line in found.notes.lines():
        print(f"note     {setting}: {line}", flush=True)
    return found.rows


def check_with(setting: str, source: str) -> str:
    """A hint: what shows all that is wrong with a file."""
    return f"see what else is wrong: `inv data.check -- {quoting.setting('data.train' if setting == 'data.also' else setting, source)}`"


def _file(setting: str, source: str, sha256: str | None, inputs: Path) -> Path:
    for path in ([inputs / sha256] if sha256 else []) + [paths.resolve(source)]:
        if paths.is_file(path):
            return path
    raise Problem(f"{setting} names {source}, and there is no such file", f"give another: `{setting}=FILE.jsonl`", "bad_data")


def _verified(path: Path, source: str, sha256: str | None) -> str:
    found = digest(path)
    if sha256 and found != sha256:
        what = f"{source} has the sha256 {found[:12]}..., and the run was made for {sha256[:12]}..."
        raise Problem(what, "put the file back as it was, or start a new run with `inv train`", "damaged_run")
    return found


def _from_hub(source: str) -> list[Row]:
    _, name, *split = source.split(":")
    if not name or len(split) != 1:
        raise Problem(f"cannot read the dataset `{source}`", "write `hub:OWNER/NAME:SPLIT`, such as `hub:owner/notes:train`", "bad_data")
    from datasets import load_dataset

    from trainer.hub_errors import explained

    with explained(name, os.environ.get("HF_ENDPOINT"), "datasets/"):
        try:
            return told(_scanned(load_dataset(name, split=split[0]), source), source)
        except RowError as error:
            raise Problem(f"{error.where}: {error.what}", error.mend, "bad_data") from error
        except (ValueError, FileNotFoundError) as error:  # an unknown split; a repository without data
            raise Problem(f"{source}: {str(error).splitlines()[0]}", "see the dataset's page for its splits", "bad_data") from error


def _scanned(table, source: str) -> Scan:
    floats = "float32" in str(table.features)  # Python would give each more digits than it was written with
    whole = arrow.rows(table.with_format("arrow")[:]) if floats else table
    found = files.collect(((f"{source} row {number}", raw) for number, raw in enumerate(whole, start=1)), source, columns=True)
    if found.errors:
        raise found.errors[0]
    return found
