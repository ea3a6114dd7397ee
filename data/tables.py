"""What a JSONL, CSV or Parquet file holds, record by record, before anyone asks whether it is a row.

A record that cannot be decoded is yielded as the `RowError` that says so, and reading goes on behind it.

CSV has only text: an empty cell is an absent value, `NA` and `7` stay the words they are, and the cells of `messages` and `meta`
are JSON. Parquet needs pyarrow, which the trainer has and a laptop may lack.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

NESTED = {"messages", "meta"}  # columns that hold more than text
LONGEST_CELL = 2**31 - 1  # characters; the csv module stops at 131,072 by itself, and a document may be longer


class RowError(ValueError):
    """A row that cannot be used: "train.jsonl:17: `output` is a number (3); make it an object or a string"."""

    def __init__(self, where: str, what: str, mend: str):
        super().__init__(f"{where}: {what}; {mend}")
        self.where = where
        self.what = what
        self.mend = mend


Record = tuple[str, object]  # "file:line", and what stands there: a value or a RowError


def records(path: Path, name: str) -> Iterator[Record]:
    """What the file holds, in its order. The end of `name`, as its owner calls it, says of which kind it is."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    read = readers.get(Path(name).suffix)
    if read is None:
        yield name, RowError(name, f"it is none of {', '.join(readers)}", "write the rows as JSON Lines, one object a line")
    else:
        yield from read(path, name)


def _jsonl(path: Path, name: str) -> Iterator[Record]:
    # Not splitlines(): U+2028 and others may stand inside a JSON string, where they end no line.
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield f"{name}:{number}", _line(line, f"{name}:{number}")


def _line(line: bytes, where: str) -> object:
    try:
        return _json(line.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        return RowError(where, f"byte 0x{line[error.start]:02x} is not UTF-8", "save the file as UTF-8")


def _json(text: str, where: str, what: str = "the line", mend: str = "put one whole JSON object on each line") -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return RowError(where, f"{what} is not JSON ({error})", mend)


def _csv(path: Path, name: str) -> Iterator[Record]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        yield f"{name}:{number}", RowError(f"{name}:{number}", f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8")
        return
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    while True:
        where = f"{name}:{reader.line_num + 1}"  # where the record begins: a cell may hold line ends
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield where, RowError(where, f"the line is not CSV ({error})", 'put cells with commas, quotes or line ends in "..."')
            return
        if cells and names:
            yield where, _named(names, cells, where)
        names = names or cells


def _named(names: list[str], cells: list[str], where: str) -> object:
    if len(cells) > len(names):
        what = f"the line has {len(cells)} cells, and the first line names {len(names)}"
        return RowError(where, what, 'put cells with commas in "..."')
    row: dict = {key: text for key, text in zip(names, cells, strict=False) if text}
    for key in row.keys() & NESTED:
        row[key] = _json(row[key], where, f"`{key}`", "write the cell as JSON, or leave it empty")
    return next((value for value in row.values() if isinstance(value, RowError)), row)


def _parquet(path: Path, name: str) -> Iterator[Record]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        yield name, RowError(name, "Parquet cannot be read without pyarrow", "`pip install pyarrow`, or save the rows as JSON Lines")
        return
    try:
        table = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        yield (
            name,
            RowError(name, f"the file is not Parquet ({str(error).splitlines()[0]})", "write it again, or save the rows as JSON Lines"),
        )
        return
    for number, row in enumerate(table, start=1):
        yield f"{name} row {number}", row
