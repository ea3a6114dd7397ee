"""Which file a split is, and its rows: for the verbs that look at data. Torch-free."""

import shlex
from pathlib import Path

from conf import paths
from conf.problem import Problem
from conf.schema import Data
from data import rows as read
from data.rows import Row, RowError
from trainer.rows.rows import data_check_hint

OWN = ("train", "validation")


def path(data: Data, split: str) -> Path:
    """The file of `train`, of `validation`, of another split in the same folder (`test_both`), or of a path."""
    return paths.resolve(source(data, split))


def source(data: Data, split: str) -> str:
    """The same, as a setting would name it."""
    if split in OWN:
        return _existing_source(f"data.{split}", getattr(data, split))
    validation = source(data, "validation")
    beside, typed = str(Path(validation).parent / f"{split}.jsonl"), paths.from_typed(split, Path.cwd())
    for candidate in (beside, typed):
        if paths.is_file(paths.resolve(candidate)):
            return candidate
    folder = paths.resolve(validation).parent
    raise Problem(
        f"there is no {split}.jsonl in {folder}, and no file {split}", f"see what there is: `ls {shlex.quote(str(folder))}`", "bad_data"
    )


def also(data: Data) -> dict[str, Path | None]:
    """The files of `data.also`; None for a dataset of the Hub, which only the trainer reads."""
    return {name: None if name.startswith(paths.HUB) else paths.resolve(_existing_source("data.also", name)) for name in data.also}


def checked_path(data: Data, split: str) -> Path:
    """The file, once all its rows could be read."""
    rows(data, split)
    return path(data, split)


def _existing_source(setting: str, source: str) -> str:
    if source.startswith(paths.HUB):
        raise Problem(f"{setting} is {source}, which only the trainer reads", f"give another: `{setting}=FILE.jsonl`", "bad_data")
    paths.rows_file(source, setting)
    return source


def rows(data: Data, split: str, name: str | None = None) -> list[Row]:
    """The rows of that file, or the one whose id is `name`."""
    file = source(data, split)
    try:
        all_rows = read.read(paths.resolve(file), file)
    except RowError as error:
        raise Problem(str(error), data_check_hint("data.validation", file), "bad_data") from error
    matching = [row for row in all_rows if name in (None, row.id)]
    if not matching:
        raise Problem(f"{file} has no row {name}", f"its first one is {all_rows[0].id}: `--id {shlex.quote(all_rows[0].id)}`", "bad_data")
    return matching
