"""CSV as spreadsheets write it, cell by cell.

Read by rules of our own, because the csv module takes what it does not understand for text: a quote behind a space, a semicolon.
Cells are separated by what separates the names in the first line: a comma, a semicolon (Excel in most of Europe), a tab or a
bar; Excel's own first line `sep=;` says it. Spaces around a cell in quotes are not part of it, around any other they are.
"""

import re
from collections.abc import Iterator
from functools import cache

SEPARATORS = (",", ";", "\t", "|")
SEP_LINE = re.compile(r'"?sep=(.)"?[ \t]*(?:\r\n|\n|\r)', re.IGNORECASE)
# Names that a column of rows may have: whatever shows most of them separates the cells.
KNOWN_COLUMNS = {
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "messages",
    "conversations",
    "system",
    "history",
    "tools",
    "id",
    "meta",
}
SEPARATOR_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


class CellError(ValueError):
    """Quotes that make no cell; reading cannot go on behind them."""


Record = tuple[int, list[str] | CellError]  # the line where it begins, and its cells


def table(text: str) -> tuple[str, Iterator[Record]]:
    """What separates the cells, and the records, the names first."""
    sep_line = SEP_LINE.match(text)
    if sep_line:
        return sep_line[1], _records(text, sep_line[1], sep_line.end(), 2)
    separator = max(SEPARATORS, key=lambda candidate: _names(text, candidate))
    return separator, _records(text, separator, 0, 1)


def _names(text: str, separator: str) -> tuple[int, int]:
    """How many names of the first line are known, and how many there are."""
    names = next((cells for _, cells in _records(text, separator, 0, 1)), [])
    return (0, 0) if isinstance(names, CellError) else (len(KNOWN_COLUMNS & {name.strip() for name in names}), len(names))


@cache
def _cell(separator: str) -> re.Pattern:
    mark = re.escape(separator)
    space = "[ ]*" if separator == "\t" else "[ \\t]*"
    return re.compile(rf'{space}"([^"]*(?:""[^"]*)*)"{space}(?=[{mark}\r\n]|\Z)|([^{mark}\r\n]*)')


def _records(text: str, separator: str, position: int, line: int) -> Iterator[Record]:
    """Records that are not empty."""
    cell = _cell(separator)
    while position < len(text):
        first_line, cells, single_quoted = line, [], True
        while True:
            match = cell.match(text, position)
            quoted, bare = match.groups()
            if quoted is None and bare.lstrip(" \t").startswith('"'):
                yield first_line, CellError("a quote is not closed, or text follows the closing quote")
                return
            single_quoted = single_quoted and quoted is None and len(bare) > 1 and bare[0] == bare[-1] == "'"
            cells.append(bare if quoted is None else quoted.replace('""', '"'))
            line += len(re.findall(r"\r\n|\n|\r", quoted)) if quoted else 0
            position = match.end()
            if text[position : position + 1] != separator:
                break
            position += 1
        position += 2 if text.startswith("\r\n", position) else 1
        line += 1
        if single_quoted and len(cells) > 1:
            yield first_line, CellError("its cells are in single quotes, which would be learned")
        elif any(content.strip() for content in cells):
            yield first_line, cells
