"""What a JSONL, JSON, CSV or Parquet file holds, record by record, before anyone asks whether it is a row.

A record that cannot be decoded is yielded as the `RowError` that says so, and reading goes on behind it.

CSV has only text: an empty cell is an absent value, `NA` and `7` stay text, and the cells of `messages` and other
nested columns are JSON. Parquet needs pyarrow, which the trainer has and a laptop may lack. JSON and CSV may be packed: .gz, .zst.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from data.readers import arrow, cells, numbers, text

NESTED = {"messages", "meta", "conversations", "history", "tools"}  # columns that hold more than text
DEEPEST = 64  # levels of a row
UNPACKED = 8 * 2**30  # bytes that a Parquet file may come to
ONE_OBJECT = "put one whole JSON object on each line"


class RowError(ValueError):
    """A row that cannot be used: "train.jsonl:17: `output` is a number (3); make it an object or a string"."""

    def __init__(self, where: str, what: str, hint: str):
        super().__init__(f"{where}: {what}; {hint}")
        self.where = where
        self.what = what
        self.hint = hint


def describe(value: object) -> str:
    """A value's type, with as much of the value as fits a line."""
    names = {type(None): "missing or null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    if isinstance(value, numbers.WrittenNumber):
        return f"a number ({value.written[:40]})"
    if isinstance(value, arrow.Foreign):
        return f"a value of the type {value.kind}"
    kind = "an object" if isinstance(value, dict) else names.get(type(value), f"a {type(value).__name__}")
    if value is None or isinstance(value, dict):
        return kind
    as_json = json.dumps(value, ensure_ascii=False, default=str)
    return f"{kind} ({as_json if len(as_json) <= 40 else as_json[:37] + '...'})"


Record = tuple[str, object]  # "file:line", and a value or a RowError


def kind(name: str) -> str | None:
    """The ending that says how a file of this name is read; None for one that cannot be."""
    path = Path(name)
    packed = path.suffix.lower() in text.COMPRESSED
    ending = Path(path.stem if packed else name).suffix.lower()
    return ending if ending in READERS and not (packed and ending == ".parquet") else None


def records(path: Path, name: str) -> Iterator[Record]:
    """What the file holds, in its order. The end of `name`, as its owner calls it, says of which kind it is."""
    read = READERS.get(kind(name) or "")
    if read is None:
        what = f"it is none of {', '.join(READERS)}, or one of the first four packed as {', '.join(text.COMPRESSED)}"
        yield name, RowError(name, what, "write the rows as JSON Lines, one object a line")
        return
    try:
        yield from read(path, name)
    except text.TextError as error:
        yield name, _row_error(error, name)
    except Exception as error:
        if (what := text.unpack_error(error)) is None:
            raise
        yield name, RowError(name, what, "pack it again, or fetch it again")


def _row_error(error: text.TextError, name: str) -> RowError:
    return RowError(name if error.line is None else f"{name}:{error.line}", error.what, error.hint)


def _jsonl(path: Path, name: str) -> Iterator[Record]:
    begun = False
    for number, line in enumerate(_single(text.lines(path, name)), start=1):
        where = f"{name}:{number}"
        if isinstance(line, text.TextError):
            yield where, _row_error(line, name)
        elif line.strip() and not begun and line.lstrip().startswith(b"["):
            listed = re.sub(r"\.jsonl(?=(\.gz|\.zst)?$)", ".json", name)
            hint = ONE_OBJECT if listed == name else f"call it so: `mv {shlex.quote(name)} {shlex.quote(listed)}`, or {ONE_OBJECT}"
            yield where, RowError(where, "the file begins as one JSON list, which a .json holds, not JSON Lines", hint)
            return
        elif line.strip():
            begun = True
            yield where, _line(line, where, name)


def _single(lines: Iterator[bytes | text.TextError]) -> Iterator[bytes | text.TextError]:
    """The lines, also where only CR ends them: it never stands in JSON's text."""
    for line in lines:
        if isinstance(line, text.TextError) or b"\r" not in line:
            yield line
        else:
            yield from line.replace(b"\r\n", b"\n").removesuffix(b"\r").split(b"\r")


def _line(line: bytes, where: str, name: str) -> object:
    try:
        return _json(line.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        return _row_error(text.decode_error(error, int(where.rpartition(":")[2]), name), name)


def _json(written: str, where: str, what: str = "the line", hint: str = ONE_OBJECT) -> object:
    try:
        value = numbers.loads(written, _object)
    except DuplicateKeyError as error:
        return RowError(where, f"{what} has the key `{error}` twice", "rename or remove one of them")
    except (ValueError, RecursionError) as error:
        return RowError(where, f"{what} is not JSON ({error})", hint)
    if "\\u" not in written and max(written.count("["), written.count("{")) <= DEEPEST:
        return value
    return _unreadable_value(value, where) or value


class DuplicateKeyError(ValueError):
    """A key that an object has twice: whichever is taken, the other one is lost."""


def _object(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise DuplicateKeyError(next(name for name in names if names.count(name) > 1))
    return values


def _unreadable_value(value: object, where: str) -> RowError | None:
    """What no text can hold, or no reader follow: half a character, values nested without end."""
    stack = [("", value, 0)]
    while stack:
        path, container, depth = stack.pop()
        if depth > DEEPEST:
            return RowError(where, f"`{path[:60]}...` is nested more than {DEEPEST} deep", "flatten it, or write it as text")
        items = container.items() if isinstance(container, dict) else enumerate(container) if isinstance(container, list) else ()
        for key, item in items:
            name = f"{path}[{key}]" if isinstance(container, list) else f"{path}.{key}".lstrip(".")
            if isinstance(key, str) and (surrogate := text.lone_surrogate(key)):
                return RowError(
                    where, f"a key in `{path or 'the row'}` holds half a character ({surrogate})", "write the whole one, or take it out"
                )
            if isinstance(item, str) and "\0" in item:
                return RowError(where, f"`{name}`: {text.NUL}", "take it out")
            if isinstance(item, str) and (surrogate := text.lone_surrogate(item)):
                return RowError(where, f"`{name}` holds half a character ({surrogate})", "write the whole one, or take it out")
            stack.append((name, item, depth + 1))
    return None


def _json_file(path: Path, name: str) -> Iterator[Record]:
    """A JSON file with a list of rows, or JSON Lines in a file called .json: datasets have both."""
    value = _json(text.read(path, name), name, "the file", "write the rows as JSON Lines, one object a line")
    if isinstance(value, RowError) and "Extra data" in value.what:
        yield from _jsonl(path, name)
        return
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        yield name, value if isinstance(value, RowError) else RowError(name, "the file is no list of rows", ONE_OBJECT)
        return
    yield from ((f"{name} row {number}", row) for number, row in enumerate(value, start=1))


def _csv(path: Path, name: str) -> Iterator[Record]:
    separator, csv_records = cells.table(text.read(path, name))
    names: list[str] = []
    for line, record in csv_records:
        where = f"{name}:{line}"
        if isinstance(record, cells.CellError):
            separator_name = cells.SEPARATOR_NAMES.get(separator, repr(separator))
            hint = f'put cells with {separator_name}, quotes or line ends in "...", and write each quote within as ""'
            yield where, RowError(where, f"the line is not CSV ({record})", hint)
        elif names == [cell.strip() for cell in record]:
            yield where, RowError(where, "the line holds the names of the columns once more", "remove it")
        elif names:
            yield where, _csv_row(names, record, where, separator)
        else:
            names = [cell.strip() for cell in record]
            if duplicate := next((cell for cell in names if cell and names.count(cell) > 1), None):
                yield where, RowError(where, f"the first line names the column `{duplicate}` twice", "rename or remove one of them")
                return


def _csv_row(names: list[str], record: list[str], where: str, separator: str) -> object:
    if len(record) > len(names) and any(cell.strip() for cell in record[len(names) :]):
        what = f"the line has {len(record)} cells, and the first line names {len(names)}"
        return RowError(where, what, f'put cells with {cells.SEPARATOR_NAMES.get(separator, repr(separator))} in "..."')
    row: dict = {key: written for key, written in zip(names, record, strict=False) if written}
    for key in row.keys() & NESTED:
        row[key] = _json(row[key], where, f"`{key}`", "write the cell as JSON, or leave it empty")
    return next((value for value in row.values() if isinstance(value, RowError)), row)


def _parquet(path: Path, name: str) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        yield name, RowError(name, "Parquet cannot be read without pyarrow", "`pip install pyarrow`, or save the rows as JSON Lines")
        return
    try:
        metadata = parquet.read_metadata(path)
        if sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)) > UNPACKED:
            yield name, RowError(name, f"the file comes to more than {UNPACKED // 2**30} GiB", "make several files of it")
            return
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if duplicate := next((column for column in names if names.count(column) > 1), None):
            yield name, RowError(name, f"the file has the column `{duplicate}` twice", "rename or remove one of them")
            return
        described = arrow.features(file.schema_arrow.metadata)
        rows = [arrow.with_class_names(row, described) for row in arrow.rows(file.read())]
    except (ArrowException, OSError, UnicodeDecodeError, ValueError, OverflowError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = (
            "the file is not Parquet"
            if "magic bytes" in reason or "too small" in reason or "size is" in reason
            else "the file cannot be read"
        )
        yield name, RowError(name, f"{what} ({reason})", "write it again, fetch it again, or save the rows as JSON Lines")
        return
    for number, row in enumerate(rows, start=1):
        yield f"{name} row {number}", row


READERS = {".jsonl": _jsonl, ".json": _json_file, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
