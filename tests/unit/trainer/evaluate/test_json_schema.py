"""Answers held to a JSON Schema are valid by it, whatever the model would have written and however early it is cut off."""

import json

import jsonschema
import pytest

from conf.problem import Problem
from data import schema as shipped
from data.rows import read
from tests.unit.trainer.conftest import VALIDATION
from trainer.evaluate import evaluate_run, json_schema
from trainer.files import read_json_lines
from trainer.model import model
from trainer.rows import answer_schema
from trainer.rows.prompt import Prompt

NESTED = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}}},
    "required": ["rows"],
    "additionalProperties": False,
}
OPTIONAL = {"type": "object", "properties": {"ab": {"type": "string"}, "ac": {"type": "number"}}, "additionalProperties": False}
SCHEMAS = {
    "shipped": shipped.schema(),
    "anything": {},
    "any object": {"type": "object"},
    "enum": {"enum": ["yes", "no", None]},
    "optional": OPTIONAL,
    "long items": {"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 2},
    "number": {"type": "number"},
    "pattern": {"type": "string", "pattern": "^[a-f]{4}$"},
    "nested": NESTED,
}


@pytest.fixture(scope="module")
def loaded(base_for):
    base = base_for()
    prompt = Prompt(base.tokenizer, base.stops)
    model.use_greedy_decoding(base, prompt.stops)
    questions = ["Stage II breast cancer, EGFR.", "hello", "x " * 30]
    return base.model, prompt, [prompt.tokens([{"role": "user", "content": text}]) for text in questions]


@pytest.mark.parametrize("limit", [1, 6, 40])
@pytest.mark.parametrize(
    "schema", [pytest.param(schema, id=name, marks=[pytest.mark.slow] * (name == "shipped")) for name, schema in SCHEMAS.items()]
)
def test_a_random_model_s_answers_are_valid_however_early_they_are_cut(schema, limit, loaded):
    random_model, prompt, prompts = loaded
    held = json_schema.JsonSchema(json_schema.grammar(schema), prompt)
    answers = held.answers(random_model, prompt, prompts, limit)
    for text, _ in answers:
        jsonschema.validate(json.loads(text), schema)
    alone = [held.answers(random_model, prompt, [tokens], limit)[0] for tokens in prompts]
    assert alone == answers, "a row's answer is another one in a batch"


def test_an_answer_that_was_cut_counts_as_not_stopped(loaded):
    random_model, prompt, prompts = loaded
    held = json_schema.JsonSchema(json_schema.grammar({"enum": ["a long enough text"]}), prompt)
    assert held.answers(random_model, prompt, prompts[:1], 3) == [('"a long enough text"', False)]
    assert held.answers(random_model, prompt, prompts[:1], 60) == [('"a long enough text"', True)]


@pytest.mark.parametrize("schema", [{"type": "wrong"}, {"$ref": "http://127.0.0.1:9/schema"}, {"not": {"type": "string"}}])
def test_what_answers_cannot_be_held_to_is_a_sentence_and_fetches_nothing(schema):
    with pytest.raises(Problem, match="answers cannot be held to this schema: "):
        json_schema.grammar(schema)


def test_a_schema_without_an_end_is_told(loaded):
    random_model, prompt, prompts = loaded
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"], "additionalProperties": False}
    with pytest.raises(Problem, match="the schema lets an answer go on without an end"):
        json_schema.JsonSchema(json_schema.grammar(endless), prompt).answers(random_model, prompt, prompts[:1], 4)


@pytest.mark.slow
def test_their_scores_are_reported_apart_and_all_are_valid(trained, tmp_path):
    source = tmp_path / "again.jsonl"
    source.write_text("".join(VALIDATION.read_text().splitlines(keepends=True)[:4]))
    scores, answers = evaluate_run.evaluate_rows(trained, source, "again", ["schema"])
    metrics = json.loads((trained / "metrics.json").read_text())
    assert (scores["base"], scores["tuned"]) == (metrics["base"], metrics["tuned"]), "the scores of the run are other ones"
    assert [scores["schema"][side][name] for side in ("base", "tuned") for name in ("json_valid", "schema_valid")] == [1.0] * 4
    for row in answers:
        for side in ("base", "tuned"):
            jsonschema.validate(json.loads(row["schema"][side]), scores["schema"]["schema"])
    assert [row["tuned"] for row in answers] == [row["tuned"] for row in read_json_lines(trained / "predictions.jsonl")]


def test_the_shipped_rows_obey_the_schema_that_is_made_of_them():
    rows = read(VALIDATION)
    schema = answer_schema.of_fields(list(rows[0].output), [row.output for row in rows])
    for row in rows:
        jsonschema.validate(row.output, schema)
    json_schema.grammar(schema)
