"""What sets of rows are made of, as a table: one line a figure, one column a set."""

from collections.abc import Callable
from functools import partial

from data import vocabulary
from data.rows import Row

Figure = Callable[[list[Row]], str]


def table(sets: dict[str, list[Row]], fields: list[str] | None) -> list[list[str]]:
    """The table's lines, the first one with the sets' names. Figures that no set has are left out."""
    rows = [row for rows_of_set in sets.values() for row in rows_of_set]
    figures: dict[str, Figure] = {
        "rows": lambda rows_of_set: f"{len(rows_of_set):,}",
        "words of a text (least / median / most)": words,
        "instructions": lambda rows_of_set: f"{len({opening(row) for row in rows_of_set}):,}",
    }
    for name in fields or ():
        figures[f"{name}: empty"] = share(partial(is_empty, name))
        figures[f"{name}: values"] = partial(values, name)
        figures[f"{name}: most frequent"] = partial(frequent, name)
    for key in ("style", "split"):
        for name in sorted({row.meta[key] for row in rows if isinstance(row.meta.get(key), str)}):
            figures[f"{key}: {name}"] = share(partial(has_meta, key, name))
    for name in sorted({name for row in rows for name in row.phenomena}):
        figures[f"phenomenon: {name}"] = share(partial(has_phenomenon, name))
    return [["", *sets], *([what, *(figure(rows_of_set) for rows_of_set in sets.values())] for what, figure in figures.items())]


def text(lines: list[list[str]]) -> str:
    """The table for a terminal, its columns under each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pairs = (zip(line, widths, strict=True) for line in lines)
    return "\n".join(
        "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(pair)) for pair in pairs
    )


def words(rows: list[Row]) -> str:
    counts = sorted(len(row.text.split()) for row in rows)
    return f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"


def opening(row: Row) -> str:
    """What the prompt says before the row's own text."""
    whole = row.messages[-1]["content"]
    return whole.removesuffix(row.text) if whole != row.text else ""


def share(holds: Callable[[Row], bool]) -> Figure:
    return lambda rows: f"{sum(map(holds, rows)) / len(rows):.1%}"


def has_meta(key: str, name: str, row: Row) -> bool:
    return row.meta.get(key) == name


def has_phenomenon(name: str, row: Row) -> bool:
    return name in row.phenomena


def is_empty(name: str, row: Row) -> bool:
    return not vocabulary.items(row, name)


def values(name: str, rows: list[Row]) -> str:
    return f"{len(vocabulary.value_counts(rows, name)):,}"


def frequent(name: str, rows: list[Row]) -> str:
    """The share of rows that have the field's most frequent value."""
    counts = vocabulary.value_counts(rows, name)
    return f"{counts.most_common(1)[0][1] / len(rows):.1%}" if counts else "–"
