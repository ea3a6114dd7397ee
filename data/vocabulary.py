"""The values that a set's labels use: how many, how often, and which look like spellings of one and the same."""

import json
import re
from collections import Counter, defaultdict

from data.rows import Row
from data.scoring.values import JOINTS, normalise

PARTS = re.compile(f"{JOINTS.pattern}|/", re.IGNORECASE)
# Comparisons carry meaning, and so does the sign of "ER+"; the hyphen of "PD-L1" does not.
WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+|[<>≤≥=%]|(?<=\w)[+-](?!\w)")


def items(row: Row, field: str) -> list[str]:
    """The values of a row's field as they are written: a list's members, or the one value; none for null, "" and []."""
    value = (row.output or {}).get(field)
    members = value if isinstance(value, list) else [value]
    texts = (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in members if item is not None)
    return [text for text in texts if text.strip()]


def value_counts(rows: list[Row], field: str) -> Counter:
    """How often each value of the field is written."""
    return Counter(item for row in rows for item in items(row, field))


def variants(counts: Counter) -> list[list[tuple[str, int]]]:
    """Groups of values that differ only in case, space, punctuation or order, the most frequent group first."""
    groups = defaultdict(list)
    for value, count in counts.most_common():
        groups[_core(value)].append((value, count))
    several = [group for group in groups.values() if len(group) > 1]
    return sorted(several, key=lambda group: -sum(count for _, count in group))


def _core(value: str) -> str:
    """What is left of a value when its spelling is taken away: its words run together, its parts in one order."""
    return "; ".join(sorted("".join(WORD.findall(normalise(part))) for part in PARTS.split(value) if part.strip())) or normalise(value)
