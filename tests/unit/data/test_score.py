"""The score: every figure against a hand-worked example."""

import json
import time

import pytest

from data.rows import normalise
from data.score import difference, parse, score, values


def rows(*outputs):
    return [normalise({"instruction": "i", "input": "n", "output": output}, f"f:{number}") for number, output in enumerate(outputs, 1)]


def core(field):
    return {name: field[name] for name in ("precision", "recall", "f1", "support")}


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
    predicted = [{"a": "X ", "b": ["y", "q"]}, {"a": "x", "b": []}, "no answer"]
    result = run(predicted, expected)
    # a: found {x} {x} {}, expected {x} {} {w}; b: found {y,q} {} {}, expected {y,z} {} {v}
    assert core(result["fields"]["a"]) == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    assert core(result["fields"]["b"]) == {"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "support": 3}
    assert result["macro_f1"] == pytest.approx((1 / 2 + 2 / 5) / 2)
    assert result["hallucination"] == 2 / 4
    assert (result["row_exact"], result["json_valid"], result["schema_valid"]) == (0.0, 2 / 3, 2 / 3)


def test_empty_is_an_answer_but_not_when_it_is_no_json():
    nothing = {"a": None, "b": []}
    assert run([nothing, {}, "sorry"], [nothing] * 3)["row_exact"] == pytest.approx(2 / 3)


def test_a_field_that_is_neither_expected_nor_predicted_is_right():
    right = run([{"a": None}], [{"a": None}], fields=["a"])["fields"]["a"]
    assert core(right) == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 0}


def test_a_field_predicted_but_never_expected_scores_nothing():
    wrong = run([{"a": "x"}], [{"a": None}], fields=["a"])["fields"]["a"]
    assert core(wrong) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@pytest.mark.parametrize("text", ["", "{", '{"a": 1} and more', "[1]", '"a"', '{"a": NaN}', "[" * 100_000, "```json\n{}\n```"])
def test_only_one_whole_object_is_valid_json(text):
    assert parse(text) is None


def test_white_space_around_the_object_is_no_extra_text():
    assert parse(' {"a": 1}\n') == {"a": 1}


def test_values_of_strings_lists_and_other_types():
    assert values(None) == values("") == values([]) == values([None, " "]) == set()
    assert values("Stage\u00a0 IV") == {"stage iv"}
    assert values(["Liver", "liver ", "bone"]) == {"liver", "bone"}
    assert values(3) == {"3"} and values({"k": True}) == {'{"k": "true"}'}


@pytest.mark.parametrize(
    "predicted, expected, alike",
    [
        (6.4, "6.40", True),
        ("6.40", 6.4, True),
        (85, 85.0, True),
        (85, 8.5e1, True),
        (0, -0.0, True),
        (1e300, 1e300, True),
        ("1.234,50 €", 1234.5, True),
        (1234.5, "1,234.50 EUR", True),
        ("CHF 1'234.50", 1234.5, True),
        ("1\u202f234,5", 1234.5, True),
        ("-0,500", -0.5, True),
        ("12,345,678", 12345678, True),
        ("12 mg", 12, False),
        ("1.234,50 €", "1,234.50 EUR", False),  # no number is asked for
        ("1.234.5", 1234.5, False),
        (6.4, 6.41, False),
        ("1.10", "1.1", False),  # two versions
        ("007", 7, False),
        (True, 1, False),
        ("2023-09-08", "08.09.2023", False),  # as it is written
        ({"quantity": "4", "name": "Soap"}, {"name": "soap", "quantity": 4.0}, True),
        ({"name": "soap", "price": None}, {"name": "soap"}, True),
        ([{"name": "tea", "n": 1}, {"name": "soap", "n": 4}], [{"n": "4", "name": "soap"}, {"n": 1, "name": "tea"}], True),
        ([{"name": "tea", "n": 4}, {"name": "soap", "n": 1}], [{"name": "soap", "n": 4}, {"name": "tea", "n": 1}], False),
        ([{}, {"name": ""}], [], True),
    ],
)
def test_values_are_compared_by_what_they_mean(predicted, expected, alike):
    assert run([{"a": predicted}], [{"a": expected}], fields=["a"])["row_exact"] == alike


def test_a_whole_number_follows_the_schema_where_rows_have_others():
    assert run([{"a": 85}], [{"a": 85.5}], fields=["a"])["schema_valid"] == 1.0
    assert run([{"a": "85"}], [{"a": 85.5}], fields=["a"])["schema_valid"] == 0.0


def test_other_dashes_are_the_same_value():
    assert values("PD\u2011L1 1\u201349 %") == values("PD-L1 1-49 %")


@pytest.mark.parametrize(
    "flat, apart",
    [
        ("FOLFOX; bevacizumab", ["folfox", "bevacizumab"]),
        ("dabrafenib and trametinib", ["dabrafenib", "trametinib"]),
        ("dabrafenib plus trametinib + nivolumab, surgery", ["dabrafenib", "trametinib", "nivolumab", "surgery"]),
        ("FOLFOX+bevacizumab", ["folfox", "bevacizumab"]),
        ("trastuzumab, pertuzumab and docetaxel", ["trastuzumab", "pertuzumab", "docetaxel"]),
        ("trastuzumab, pertuzumab, and docetaxel", ["trastuzumab", "pertuzumab", "docetaxel"]),
        ("ER+; PR+", ["er+", "pr+"]),
        ("CA-125 1,200 U/mL, MSS", ["ca-125 1,200 u/ml", "mss"]),
        ("docetaxel (weekly, 35 mg), radiotherapy", ["docetaxel (weekly, 35 mg)", "radiotherapy"]),
        ("none", []),
        ("", []),
    ],
)
def test_a_flat_string_of_a_list_field_is_split(flat, apart):
    assert values(flat, "treatment") == set(apart)


def test_no_other_string_is_split():
    assert values("carcinoma of the head and neck", "cancer_type") == {"carcinoma of the head and neck"}
    assert values("Romeo and Juliet; a play", "title") == {"romeo and juliet; a play"}
    assert values(["a and b"], "treatment") == {"a and b"}, "a list is split already"


FLAT = {
    "cancer_type": "melanoma",
    "stage": "IV",
    "gene_mutation": None,
    "biomarker": None,
    "treatment": "nivolumab; ipilimumab",
    "response": None,
    "metastasis_site": "liver and bone",
}


def test_flat_answers_with_the_same_keys_are_scored_as_they_are():
    same = FLAT | {"treatment": "ipilimumab and nivolumab", "metastasis_site": "bone, liver"}
    half = FLAT | {"treatment": "nivolumab"}
    result = run([FLAT, same, half, FLAT | {"treatment": ["nivolumab", "ipilimumab"]}], [FLAT] * 4, fields=list(FLAT))
    assert result["row_exact"] == 3 / 4
    assert result["schema_valid"] == 3 / 4, "where the rows have strings, a list is another shape"
    assert core(result["fields"]["treatment"]) == {"precision": 1.0, "recall": 7 / 8, "f1": 14 / 15, "support": 8}


def test_null_fits_the_shape_of_flat_answers_though_no_row_has_one():
    full = dict.fromkeys(FLAT, "x")
    assert run([full | {"stage": None}], [full], fields=list(FLAT))["schema_valid"] == 1.0


def test_saying_nothing_where_nothing_is(answer):
    expected = [{"a": None}, {"a": None}, {"a": "x"}, {"a": "x"}]
    # silent in rows 1 and 3; row 4 is no answer at all; empty are rows 1 and 2: 2 * 1 / (2 + 2)
    result = run([{"a": None}, {"a": "y"}, {"a": None}, "?"], expected, fields=["a"])
    assert result["fields"]["a"]["empty_f1"] == result["empty_f1"] == 1 / 2


def test_what_no_model_could_fail_does_not_count():
    expected = [{"a": None, "b": "x"}, {"a": "y", "b": "z"}]
    result = run([{"a": "y", "b": "x"}] * 2, expected, fields=["a", "b"])
    assert [result["fields"][name]["empty_f1"] for name in "ab"] == [0.0, None]
    assert result["empty_f1"] == 0.0
    assert run([{"b": "x"}] * 2, expected, fields=["b"])["empty_f1"] is None


def test_detail_is_forgiven_in_the_secondary_scores_of_the_shipped_fields(answer):
    near = answer | {"stage": "IVA", "gene_mutation": ["EGFR T790M", "KRAS G12D"]}
    result = run([near, answer], [answer, answer], fields=list(answer))
    assert core(result["fields"]["stage"])["f1"] == 1 / 2 and result["secondary"]["stage_group"]["f1"] == 1.0
    assert result["secondary"]["gene_symbol"] == {"precision": 2 / 3, "recall": 1.0, "f1": 4 / 5, "support": 2}
    assert run([{"stage": "IVA"}], [{"stage": "IV"}], fields=["stage"])["secondary"] == {}, "another's stage may be a rocket's"


def recorded(answer, *facts, **meta):
    evidence = [[*fact, None, None] for fact in facts]
    return normalise({"instruction": "i", "input": "n", "output": answer, "meta": {"evidence": evidence, **meta}}, "f:1")


def test_a_distractor_is_distinguished_from_a_made_up_value():
    row = recorded({"a": "x", "b": ["y"]}, ("a", "x", "asserted"), ("b", "y", "asserted"), ("b", "z", "planned"), ("b", "y", "superseded"))
    result = score(['{"a": "q", "b": ["y", "Z"]}'], [row], [True], ["a", "b"])
    assert result["hallucination"] == 2 / 3  # q and z
    assert result["unsupported"] == 1 / 3  # q
    assert result["distractor_hit"] == 1.0  # z is the only trap: y is planned and given


def test_a_distractor_that_was_not_predicted_counts_as_missed():
    row = recorded({"a": "x"}, ("a", "x", "asserted"), ("a", "v", "negated"), ("a", "w", "family"))
    assert score(['{"a": "v"}'], [row], [True], ["a"])["distractor_hit"] == 1 / 2


@pytest.mark.parametrize("evidence", [None, "page 3", [{"field": "a"}], ["x"], [["a", "b"]], [["a", 3, "asserted", 0, 1]]])
def test_without_a_record_of_the_text_there_is_no_figure_of_it(evidence):
    row = normalise({"prompt": "p", "completion": '{"a": "x"}', "meta": {"evidence": evidence}}, "f:1")
    result = score(['{"a": "y"}'], [row], [True], ["a"])
    assert (result["unsupported"], result["distractor_hit"]) == (None, None)


def test_slices_follow_what_the_rows_say_of_themselves():
    good = recorded({"a": "x"}, style="letter", phenomena=["negated", "family"], split="validation")
    bad = recorded({"a": "x"}, style="bullets", phenomena=["family"], split="validation")
    result = score(['{"a": "x"}', "?"], [good, bad], [True, True], ["a"])
    assert result["slices"] == {
        "phenomenon": {
            "family": {"rows": 2, "macro_f1": 2 / 3, "row_exact": 0.5},
            "negated": {"rows": 1, "macro_f1": 1.0, "row_exact": 1.0},
        },
        "style": {"bullets": {"rows": 1, "macro_f1": 0.0, "row_exact": 0.0}, "letter": {"rows": 1, "macro_f1": 1.0, "row_exact": 1.0}},
        "split": {"validation": {"rows": 2, "macro_f1": 2 / 3, "row_exact": 0.5}},
        "length": {"up to 50 words": {"rows": 2, "macro_f1": 2 / 3, "row_exact": 0.5}},
    }


@pytest.mark.parametrize(
    "words, band", [(50, "up to 50 words"), (51, "51 to 100 words"), (200, "101 to 200 words"), (201, "over 200 words")]
)
def test_length_is_that_of_the_rows_own_text(words, band):
    row = normalise({"instruction": "do " * 300, "input": "word " * words, "output": {"a": 1}}, "f:1")
    assert list(score(["{}"], [row], [True], ["a"])["slices"]["length"]) == [band]


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
    assert result["slices"]["length"]["up to 50 words"] == {"rows": 3, "exact": pytest.approx(1 / 3), "token_f1": pytest.approx(0.5)}


def mixed(count):
    expected = [{"a": "x", "b": ["y"]}] * count
    predicted = [{"a": "x", "b": ["y"] if index % 2 else []} for index in range(count)]
    return predicted, expected


def test_intervals_hold_the_figure_and_narrow_with_more_rows():
    few, many = run(*mixed(20)), run(*mixed(500))
    for result in (few, many):
        low, high = result["intervals"]["row_exact"]
        assert low <= result["row_exact"] == 0.5 <= high
    assert few["intervals"]["row_exact"] == pytest.approx([0.3, 0.7], abs=0.06)  # binomial(20, 0.5): 6 and 14, one row more or less
    assert many["intervals"]["row_exact"] == pytest.approx([0.456, 0.544], abs=0.01)


def test_every_field_has_its_own_interval():
    result = run(*mixed(500))
    assert result["fields"]["a"]["interval"] == [1.0, 1.0]
    low, high = result["fields"]["b"]["interval"]
    assert low < result["fields"]["b"]["f1"] == 2 / 3 < high and high - low < 0.1


def test_the_same_seed_gives_the_same_intervals_and_500_rows_are_fast(answer):
    expected, predicted = [answer] * 500, [answer, answer | {"stage": None}] * 250
    began = time.process_time()
    first = run(predicted, expected, fields=list(answer))
    assert time.process_time() - began < 2
    assert run(predicted, expected, fields=list(answer)) == first


def test_a_difference_is_measured_on_the_same_resampled_rows():
    """The tuned side is right in one row of four more than the base: paired, that is certain to a few points."""
    expected = rows(*[{"a": "x", "b": ["y"]}] * 200)
    right, wrong = '{"a": "x", "b": ["y"]}', '{"a": "x", "b": []}'
    before = [right if index % 2 else wrong for index in range(200)]
    after = [right if index % 4 else wrong for index in range(200)]
    result = difference(before, after, expected, ["a", "b"])
    assert result["row_exact"]["value"] == pytest.approx(0.25)
    low, high = result["row_exact"]["interval"]
    assert 0.18 < low < 0.25 < high < 0.32  # unpaired it would be 0.16 to 0.34
    assert result["fields"]["a"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert result["macro_f1"]["value"] == pytest.approx(result["fields"]["b"]["value"] / 2)
    assert set(result) == {"macro_f1", "row_exact", "json_valid", "fields"}
    assert difference(after, before, expected, ["a", "b"])["row_exact"]["value"] == pytest.approx(-0.25)


def test_a_difference_of_texts():
    result = difference(["a b", "c"], ["a b", "d"], rows("a b", "d"), None)
    assert result["exact"]["value"] == result["token_f1"]["value"] == 0.5
    assert result["exact"]["interval"] == [0.0, 1.0]


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
def test_what_cannot_be_scored_is_reported_in_a_sentence(arguments, sentence):
    predictions, outputs, stopped, fields = arguments
    with pytest.raises(ValueError) as caught:
        score(predictions, rows(*outputs), stopped, fields)
    assert sentence in str(caught.value)


def test_made_up_values_are_not_counted_where_nothing_was_said():
    result = run(["no idea"], [{"a": "x", "b": []}])
    assert result["hallucination"] is None
