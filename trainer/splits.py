"""Which file a split is, and its rows: for the verbs that look at data. Torch-free."""

import shlex
from pathlib import Path

from conf import paste
from conf.problem import Problem
from conf.schema import Data
from data.rows import Row, RowError, read

ROOT = Path(__file__).parents[1]
OWN = ("train", "validation")


def path(data: Data, split: str) -> Path:
    """The file of `train`, of `validation`, of another split that lies beside the latter (`test_both`), or of a path."""
    if split in OWN:
        return _named(f"data.{split}", getattr(data, split))
    folder = path(data, "validation").parent
    for place in (folder / f"{split}.jsonl", Path(split)):
        if place.is_file():
            return place
    raise Problem(
        f"there is no {split}.jsonl in {folder}, and no file {split}", f"see what there is: `ls {shlex.quote(str(folder))}`", "bad_data"
    )


def usable(data: Data, split: str) -> Path:
    """The same file, once all its rows could be read."""
    rows(data, split)
    return path(data, split)


def _named(setting: str, source: str) -> Path:
    hint = f"give another: `{setting}=FILE.jsonl`"
    if source.startswith("hub:"):
        raise Problem(f"{setting} is {source}, which only the trainer reads", hint, "bad_data")
    for place in (Path(source), ROOT / source):
        if place.is_file():
            return place
    raise Problem(f"{setting} names {source}, and there is no such file", hint, "bad_data")


def rows(data: Data, split: str, name: str | None = None) -> list[Row]:
    """The rows of that file, or the one whose id is `name`."""
    source = path(data, split)
    try:
        found = read(source)
    except RowError as error:
        raise Problem(
            str(error), f"see what else is wrong: `inv data.check -- {paste.setting('data.validation', source)}`", "bad_data"
        ) from error
    named = [row for row in found if name in (None, row.id)]
    if not named:
        raise Problem(f"{source} has no row {name}", f"its first one is {found[0].id}: `--id {found[0].id}`", "bad_data")
    return named
