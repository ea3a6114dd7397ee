"""What is wrong with answers, grouped: by field, by kind, with an example each.

    format              the answer is no JSON object; or a date, a number or a list that says the right thing in another form
    invented            a value where the field is empty
    added               a value more than a list has
    missed              nothing where there is a value, or a value of a list that is lacking
    spelling            another spelling of the right value: case apart, at most a letter in five, or a part of its words
    unit                the right digits with another unit, currency or decimal point
    value               another value

Values of a list are paired with the missing ones that they are most like; objects are compared key by key, under `field.key`.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from difflib import SequenceMatcher

from data.scoring.amounts import amount
from data.scoring.count import parse
from data.scoring.values import compared, normalise, number_text

WHOLE = ""  # the field of what is wrong with an answer as a whole
KINDS = ("format", "invented", "added", "missed", "spelling", "unit", "value")
SHORT = 4  # letters
ALIKE = 0.8  # share of letters in common from which two texts are one in two spellings
DATE_PARTS = re.compile(r"\D+")


@dataclass(frozen=True)
class Miss:
    """A value that an answer has wrong."""

    row: str  # its id
    field: str
    kind: str
    expected: str  # as it is written; "" for nothing
    predicted: str
    in_text: bool | None = None  # whether the row's text holds what was predicted; None where nothing was


@dataclass(frozen=True)
class Group:
    """Misses of one field and kind."""

    field: str
    kind: str
    misses: list[Miss]

    @property
    def rows(self) -> int:
        return len({miss.row for miss in self.misses})

    @property
    def out_of_nowhere(self) -> int:
        """How many of the predicted values the texts do not hold."""
        return sum(miss.in_text is False for miss in self.misses)


def groups(misses: Iterable[Miss]) -> list[Group]:
    """The misses by field and kind, the most frequent first."""
    by_kind: dict[tuple[str, str], list[Miss]] = {}
    for miss in misses:
        by_kind.setdefault((miss.field, miss.kind), []).append(miss)
    found = [Group(field, kind, members) for (field, kind), members in by_kind.items()]
    return sorted(found, key=lambda group: (-len(group.misses), group.field, KINDS.index(group.kind)))


def of_row(row: str, text: str, answer: str, expected: dict, fields: list[str]) -> list[Miss]:
    """What is wrong with one answer; nothing where the scorer takes it as exact."""
    parsed = parse(answer)
    if parsed is None:
        return [Miss(row, WHOLE, "format", json.dumps(expected, ensure_ascii=False), answer)]
    folded = _core(text)
    return [miss for name in fields for miss in _of_field(row, folded, name, parsed.get(name), expected.get(name))]


def _of_field(row: str, text: str, name: str, predicted: object, expected: object) -> Iterator[Miss]:
    answered, wanted = compared(predicted, expected, name)
    if answered == wanted:
        return
    wrong = [item for item in _items(predicted) if (said := compared(item, expected, name)[0]) and not said & wanted]
    lacking = [item for item in _items(expected) if (said := compared(predicted, item, name)[1]) and not said & answered]
    if not (wrong or lacking):  # a list in one text, whose parts differ
        wrong, lacking = sorted(answered - wanted), sorted(wanted - answered)
    for mine, right in _pairs(wrong, lacking):
        if isinstance(mine, dict) and isinstance(right, dict):
            keys = dict.fromkeys([*right, *mine])
            yield from (miss for key in keys for miss in _of_field(row, text, f"{name}.{key}", mine.get(key), right.get(key)))
            continue
        kind = _kind(mine, right, bool(wanted))
        yield Miss(row, name, kind, _shown(right), _shown(mine), None if mine is None else _core(_shown(mine)) in text)


def _items(value: object) -> list:
    return value if isinstance(value, list) else [value]


def _pairs(wrong: list, lacking: list) -> Iterator[tuple[object, object]]:
    """Each wrong value with the lacking one that it is most like; None for what is left on either side."""
    left = list(lacking)
    for item in wrong:
        right = max(left, key=lambda other: _likeness(item, other), default=None)
        if right is not None:
            left.remove(right)
        yield item, right
    yield from ((None, item) for item in left)


def _likeness(first: object, second: object) -> float:
    if isinstance(first, dict) and isinstance(second, dict):
        shared = [key for key in first if key in second]
        return sum(compared(first[key], second[key])[0] == compared(first[key], second[key])[1] for key in shared)
    return SequenceMatcher(None, _shown(first), _shown(second), autojunk=False).ratio()


def _kind(predicted: object, expected: object, has_values: bool) -> str:
    if expected is None:
        return "added" if has_values else "invented"
    if predicted is None:
        return "missed"
    mine, right = normalise(_shown(predicted)), normalise(_shown(expected))
    if _same_date(mine, right) or _same_number(mine, right):
        return "format"
    if _core(mine) == _core(right):
        return "spelling" if _signs(mine) == _signs(right) else "unit" if _digits(mine) else "value"
    if _digits(mine) and (_digits(mine) == _digits(right) or _shifted(mine, right)):
        return "unit"
    if not (_digits(mine) or _digits(right)) and _spelled_alike(mine, right):
        return "spelling"
    return "value"


def _spelled_alike(first: str, second: str) -> bool:
    words, others = set(re.findall(r"\w+", first)), set(re.findall(r"\w+", second))
    part = bool(words and others) and (words < others or others < words)
    long = min(len(first), len(second)) >= SHORT  # a letter more makes another code of II
    return part or (long and SequenceMatcher(None, _core(first), _core(second), autojunk=False).ratio() >= ALIKE)


def _same_date(first: str, second: str) -> bool:
    """Whether both are one day, each written in a way that dates are written."""
    return bool(_dates(first) & _dates(second))


def _dates(text: str) -> set[date]:
    """The days that a text of three numbers may mean: year first, or last with day and month in either order."""
    parts = DATE_PARTS.split(text.strip())
    if len(parts) != 3 or not all(part.isdecimal() and len(part) <= 4 for part in parts):
        return set()
    first, middle, last = map(int, parts)
    orders = [(first, middle, last)] if len(parts[0]) == 4 else [(last, middle, first), (last, first, middle)]
    return {day for order in orders if (day := _day(*order))}


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year + 2000 * (year < 100), month, day)
    except ValueError:
        return None


def _same_number(first: str, second: str) -> bool:
    """Whether both are one number with other signs between its digits: 1,200 and 1200, 6,4 and 6.40; or one sum of money: 6,40 € and
    EUR 6.40."""
    mine, right = amount(first), amount(second)
    money = mine and right and mine.currency == right.currency != "" and number_text(mine.number) == number_text(right.number)
    return bool(money or _numbers(first) & _numbers(second))


def _numbers(text: str) -> set[str]:
    if not re.fullmatch(r"-?\d[\d.,' ]*", text):
        return set()
    plain = re.sub(r"[' ]", "", text)
    readings = {plain.replace(",", ""), plain.replace(".", "").replace(",", "."), plain}
    if re.fullmatch(r"-?\d+[.,]\d{1,2}", plain):  # no thousands: 6,40
        readings = {plain.replace(",", ".")}
    return {number for reading in readings if (number := number_text(reading))}


def _shifted(first: str, second: str) -> bool:
    """Whether two numbers differ in the decimal point only."""
    digits = [re.sub(r"^0+|0+$", "", _digits(text)) for text in (first, second)]
    return digits[0] == digits[1] != ""


def _digits(text: str) -> str:
    return "".join(re.findall(r"\d", text))


def _signs(text: str) -> list[str]:
    """The signs that mean something: a decimal point, a comparison, the sign of ER+; the hyphen of PD-L1 does not."""
    return re.findall(r"[%<>=]|(?<=\d)[.,](?=\d)|(?<=\w)[+-](?!\w)", text)


def _core(text: str) -> str:
    """Letters and digits alone, without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text).casefold() if sign.isalnum())


def _shown(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
