"""How good a list of predictions is: one scorer for trainer, report, card and baselines.

Extraction (the rows' outputs are objects, `fields` names their keys). A prediction counts only if the whole of it is one
JSON object; nothing is repaired, and text that is no such object answers every field with nothing. Each field is compared
as a set of normalised strings, P predicted and E expected (see `data.scoring.values`: numbers by what they come to, objects by key), so
null, "" and [] are all the empty set, and empty is an answer: both empty is right. With sums over all rows:

    precision     sum |P & E| / sum |P|                 of one field
    recall        sum |P & E| / sum |E|
    f1            2 sum |P & E| / (sum |P| + sum |E|)
    support       sum |E|
    empty_f1      2 #(P and E empty) / (#(P empty) + #(E empty)), counted over rows: is nothing said where nothing is?
                  Text that is no JSON object is not an empty answer. None of a field that is empty in no row: no model could fail
    macro_f1      mean of the fields' f1; the overall empty_f1 is the mean of theirs, where they have one
    row_exact     share of rows that are valid JSON and have P = E in every field
    hallucination share of the predicted values of all fields that were not expected:
                  sum |P - E| / sum |P|; it counts values in fields that should be empty as well as wrong values
    unsupported   share of the predicted values that the note does not mention at all: sum |P - M| / sum |P| over the rows whose
                  `meta.evidence` records what their text mentions, M being those values, whatever their status. It is the part of
                  `hallucination` that no misreading explains. The record stands in for an alias table: "hepatic" is in it as `liver`
    distractor_hit  share of the traps walked into: sum |P & D| / sum |D|, D being the values that `meta.evidence` tags with any
                  status but `asserted` (negated, planned, a relative's ...) and that are not expected
    json_valid    share of predictions that are one JSON object
    schema_valid  share of predictions with exactly the right keys, each with a value of the right type
    stopped       share of predictions that ended by themselves (not cut off at the length limit)

`secondary`, for the shipped fields only, forgives detail: `stage_group` compares stages without their letter, `gene_symbol`
genes without their alteration. `slices` gives rows, macro_f1 and row_exact by phenomenon, style and split where `meta` has
them (a row with two phenomena is in both), and by the length of the text.

A quotient 0/0 is 1 for precision, recall, f1 and empty_f1, as nothing was expected and nothing predicted; it is None for
hallucination, unsupported and distractor_hit: a model that predicts nothing does not earn a score.

Text (`fields` is None): `exact` is the share of predictions equal to the completion after normalisation; `token_f1` is the
mean over rows of 2 |P & E| / (|P| + |E|) over the multisets of words.

Intervals are 95 % bootstrap percentiles: 1,000 resamples of the rows, the same for the same seed. `difference` draws the same
rows for both sides, so an interval without 0 in it means that one side is better on rows like these.
"""

from bisect import bisect_left

from data.rows import Row
from data.scoring.bootstrap import Counts, intervals, resampled, total
from data.scoring.count import COARSE, PARTS, counted, parse
from data.scoring.values import compared, normalise, values

__all__ = ["check_scorable", "compared", "difference", "normalise", "parse", "resamples", "score", "values"]

BANDS = {50: "up to 50 words", 100: "51 to 100 words", 200: "101 to 200 words"}


def score(predictions: list[str], rows: list[Row], stopped: list[bool], fields: list[str] | None, seed: int = 0) -> dict:
    """The scores of `predictions`, one text per row, as shares from 0 to 1 with 95 % intervals."""
    _check_predictions(predictions, rows, stopped, fields)
    counts = counted(predictions, rows, stopped, fields)
    bounds = intervals(_headline_counts(counts, fields), lambda totals: _headline(totals, fields), seed)
    report = _text(total(counts)) if fields is None else _extraction(total(counts), fields, bounds)
    headline_bounds = {name: interval for name, interval in bounds.items() if isinstance(name, str)}
    return report | {"intervals": headline_bounds, "slices": _slices(counts, rows, fields)}


def difference(before: list[str], after: list[str], rows: list[Row], fields: list[str] | None, seed: int = 0) -> dict:
    """By how much `after` is better than `before` on the same rows: each headline figure's difference with its 95 % interval."""
    sides = []
    for predictions in (before, after):
        ended = [True] * len(predictions)
        _check_predictions(predictions, rows, ended, fields)
        sides.append(_headline_counts(counted(predictions, rows, ended, fields), fields))
    paired = [{(side, name): count for side, row in enumerate(pair) for name, count in row.items()} for pair in zip(*sides, strict=True)]

    def gain(totals: Counts) -> dict:
        old, new = (_headline({name: count for (side, name), count in totals.items() if side == index}, fields) for index in (0, 1))
        return {name: new[name] - old[name] for name in new}

    gains, bounds = gain(total(paired)), intervals(paired, gain, seed)
    figures = {name: {"value": gains[name], "interval": bounds[name]} for name in gains}
    if fields is None:
        return figures
    headline = {name: figure for name, figure in figures.items() if isinstance(name, str)}
    return headline | {"fields": {name: figures["f1", name] for name in fields}}


def resamples(answers: list[list[str]], rows: list[Row], fields: list[str] | None, seed: int = 0) -> list[list[float]]:
    """The foremost figure of each list of answers to the same rows, in each of 1,000 resamples, the same for all lists."""
    key = "token_f1" if fields is None else "macro_f1"
    sides = [_headline_counts(counted(texts, rows, [True] * len(rows), fields), fields) for texts in answers]
    joined = [{(side, name): count for side, row in enumerate(group) for name, count in row.items()} for group in zip(*sides, strict=True)]
    return [
        [_headline({name: count for (number, name), count in totals.items() if number == side}, fields)[key] for side in range(len(sides))]
        for totals in resampled(joined, seed)
    ]


def _headline(totals: Counts, fields: list[str] | None) -> dict:
    """The figures that have intervals; a field's F1 under ("f1", name)."""
    if fields is None:
        return {"exact": totals["exact"] / totals["rows"], "token_f1": totals["token_f1"] / totals["rows"] / PARTS}
    f1 = {("f1", name): _f1(totals, name) for name in fields}
    shares = {name: totals[name] / totals["rows"] for name in ("row_exact", "json_valid")}
    return {"macro_f1": sum(f1.values()) / len(f1)} | shares | f1


def _headline_counts(counts: list[Counts], fields: list[str] | None) -> list[Counts]:
    """Of what was counted, what the headline figures are made of: the bootstrap adds it up a thousand times."""
    names = ["rows", "exact", "token_f1"]
    if fields is not None:
        names = ["rows", "row_exact", "json_valid"] + [(part, name) for name in fields for part in ("both", "predicted", "expected")]
    return [{name: row[name] for name in names} for row in counts]


def _extraction(totals: Counts, fields: list[str], bounds: dict) -> dict:
    emptiness = {name: _f1(totals, name, None) if totals["expected", name, None] else None for name in fields}
    possible = [value for value in emptiness.values() if value is not None]
    return {
        "kind": "extraction",
        **_shares(totals, ("json_valid", "schema_valid", "row_exact", "stopped")),
        "macro_f1": _headline(totals, fields)["macro_f1"],
        "empty_f1": sum(possible) / len(possible) if possible else None,
        "hallucination": _hallucination(totals, fields),
        "unsupported": _ratio(totals["unsupported"], totals["supportable"], void=None),
        "distractor_hit": _ratio(totals["hit"], totals["laid"], void=None),
        "fields": {name: _field(totals, name) | {"empty_f1": emptiness[name], "interval": bounds["f1", name]} for name in fields},
        "secondary": {name: _field(totals, name) for name in COARSE if ("both", name) in totals},
    }


def _text(totals: Counts) -> dict:
    return {"kind": "text", **_shares(totals, ("stopped",)), **_headline(totals, None)}


def _shares(totals: Counts, names: tuple[str, ...]) -> dict:
    return {"rows": totals["rows"]} | {name: totals[name] / totals["rows"] for name in names}


def _hallucination(totals: Counts, fields: list[str]) -> float | None:
    both, predicted = (sum(totals[part, name] for name in fields) for part in ("both", "predicted"))
    return _ratio(predicted - both, predicted, void=None)


def _field(totals: Counts, name: str) -> dict:
    both, predicted, expected = (totals[part, name] for part in ("both", "predicted", "expected"))
    void = 0.0 if predicted or expected else 1.0
    return {
        "precision": _ratio(both, predicted, void),
        "recall": _ratio(both, expected, void),
        "f1": _f1(totals, name),
        "support": expected,
    }


def _f1(totals: Counts, *name: str | None) -> float:
    return _ratio(2 * totals["both", *name], totals["predicted", *name] + totals["expected", *name], void=1.0)


def _slices(counts: list[Counts], rows: list[Row], fields: list[str] | None) -> dict:
    """The two foremost figures by what the rows' `meta` says of them, and by length."""
    figure_names = ("exact", "token_f1") if fields is None else ("macro_f1", "row_exact")
    groups: dict[str, dict[str, list[Counts]]] = {}
    for row, count in zip(rows, counts, strict=True):
        for kind, name in _kinds(row):
            groups.setdefault(kind, {}).setdefault(name, []).append(count)
    return {
        kind: {name: _slice(group, fields, figure_names) for name, group in sorted(by_name.items())} for kind, by_name in groups.items()
    }


def _slice(counts: list[Counts], fields: list[str] | None, figure_names: tuple[str, ...]) -> dict:
    figures = _headline(total(counts), fields)
    return {"rows": len(counts)} | {name: figures[name] for name in figure_names}


def _kinds(row: Row) -> list[tuple[str, str]]:
    tags = [("phenomenon", name) for name in row.phenomena]
    tags += [(key, row.meta[key]) for key in ("style", "split") if key in row.meta]
    return [(kind, name) for kind, name in tags if isinstance(name, str)] + [("length", _band(len(row.text.split())))]


def _band(words: int) -> str:
    limits = list(BANDS)
    index = bisect_left(limits, words)
    return BANDS[limits[index]] if index < len(limits) else f"over {limits[-1]} words"


def _check_predictions(predictions: list[str], rows: list[Row], stopped: list[bool], fields: list[str] | None) -> None:
    check_scorable(rows, fields)
    if not len(predictions) == len(rows) == len(stopped):
        raise ValueError(f"{len(predictions)} predictions and {len(stopped)} stop flags for {len(rows)} rows; give one of each per row")


def check_scorable(rows: list[Row], fields: list[str] | None) -> None:
    """Nothing, or a ValueError that says why answers to these rows cannot be scored. It can be asked before there are answers."""
    if not rows:
        raise ValueError("there are no rows to score; give at least one")
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
