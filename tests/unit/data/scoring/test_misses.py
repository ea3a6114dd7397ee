"""What is wrong with an answer is told by field and kind."""

import json

import pytest

from data.scoring import misses


def kinds(predicted, expected, text="a text"):
    found = misses.of_row("r", text, json.dumps({"a": predicted}), {"a": expected}, ["a"])
    return [(miss.field, miss.kind) for miss in found]


@pytest.mark.parametrize(
    "predicted, expected, kind",
    [
        ("2024-01-02", None, "invented"),
        (0, None, "invented"),
        (None, "Luna", "missed"),
        ("", "Luna", "missed"),
        ("Cafe Luna", "Café Luna", "spelling"),
        ("Luna", "Café Luna", "spelling"),
        ("Nordlis AS", "Nordlys AS", "spelling"),
        ("Metro Hardware", "Casa Verde", "value"),
        ("CHF", "SEK", "value"),
        ("08.09.2023", "2023-09-08", "format"),
        ("8/9/23", "2023-09-08", "format"),
        ("2023-09-07", "2023-09-08", "value"),
        ("IIB", "II", "value"),
        ("6,50 €", 6.4, "value"),
        ("1.234,50 €", "1,234.50 EUR", "format"),
        ("1.234,50 €", "1,234.50 kr", "unit"),
        ("1.234,50 €", "1,234.05 EUR", "value"),
        ("1,200", "1200", "format"),
        (64.0, 6.4, "unit"),
        (640, 6.4, "unit"),
        ("35 mg", "35 g", "unit"),
        ("6.40 CHF", "6.40 EUR", "unit"),
        (6.5, 6.4, "value"),
        ("ER-", "ER+", "value"),
        ("PDL1", "PD-L1", "spelling"),
    ],
)
def test_a_wrong_value_is_of_one_kind(predicted, expected, kind):
    assert kinds(predicted, expected) == [("a", kind)]


def test_what_the_scorer_takes_is_no_miss():
    for predicted, expected in [("Luna", "LUNA "), (6.4, "6.40"), ("1.234,50 €", 1234.5), ([], None), (["b", "a"], ["a", "b"])]:
        assert kinds(predicted, expected) == []


def test_values_of_a_list_are_paired_with_those_that_they_are_most_like():
    assert kinds(["tea", "brad"], ["bread", "tea"]) == [("a", "spelling")]
    assert kinds(["tea", "milk"], ["tea"]) == [("a", "added")]
    assert kinds(["tea"], ["tea", "milk"]) == [("a", "missed")]
    assert kinds(["tea"], []) == [("a", "invented")]


def test_objects_of_a_list_are_compared_by_key():
    right = [{"name": "tea", "quantity": 4}, {"name": "soap", "quantity": 1}]
    assert kinds([{"name": "soap", "quantity": 1}, {"name": "tea", "quantity": 3}], right) == [("a.quantity", "value")]
    assert kinds([{"name": "soap", "quantity": 1}], right) == [("a", "missed")]
    assert kinds([*right, {"name": "milk", "quantity": 1}], right) == [("a", "added")]


def test_an_answer_that_is_no_object_is_one_miss():
    (miss,) = misses.of_row("r", "", '{"a": ', {"a": "x"}, ["a"])
    assert (miss.field, miss.kind, miss.predicted) == (misses.WHOLE, "format", '{"a": ')


def test_a_value_that_the_text_does_not_hold_is_known():
    found = [
        misses.of_row("r", "Total 6.40 at Luna", json.dumps({"a": value}), {"a": None}, ["a"])[0].in_text for value in ("LUNA", "2024")
    ]
    assert found == [True, False]


def test_groups_come_by_number_and_know_their_rows():
    made = [misses.Miss(row, "date", "invented", "", "2024", False) for row in ("1", "2", "2")] + [
        misses.Miss("1", "a", "value", "x", "y", True)
    ]
    first, second = misses.groups(made)
    assert (first.field, first.kind, len(first.misses), first.rows, first.out_of_nowhere) == ("date", "invented", 3, 2, 3)
    assert (second.field, second.out_of_nowhere) == ("a", 0)
