"""The schema's own small checker."""

import pytest

from data import schema

BREAKS = [
    {"stage": "stage IV"},
    {"stage": 4},
    {"cancer_type": ["x"]},
    {"response": "better"},
    {"treatment": None},
    {"treatment": "osimertinib"},
    {"biomarker": [None]},
    {"extra": "x"},
]


def test_a_good_answer_fits_and_its_fields_are_the_schemas(answer):
    assert schema.fits(answer, schema.schema())
    assert schema.fields() == list(answer) == schema.schema()["required"]


@pytest.mark.parametrize("change", BREAKS, ids=str)
def test_a_wrong_value_does_not_fit(answer, change):
    assert not schema.fits(answer | change, schema.schema())


def test_every_field_must_be_there(answer):
    assert not any(schema.fits({key: answer[key] for key in answer if key != name}, schema.schema()) for name in answer)


def test_every_word_of_the_schema_file_is_one_the_checker_knows():
    known = {"type", "enum", "items", "properties", "required", "additionalProperties", "description", "title", "$schema"}

    def words(rule):
        yield from rule
        for part in [*rule.get("properties", {}).values(), *([rule["items"]] if "items" in rule else [])]:
            yield from words(part)

    assert set(words(schema.schema())) <= known
