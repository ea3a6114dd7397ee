"""The score: every figure against a hand-worked example."""

import json
import time

import pytest

from data.rows import normalise
from data.score import parse, score, values


def rows(*outputs):
    return [normalise({"instruction": "i", "input": "n", "output": output}, f"f:{number}") for number, output in enumerate(outputs, 1)]


def run(predictions, expected, fields=("a", "b")):
    texts = [prediction if isinstance(prediction, str) else json.dumps(prediction) for prediction in predictions]
    return score(texts, rows(*expected), [True] * len(texts), list(fields))


def test_right_answers_score_one_everywhere():
    answers = [{"a": "x", "b": []}, {"a": None, "b": ["y", "z"]}]
    result = run(answers, answers)
    assert (result["macro_f1"], result["row_exact"], result["json_valid"], result["schema_valid"]) == (1.0, 1.0, 1.0, 1.0)
    assert (result["hallucination"], result["stopped"], result["rows"], result["kind"]) == (0.0, 1.0, 2, "extraction")
    assert result["intervals"] == {"macro_f1": [1.0, 1.0], "row_exact": [1.0, 1.0], "json_valid": [1.0, 1.0]}


def test_figures_of_a_worked_example():
    expected = [{"a": "x", "b": ["y", "z"]}, {"a": None, "b": []}, {"a": "w", "b": ["v"]}]
    found = [{"a": "X ", "b": ["y", "q"]}, {"a": "x", "b": []}, "no answer"]
    result = run(found, expected)
    # a: found {x} {x} {}, expected {x} {} {w}; b: found {y,q} {} {}, expected {y,z} {} {v}
    assert result["fields"]["a"] == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    assert result["fields"]["b"] == {"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "support": 3}
    assert result["macro_f1"] == pytest.approx((1 / 2 + 2 / 5) / 2)
    assert result["hallucination"] == 2 / 4
    assert (result["row_exact"], result["json_valid"], result["schema_valid"]) == (0.0, 2 / 3, 2 / 3)


def test_empty_is_an_answer_but_not_when_it_is_no_json():
    nothing = {"a": None, "b": []}
    assert run([nothing, {}, "sorry"], [nothing] * 3)["row_exact"] == pytest.approx(2 / 3)


def test_a_field_that_is_neither_expected_nor_predicted_is_right():
    assert run([{"a": None}], [{"a": None}], fields=["a"])["fields"]["a"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 0}


def test_a_field_predicted_but_never_expected_scores_nothing():
    assert run([{"a": "x"}], [{"a": None}], fields=["a"])["fields"]["a"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@pytest.mark.parametrize("text", ["", "{", '{"a": 1} and more', "[1]", '"a"', '{"a": NaN}', "[" * 100_000, "```json\n{}\n```"])
def test_only_one_whole_object_is_valid_json(text):
    assert parse(text) is None


def test_white_space_around_the_object_is_no_extra_text():
    assert parse(' {"a": 1}\n') == {"a": 1}


def test_values_of_strings_lists_and_other_types():
    assert values(None) == values("") == values([]) == values([None, " "]) == set()
    assert values("Stage\u00a0 IV") == {"stage iv"}
    assert values(["Liver", "liver ", "bone"]) == {"liver", "bone"}
    assert values(3) == {"3"} and values({"k": 1}) == {'{"k": 1}'}


def test_the_seeds_flat_answers_are_scored_as_whole_strings():
    names = ["cancer_type", "stage", "gene_mutation", "biomarker", "treatment", "response", "metastasis_site"]
    answer = dict.fromkeys(names) | {"cancer_type": "melanoma", "treatment": "nivolumab; ipilimumab"}
    result = run([answer, answer | {"treatment": ["nivolumab"]}], [answer, answer], fields=names)
    assert (result["schema_valid"], result["row_exact"]) == (0.5, 0.5)


def test_the_schema_decides_the_shape_where_the_rows_obey_it(answer):
    wrong = answer | {"response": "doing well"}
    assert run([answer, wrong, answer | {"more": 1}], [answer] * 3, fields=list(answer))["schema_valid"] == pytest.approx(1 / 3)


def test_free_text_is_scored_by_words():
    answers = rows("The cat sat.", "no", "x y")
    result = score(["the  cat sat.", "yes", "y z"], answers, [True, False, True], None)
    assert (result["kind"], result["rows"]) == ("text", 3)
    assert (result["exact"], result["stopped"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert result["token_f1"] == pytest.approx(0.5)
    assert set(result["intervals"]) == {"exact", "token_f1"}


def mixed(count):
    expected = [{"a": "x", "b": ["y"]}] * count
    found = [{"a": "x", "b": ["y"] if index % 2 else []} for index in range(count)]
    return found, expected


def test_intervals_hold_the_figure_and_narrow_with_more_rows():
    few, many = run(*mixed(20)), run(*mixed(500))
    for result in (few, many):
        low, high = result["intervals"]["row_exact"]
        assert low <= result["row_exact"] == 0.5 <= high
    assert few["intervals"]["row_exact"] == pytest.approx([0.3, 0.7], abs=0.06)  # binomial(20, 0.5): 6 and 14, one row more or less
    assert many["intervals"]["row_exact"] == pytest.approx([0.456, 0.544], abs=0.01)


def test_the_same_seed_gives_the_same_intervals_and_500_rows_are_fast():
    found, expected = mixed(500)
    began = time.process_time()
    first = run(found, expected)
    assert time.process_time() - began < 0.5
    assert run(found, expected) == first


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (([], [], [], ["a"]), "there are no rows"),
        (([], [{"a": 1}], [], ["a"]), "0 predictions and 0 stop flags for 1 rows"),
        ((["{}"], [{"a": 1}], [True], []), "the fields to score are []"),
        ((["{}"], [{"a": 1}], [True], ["a", "a"]), "name each field once"),
        ((["{}"], [{"a": 1}], [True], ["b"]), "no row's answer has the field 'b'; the first row has a"),
        ((["{}"], ["text"], [True], ["a"]), "row f:1 has no JSON object"),
    ],
)
def test_what_cannot_be_scored_is_said_in_a_sentence(arguments, sentence):
    predictions, outputs, stopped, fields = arguments
    with pytest.raises(ValueError) as caught:
        score(predictions, rows(*outputs), stopped, fields)
    assert sentence in str(caught.value)


def test_made_up_values_are_not_counted_where_nothing_was_said():
    result = run(["no idea"], [{"a": "x", "b": []}])
    assert result["hallucination"] is None
