"""The JSON Schema that answers are held to: a file's, or that of the keys that are scored."""

import json

import pytest

from conf.paths import ROOT
from conf.problem import Problem
from data import schema as shipped
from data.rows import read
from trainer.rows import answer_schema


def test_the_keys_come_in_the_order_of_the_answers_with_the_types_that_they_have_there():
    answers = [{"stage": "IV", "other": 1, "sites": []}, {"stage": None, "sites": ["bone", 3], "size": 1.5}]
    assert answer_schema.of_fields(["size", "sites", "stage", "never"], answers) == {
        "type": "object",
        "properties": {
            "stage": {"type": ["null", "string"]},
            "sites": {"type": ["array"], "items": {"type": ["integer", "string"]}},
            "size": {"type": ["number"]},
            "never": {},
        },
        "required": ["stage", "sites", "size", "never"],
        "additionalProperties": False,
    }


def test_the_answers_are_those_that_the_run_was_scored_against():
    predictions = b"".join(json.dumps({"expected": json.dumps({"b": 1, "a": "x"}), "tuned": "?"}).encode() + b"\n" for _ in range(2))
    schema, rest = answer_schema.of_input(answer_schema.line("auto", ["a", "b"], predictions) + '\n{"input": "x"}\n')
    assert schema["required"] == ["b", "a"] and rest == '{"input": "x"}\n'
    assert answer_schema.of_fields(["a"], answer_schema._expected(b"no record\n"))["required"] == ["a"]


@pytest.mark.parametrize(
    "text", ["", "hello", '{"schema": 1}', '{"schema": {}, "input": "x"}', '{"input": "x"}\n{"schema": {}}', "[" * 100_000]
)
def test_a_first_line_that_is_no_schema_is_a_row(text):
    assert answer_schema.of_input(text) == (None, text)


def test_answers_of_the_shipped_task_are_held_to_the_schema_by_which_they_are_scored():
    answers = [row.output for row in read(ROOT / "data/validation.jsonl")[:5]]
    assert answer_schema.of_fields(shipped.fields(), answers) == shipped.schema()
    assert answer_schema.of_fields(shipped.fields()[:-1], answers)["required"] == shipped.fields()[:-1]


def test_free_text_has_no_keys():
    with pytest.raises(Problem, match=r"free text \(data.fields=null\)") as caught:
        answer_schema.line("auto", None, b"")
    assert caught.value.hint == "name a file: `--schema FILE`"


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "there is no file"), ("{", "is not JSON"), ("[1]", "is JSON and no JSON Schema"), ("\x00", "not JSON|is not text")],
)
def test_a_file_that_holds_no_schema_is_named(content, what, tmp_path):
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Problem, match=what) as caught:
        answer_schema.line(str(file), ["a"], b"")
    assert "mine.json" in caught.value.what or content == "\x00"


def test_a_file_s_schema_is_taken_as_it_is(tmp_path):
    (tmp_path / "mine.json").write_text('{"type": "integer"}')
    assert json.loads(answer_schema.line(str(tmp_path / "mine.json"), None, b"")) == {"schema": {"type": "integer"}}
