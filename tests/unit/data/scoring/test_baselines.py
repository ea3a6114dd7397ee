"""What can be scored on the shipped splits without reading: ranges, so that the task stays one that needs it."""

import json
from functools import cache
from pathlib import Path

import pytest

from data import schema
from data.rows import normalise, read
from data.scoring import baselines

ROOM = Path(schema.__file__).parent
# By baseline: the least and the most macro-F1, and the most row exact match.
RANGES = {
    "majority": (0.0, 0.15, 0.05),
    "class prior": (0.0, 0.35, 0.05),
    "nearest": (0.0, 0.40, 0.05),
    "shuffled": (0.0, 0.15, 0.10),
    "dictionary": (0.50, 0.75, 0.08),
    "with negation": (0.65, 0.85, 0.25),
}
SPLITS = ["validation", "test_template", "test_id"]


@cache
def rows(split):
    return read(ROOM / f"{split}.jsonl")


def scored(name, split):
    fields = schema.fields()
    answers = baselines.BASELINES[name](rows("train"), rows(split), fields, 0)
    return baselines.scored(answers, rows(split), fields, 0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", [name for name in RANGES if name != "nearest"])
def test_a_baseline_stays_in_its_range(name, split):
    result, (least, most, exact) = scored(name, split), RANGES[name]
    assert least <= result["macro_f1"] <= most
    assert result["row_exact"] <= exact


def test_copying_the_nearest_row_stays_in_its_range():
    """On a part of the rows: each is compared with every training row."""
    scored_rows = rows("validation")[:100]
    result = baselines.scored(baselines.nearest(rows("train")[:1500], scored_rows, schema.fields(), 0), scored_rows, schema.fields(), 0)
    assert result["macro_f1"] <= RANGES["nearest"][1] and result["row_exact"] <= RANGES["nearest"][2]


@pytest.mark.parametrize("split", [*SPLITS, "test_entity", "test_both", "smoke_validation"])
def test_the_oracle_is_perfect_in_every_figure(split):
    result = scored("oracle", split)
    assert [result[name] for name in ("json_valid", "schema_valid", "macro_f1", "row_exact", "empty_f1")] == [1.0] * 5
    assert [result[name] for name in ("hallucination", "unsupported", "distractor_hit")] == [0.0] * 3
    assert all(field["f1"] == 1.0 for field in (*result["fields"].values(), *result["secondary"].values()))
    assert all(
        part == {"rows": part["rows"], "macro_f1": 1.0, "row_exact": 1.0} for kind in result["slices"].values() for part in kind.values()
    )


def test_a_dictionary_walks_into_traps_and_negation_rules_into_fewer():
    naive, scoped = (scored(name, "validation")["distractor_hit"] for name in ("dictionary", "with negation"))
    assert naive > 0.5 and scoped < naive


def note(text, **output):
    return normalise({"instruction": "i", "input": text, "output": output}, text)


TRAIN = [note("red red apple", a="x", b=["p"]), note("green pear", a="x", b=[]), note("blue plum", a="y", b=[])]


def test_the_majority_takes_the_most_frequent_value_of_each_field():
    assert baselines.majority(TRAIN, [note("z", a="x", b=[])] * 2, ["a", "b"], 0) == [{"a": "x", "b": []}] * 2


def test_the_nearest_row_shares_the_rarest_words():
    scored_rows = [note("a red plum and a pear and red", a="", b=[]), note("plum", a="", b=[]), note("nothing known", a="", b=[])]
    assert baselines.nearest(TRAIN, scored_rows, ["a"], 0) == [TRAIN[0].output, TRAIN[2].output, TRAIN[0].output]


def test_the_class_prior_looks_up_the_cancer_that_is_named_first():
    empty = dict.fromkeys(schema.fields())
    train = [note("one", **empty | {"cancer_type": "cutaneous melanoma", "stage": "III"}), note("two", **empty | {"cancer_type": None})]
    scored_rows = [
        note("Cutaneous melanoma, not lung adenocarcinoma", **empty),
        note("Lung adenocarcinoma", **empty),
        note("Well", **empty),
    ]
    answers = baselines.class_prior(train, scored_rows, schema.fields(), 0)
    assert [(answer["cancer_type"], answer["stage"]) for answer in answers] == [
        ("cutaneous melanoma", "III"),
        ("lung adenocarcinoma", "III"),
        (None, None),
    ]


def test_rows_of_another_task_get_the_baselines_that_need_no_knowledge():
    scores = baselines.measure(TRAIN, TRAIN, ["a", "b"])
    assert list(scores) == ["oracle", "shuffled", "majority", "nearest"]
    table = baselines.text(scores, ["a", "b"]).splitlines()
    assert table[0].split()[:2] == ["macro-F1", "95"] and table[1].startswith("oracle") and "1.000–1.000" in table[1]


def test_shuffled_answers_are_those_of_other_rows():
    answers = baselines.shuffled(TRAIN, TRAIN, ["a"], 0)
    assert sorted(map(json.dumps, answers)) == sorted(json.dumps(row.output) for row in TRAIN)
