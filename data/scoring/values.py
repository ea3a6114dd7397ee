"""What a field of an answer says, whatever way it is written down: a set of normalised strings.

Case, white space, Unicode compatibility forms and the many dashes carry no meaning. Nothing else is mapped: the shipped labels
are canonical, so "Keytruda" where `pembrolizumab` is asked for is a wrong answer, not another spelling of the right one.

The four list fields of the shipped task may also be flat strings, as in files that write {"treatment": "FOLFOX; bevacizumab"}.
Such a string is split at `;` `,` ` and ` ` plus ` and `+`, but not inside brackets, not at the comma of 1,200 and not at the
plus of "ER+"; `none` as an item is nothing. Every other field's string is one value, compared whole.

Numbers are compared by what they come to: 6.4, 6.40 and 64e-1 are one value. Text that is a number is one only beside a number: "6.40" and
"6,40 €" are what 6.4 says, but "1.10" and "1.1" are two versions of a program. Dates are compared as they are written. An object is its
keys and what each says, in any order; a key that says nothing is as good as absent.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from data.scoring.amounts import amount

LISTS = {"gene_mutation", "biomarker", "treatment", "metastasis_site"}  # the fields of schema.json that are lists
DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")  # NFKC leaves them apart
OUTSIDE_BRACKETS = r"(?![^()]*\))"
JOINTS = re.compile(rf"(?:;|,(?!\d{{3}}\b)|\s(?:and|plus|\+)\s|(?<=\w)\+(?=\w)){OUTSIDE_BRACKETS}", re.IGNORECASE)
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
STAGE = re.compile(r"(?:stage )?(0|iv|i{1,3})(?:[abc]\d?)?")


Path = tuple[str, ...]  # the keys of objects that lead to a value


def values(field_value: object, name: str = "") -> set[str]:
    """The set of normalised strings that the value of the field `name` stands for: none for null, "" and []."""
    return _values(field_value, name, frozenset())


def compared(predicted: object, expected: object, name: str = "") -> tuple[set[str], set[str]]:
    """The same of an answer and of what was expected, where text beside a number is a number, too."""
    numbers = frozenset([*_number_paths(predicted), *_number_paths(expected)])
    return _values(predicted, name, numbers), _values(expected, name, numbers)


def _values(field_value: object, name: str, numbers: frozenset[Path]) -> set[str]:
    if isinstance(field_value, str) and name in LISTS:
        return {text for text in map(normalise, JOINTS.split(field_value)) if text not in ("", "none")}
    items = field_value if isinstance(field_value, list) else [field_value]
    return {text for text in (_text(item, (), numbers) for item in items) if text}


def _text(value: object, path: Path, numbers: frozenset[Path]) -> str:
    """One value as a normalised string; "" where it says nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return (number_said(value) if path in numbers else None) or normalise(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(json.dumps(value)) or json.dumps(value)
    if isinstance(value, dict):
        said = {normalise(key): text for key, item in value.items() if (text := _text(item, (*path, key), numbers))}
        return json.dumps(said, sort_keys=True, ensure_ascii=False) if said else ""
    if isinstance(value, list):
        said_items = [text for item in value if (text := _text(item, path, numbers))]
        return json.dumps(said_items, ensure_ascii=False) if said_items else ""
    return normalise(json.dumps(value))


def _number_paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Where numbers stand."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from _number_paths(item, (*path, key))
    for item in value if isinstance(value, list) else ():
        yield from _number_paths(item, path)


def number_said(text: str) -> str | None:
    """The number that a text says where one is asked for, with currency and grouping or without; None where it says none."""
    said = number_text(text) or ((written := amount(text)) and number_text(written.number))
    return said or None


def number_text(text: str) -> str | None:
    """A number of JSON in its shortest form, without an exponent; None for any other text, such as 007."""
    if not NUMBER.fullmatch(text.strip()):
        return None
    try:
        number = Decimal(text.strip()).normalize()
    except InvalidOperation:
        return None
    return f"{number + 0:f}" if abs(number.adjusted()) < 40 else str(number)


def normalise(text: str) -> str:
    """`text` without the differences that carry no meaning: letter case, white space, dashes, Unicode compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(DASHES).casefold().split())


def stage_group(value: str) -> str:
    """The group of a normalised stage: "iii" for "iiia"; what is no stage stays as it is."""
    match = STAGE.fullmatch(value)
    return match[1] if match else value


def gene_symbol(value: str) -> str:
    """The gene of a normalised alteration: "egfr" for "egfr exon 19 deletion"."""
    return value.split()[0]
