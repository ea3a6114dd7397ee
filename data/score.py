"""How good a list of predictions is: one scorer for trainer, report, card and baselines.

Extraction (the rows' outputs are objects, `fields` names their keys). A prediction counts only if the whole of it is one
JSON object; nothing is repaired, and text that is no such object answers every field with nothing. Each field is compared
as a set of normalised strings, P predicted and E expected (see `values`), so null, "" and [] are all the empty set, and
empty is an answer: both empty is right. With sums over all rows:

    precision     sum |P & E| / sum |P|                 of one field
    recall        sum |P & E| / sum |E|
    f1            2 sum |P & E| / (sum |P| + sum |E|)
    support       sum |E|
    macro_f1      mean of the fields' f1
    row_exact     share of rows that are valid JSON and have P = E in every field
    hallucination share of the predicted values of all fields that were not expected:
                  sum |P - E| / sum |P|; it counts values in fields that should be empty as well as wrong values
    json_valid    share of predictions that are one JSON object
    schema_valid  share of predictions with exactly the right keys, each with a value of the right type
    stopped       share of predictions that ended by themselves (not cut off at the length limit)

A quotient 0/0 is 1 for precision, recall and f1 when nothing was expected and nothing predicted, else 0; hallucination
without predicted values is None: who says nothing is not thereby careful.

Text (`fields` is None): `exact` is the share of predictions equal to the completion after normalisation; `token_f1` is the
mean over rows of 2 |P & E| / (|P| + |E|) over the multisets of words.

Intervals are 95 % bootstrap percentiles: 1,000 resamples of the rows, the same for the same seed.
"""

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from data import schema
from data.rows import Row

RESAMPLES = 1000
PARTS = 1_000_000  # a row's token F1 is counted in millionths: whole numbers add up exactly


def score(predictions: list[str], rows: list[Row], stopped: list[bool], fields: list[str] | None, seed: int = 0) -> dict:
    """The scores of `predictions`, one text per row, as shares from 0 to 1 with 95 % intervals."""
    _check(predictions, rows, stopped, fields)
    if fields is None:
        return _text_score(predictions, rows, stopped, seed)
    return _extraction_score(predictions, rows, stopped, fields, seed)


def values(field_value: object) -> set[str]:
    """The set of normalised strings that a field's value stands for: none for null, "" and [].

    A string is one value, compared whole; this is the place to split it into several and to map aliases.
    """
    items = field_value if isinstance(field_value, list) else [field_value]
    texts = (item if isinstance(item, str) else json.dumps(item, sort_keys=True, ensure_ascii=False) for item in items if item is not None)
    return {text for text in map(normalise, texts) if text}


def normalise(text: str) -> str:
    """`text` without the differences that carry no meaning: letter case, white space, Unicode compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def parse(prediction: str) -> dict | None:
    """The object that the whole prediction is, or None. No repair."""
    try:
        value = json.loads(prediction, parse_constant=_refuse)
    except (ValueError, RecursionError):  # RecursionError: a babbling model can open a thousand brackets
        return None
    return value if isinstance(value, dict) else None


def _extraction_score(predictions: list[str], rows: list[Row], stopped: list[bool], fields: list[str], seed: int) -> dict:
    fits = _shape(rows, fields)
    counts = []
    for prediction, row, ended in zip(predictions, rows, stopped, strict=True):
        answer = parse(prediction)
        pairs = [(values((answer or {}).get(name)), values(row.output.get(name))) for name in fields]
        exact = answer is not None and all(found == expected for found, expected in pairs)
        shares = [answer is not None, answer is not None and fits(answer), exact, ended]
        counts.append(shares + [len(part) for found, expected in pairs for part in (found & expected, found, expected)])

    def figures(totals: list[int]) -> dict[str, float | None]:
        named = dict(zip(("json_valid", "schema_valid", "row_exact", "stopped"), (total / len(rows) for total in totals), strict=False))
        both, found, expected = totals[4::3], totals[5::3], totals[6::3]
        f1 = [_ratio(2 * b, f + e, void=1.0) for b, f, e in zip(both, found, expected, strict=True)]
        return named | {"macro_f1": sum(f1) / len(f1), "hallucination": _ratio(sum(found) - sum(both), sum(found), void=None)}

    totals = [sum(column) for column in zip(*counts, strict=True)]
    return {
        "kind": "extraction",
        "rows": len(rows),
        **figures(totals),
        "fields": {name: _field(*totals[start : start + 3]) for name, start in zip(fields, range(4, len(totals), 3), strict=True)},
        "intervals": _intervals(counts, figures, ("macro_f1", "row_exact", "json_valid"), seed),
    }


def _field(both: int, found: int, expected: int) -> dict[str, float]:
    void = 0.0 if found or expected else 1.0
    return {
        "precision": _ratio(both, found, void),
        "recall": _ratio(both, expected, void),
        "f1": _ratio(2 * both, found + expected, void),
        "support": expected,
    }


def _text_score(predictions: list[str], rows: list[Row], stopped: list[bool], seed: int) -> dict:
    counts = []
    for prediction, row, ended in zip(predictions, rows, stopped, strict=True):
        found, expected = normalise(prediction), normalise(row.completion)
        counts.append([found == expected, ended, round(PARTS * _token_f1(found, expected))])

    def figures(totals: list[int]) -> dict[str, float | None]:
        exact, ended, overlap = (total / len(rows) for total in totals)
        return {"exact": exact, "token_f1": overlap / PARTS, "stopped": ended}

    totals = [sum(column) for column in zip(*counts, strict=True)]
    intervals = _intervals(counts, figures, ("exact", "token_f1"), seed)
    return {"kind": "text", "rows": len(rows), **figures(totals), "intervals": intervals}


def _token_f1(found: str, expected: str) -> float:
    words = [Counter(re.findall(r"\w+|[^\w\s]", text)) for text in (found, expected)]
    return _ratio(2 * (words[0] & words[1]).total(), words[0].total() + words[1].total(), void=1.0)


def _intervals(counts: list[list[int]], figures: Callable[[list[int]], dict[str, float]], names: tuple[str, ...], seed: int) -> dict:
    """For each named figure the bounds between which 95 % of its values over resampled rows lie."""
    # All counts of a row live side by side in one long integer, so one sum() adds every column of a resample.
    width = (len(counts) * max(map(max, counts))).bit_length() + 1
    packed = [sum(count << (width * column) for column, count in enumerate(row)) for row in counts]
    mask, shifts = (1 << width) - 1, [width * column for column in range(len(counts[0]))]
    draw = random.Random(seed)
    samples = []
    for _ in range(RESAMPLES):
        total = sum(draw.choices(packed, k=len(packed)))
        samples.append(figures([total >> shift & mask for shift in shifts]))
    low, high = round(0.025 * RESAMPLES), round(0.975 * RESAMPLES) - 1
    ordered = {name: sorted(sample[name] for sample in samples) for name in names}
    return {name: [column[low], column[high]] for name, column in ordered.items()}


def _shape(rows: list[Row], fields: list[str]) -> Callable[[dict], bool]:
    """What a schema-valid answer is: the shipped schema where the rows obey it, else the keys and types seen in the rows."""
    if set(fields) == set(schema.fields()) and all(schema.fits(row.output, schema.schema()) for row in rows):
        return lambda answer: schema.fits(answer, schema.schema())
    seen = {name: {type(row.output.get(name)) for row in rows} for name in fields}
    return lambda answer: set(answer) == set(fields) and all(type(answer[name]) in seen[name] for name in fields)


def _check(predictions: list[str], rows: list[Row], stopped: list[bool], fields: list[str] | None) -> None:
    if not rows:
        raise ValueError("there are no rows to score; give at least one")
    if not len(predictions) == len(rows) == len(stopped):
        raise ValueError(f"{len(predictions)} predictions and {len(stopped)} stop flags for {len(rows)} rows; give one of each per row")
    if fields is None:
        return
    if not fields or len(set(fields)) < len(fields):
        raise ValueError(f"the fields to score are {fields}; name each field once, or None for free text")
    for row in rows:
        if row.output is None:
            raise ValueError(f"row {row.id} has no JSON object as its answer; score it as free text (no fields)")
    absent = [name for name in fields if not any(name in row.output for row in rows)]
    if absent:
        raise ValueError(f"no row's answer has the field {absent[0]!r}; the first row has {', '.join(rows[0].output)}")


def _ratio(part: float, whole: float, void: float | None) -> float | None:
    return part / whole if whole else void


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
