"""What is counted in each row that is scored: whole numbers, so that every figure is made of sums of them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from types import NoneType

from data import schema
from data.rows import Fact, Row
from data.scoring.bootstrap import Counts
from data.scoring.values import compared, gene_symbol, normalise, stage_group, values

PARTS = 1_000_000  # a row's token F1 is counted in millionths: whole numbers add up exactly
COARSE = {"stage_group": ("stage", stage_group), "gene_symbol": ("gene_mutation", gene_symbol)}


def counted(predictions: list[str], rows: list[Row], stopped: list[bool], fields: list[str] | None) -> list[Counts]:
    """What is counted in each row; every figure is made of sums of these."""
    if fields is None:
        return [_words(*prediction_and_row) for prediction_and_row in zip(predictions, rows, stopped, strict=True)]
    fits = _shape(rows, fields)
    ours = set(fields) == set(schema.fields())
    return [_facts(*prediction_and_row, fields, fits, ours) for prediction_and_row in zip(predictions, rows, stopped, strict=True)]


def _facts(prediction: str, row: Row, ended: bool, fields: list[str], fits: Callable[[dict], bool], ours: bool) -> Counts:
    answer = parse(prediction)
    pairs = {name: compared((answer or {}).get(name), row.output.get(name), name) for name in fields}
    predicted, expected = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    counts = {
        "rows": 1,
        "json_valid": int(answer is not None),
        "schema_valid": int(answer is not None and fits(answer)),
        "row_exact": int(answer is not None and predicted == expected),
        "stopped": int(ended),
    }
    for name in fields:
        counts |= _overlap(name, predicted[name], expected[name])
        silent, void = answer is not None and not predicted[name], not expected[name]
        counts |= {("both", name, None): int(silent and void), ("predicted", name, None): int(silent), ("expected", name, None): int(void)}
    for name, (source, coarser) in COARSE.items() if ours else ():
        counts |= _overlap(name, {coarser(value) for value in predicted[source]}, {coarser(value) for value in expected[source]})
    return counts | _evidence_counts(row, predicted, expected)


def _overlap(name: str, predicted: set[str], expected: set[str]) -> Counts:
    return {("both", name): len(predicted & expected), ("predicted", name): len(predicted), ("expected", name): len(expected)}


def _evidence_counts(row: Row, predicted: dict[str, set[str]], expected: dict[str, set[str]]) -> Counts:
    """How many predicted values the row's text does not mention, and how many of its distractors were predicted."""
    facts = [fact for fact in row.evidence or () if fact.field in predicted]
    mentioned, tagged = _pairs(facts), _pairs(fact for fact in facts if fact.status != "asserted")
    claimed, traps = _flat(predicted), tagged - _flat(expected)
    has_record = row.evidence is not None
    return {
        "supportable": has_record * len(claimed),
        "unsupported": has_record * len(claimed - mentioned),
        "laid": len(traps),
        "hit": len(claimed & traps),
    }


def _pairs(facts: Iterable[Fact]) -> set[tuple[str, str]]:
    return {(fact.field, value) for fact in facts for value in values(fact.value, fact.field)}


def _flat(answer: dict[str, set[str]]) -> set[tuple[str, str]]:
    return {(name, value) for name, field_values in answer.items() for value in field_values}


def _words(prediction: str, row: Row, ended: bool) -> Counts:
    predicted, expected = normalise(prediction), normalise(row.completion)
    return {
        "rows": 1,
        "exact": int(predicted == expected),
        "token_f1": round(PARTS * token_f1(predicted, expected)),
        "stopped": int(ended),
    }


def token_f1(predicted: str, expected: str) -> float:
    words = [Counter(re.findall(r"\w+|[^\w\s]", text)) for text in (predicted, expected)]
    whole = words[0].total() + words[1].total()
    return 2 * (words[0] & words[1]).total() / whole if whole else 1.0


def parse(prediction: str) -> dict | None:
    """The object that the whole prediction is, or None. No repair."""
    try:
        value = json.loads(prediction, parse_constant=_refuse)
    except (ValueError, RecursionError):  # RecursionError: a babbling model can open a thousand brackets
        return None
    return value if isinstance(value, dict) else None


def _shape(rows: list[Row], fields: list[str]) -> Callable[[dict], bool]:
    """What a schema-valid answer is: the shipped schema where the rows obey it, else the keys and types seen in the rows."""
    if set(fields) == set(schema.fields()) and all(schema.fits(row.output, schema.schema()) for row in rows):
        return lambda answer: schema.fits(answer, schema.schema())
    types = {name: {_kind(row.output.get(name)) for row in rows} for name in fields}
    if set(fields) == set(schema.fields()) and set().union(*types.values()) <= {str, NoneType}:  # flat answers: null says nothing
        types = {name: {str, NoneType} for name in fields}
    return lambda answer: set(answer) == set(fields) and all(_kind(answer[name]) in types[name] for name in fields)


def _kind(value: object) -> type:
    """The type of a value of JSON, where 85 is as much a number as 85.5."""
    return float if type(value) is int else type(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
