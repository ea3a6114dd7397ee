"""With the keys filled in, the model writes the values alone, reads what it would have read, and no score of the run changes."""

import json
from types import SimpleNamespace

import pytest
import torch

from conf.problem import Problem
from data.rows import normalise
from tests.unit.trainer.conftest import VALIDATION
from trainer.evaluate import evaluate_run, forced_keys
from trainer.evaluate.forced_keys import next_forced_text, shared_scaffold
from trainer.files import read_json_lines

VALUES = {"text": 'a "b" \\ é漢, }', "none": None, "list": ["x", "y, z"], "number": -12.5e3, "one": 1, "yes": True, "deep": {"text": 1}}
WAYS = {
    "compact": json.dumps(VALUES, separators=(",", ":"), ensure_ascii=False),
    "spaced": json.dumps(VALUES),
    "indented": json.dumps(VALUES, indent=2),
    "spaced colons": json.dumps(VALUES, separators=(" ,", " : ")),
    "number last": '{"a":"b","n":12}',
    "within space": ' {"a": null} ',
    "key with a quote": '{"a\\"b":1,"c":2}',
}


def rows(template, *answers):
    return [template.example(normalise({"prompt": f"Text {n}.", "completion": text}, f"here:{n}")) for n, text in enumerate(answers)]


@pytest.mark.parametrize("answer", WAYS.values(), ids=WAYS)
def test_a_model_that_writes_the_values_gets_the_answer_letter_by_letter(answer, template):
    scaffold = shared_scaffold(rows(template, answer, answer))
    text, written = "", 0
    while (added := next_forced_text(text, scaffold)) is not None:
        written += not added
        text += added or answer[len(text)]
        assert answer.startswith(text), "the scaffold put in what stands in no row's answer"
    assert text == answer.rstrip() or text == answer
    keys = sum(len(key) for key in json.loads(answer))
    assert written <= len(answer) - keys, "the keys were left to the model"


def test_the_scaffold_is_what_all_answers_have_around_their_values(template):
    scaffold = shared_scaffold(rows(template, '{"a":"b","c":[1,2]}', '{"a":null,"c":{"a":3}}'))
    assert scaffold == ['{"a', ',"c', "}"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ('{"b":1,"a":2}', "rows here:0 and here:1 have other keys, or other ones first"),
        ('{"a":1}', "rows here:0 and here:1 have other keys"),
        ('{"a": 1, "b": 2}', "rows here:0 and here:1 have other keys"),
        ("Rome.", "the answer of row here:1 is no JSON object"),
    ],
)
def test_answers_without_a_common_scaffold_are_refused(other, what, template):
    with pytest.raises(Problem, match=what) as caught:
        shared_scaffold(rows(template, '{"a":1,"b":2}', other))
    assert caught.value.reason == "bad_data" and "inv evaluate" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", '{"a'),
        ('{"', "a"),
        ('{"a', ""),
        ('{"a"', ""),
        ('{"a":', ""),
        ('{"a":"x', ""),
        ('{"a":"x\\"', ""),
        ('{"a":"caf\ufffd', ""),  # half a letter
        ('{"a":"x"', ',"b'),
        ('{"a":"x","', "b"),
        ('{"a":nul', ""),
        ('{"a":null', ',"b'),
        ('{"a":["x"', ""),
        ('{"a":["x"]', ',"b'),
        ('{"a":1', ""),  # it may become 12
        ('{"a":1.', ""),
        ('{"a":1,', '"b'),
        ('{"a":true', ',"b'),
        ('{"a":1,"b":"y"', "}"),
        ('{"a":1,"b":2}', None),
        ('{"a":1,"c":2}', ""),  # it has left the scaffold
        ("I think", ""),
        ('{"a":1}', ""),
    ],
)
def test_what_is_filled_in_behind_an_answer_that_has_begun(text, added):
    assert next_forced_text(text, ['{"a', ',"b', "}"]) == added


class Steered(torch.nn.Module):
    """A model that is made to choose given tokens, each row its own; what it read and what it would have chosen is kept."""

    dtype = torch.float32

    def __init__(self, choices: list[list[int]], model=None, size: int = 1000):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.choices, self.own, self.size = choices, [model], size  # in a list: it is no part of this module
        self.read, self.logits = [[] for _ in choices], []

    def forward(self, input_ids, attention_mask, **options):
        width, call = input_ids.shape[1], len(self.logits)
        for row, unpadded in enumerate(attention_mask[:, -width:].bool()):
            self.read[row] += input_ids[row][unpadded].tolist()
        logits = torch.zeros(len(input_ids), 1, self.size)
        if self.own[0]:
            logits = self.own[0](input_ids=input_ids, attention_mask=attention_mask, **options).logits.clone()
        self.logits.append(logits.clone())
        for row, tokens in enumerate(self.choices):
            if call < len(tokens):
                logits[row, -1, tokens[call]] = 1e9
        return SimpleNamespace(logits=logits)


def answers(model, template, prompts, scaffolding, limit=500):
    return forced_keys.answers(model, template, prompts, limit, scaffolding)


SCAFFOLD = ['{"city', ',"country', ',"since', "}"]
WRITTEN = [
    ['":"Rome"', '":null', '":1871}'],
    ['":["São Paulo","漢字"]', '":"é"', '":null'],
    ['":"a longer answer than the others"', '":2', '":3}'],
]
WHOLE = [
    '{"city":"Rome","country":null,"since":1871}',
    '{"city":["São Paulo","漢字"],"country":"é","since":null}',
    '{"city":"a longer answer than the others","country":2,"since":3}',
]


def chosen(template, texts: list[str]) -> list[int]:
    """The model's part of an answer; a number has ended when the comma behind it is there."""
    texts = [text + "," * (text[-1].isdigit()) for text in texts]
    return [token for text in texts for token in template.encode(text)]


def test_a_key_takes_no_forward_pass_and_is_read_as_if_the_model_had_written_it(template):
    prompt = template.encode("Which city?")
    for texts, whole in zip(WRITTEN, WHOLE, strict=True):
        tokens = chosen(template, texts)
        model = Steered([tokens])
        assert answers(model, template, [prompt], SCAFFOLD) == [(whole, True)]
        assert len(model.logits) == len(tokens), "a forward pass for each token of a value, none for a key"
        text = template.tokenizer.decode(model.read[0][len(prompt) :])
        assert model.read[0][: len(prompt)] == prompt and whole.startswith(text) and len(text) > len(whole) - 8


def test_rows_side_by_side_are_answered_as_each_alone(template, tuned):
    """Rows that are filled in at other times, and end at other times: neither padding nor its mask may be felt."""
    tuned.eval()
    prompts = [template.encode(text) for text in ("Which city?", "In the long text that follows, which one is it?", "Where?")]
    choices = [chosen(template, texts) for texts in WRITTEN]
    assert len({len(tokens) for tokens in choices}) == 3
    together = Steered(choices, tuned)
    assert answers(together, template, prompts, SCAFFOLD) == [(whole, True) for whole in WHOLE]
    for row, (prompt, tokens) in enumerate(zip(prompts, choices, strict=True)):
        alone = Steered([tokens], tuned)
        assert answers(alone, template, [prompt], SCAFFOLD) == [(WHOLE[row], True)]
        assert together.read[row] == alone.read[0]
        for call, logits in enumerate(alone.logits):
            torch.testing.assert_close(together.logits[call][row], logits[0], rtol=1e-4, atol=1e-4)


def test_what_is_read_in_pieces_gives_what_the_whole_gives(template, tuned):
    tuned.eval()
    prompt, tokens = template.encode("Which city?"), chosen(template, WRITTEN[0])
    model = Steered([tokens], tuned)
    answers(model, template, [prompt], SCAFFOLD)
    with torch.no_grad():
        whole = tuned(input_ids=torch.tensor([model.read[0]])).logits[0, -1]
    torch.testing.assert_close(model.logits[-1][0, -1], whole, rtol=1e-4, atol=1e-4)


def test_a_model_that_stops_or_leaves_the_scaffold_is_left_alone(template):
    prompt, other = template.encode("Which?"), template.encode('":"Rome"}')
    assert answers(Steered([[template.stop]]), template, [prompt], SCAFFOLD) == [('{"city', True)]
    leaving = Steered([[*other, template.stop]])
    text, ended = answers(leaving, template, [prompt], SCAFFOLD)[0]
    assert ended and text.startswith('{"city":"Rome"')


@pytest.mark.parametrize("less", range(1, 12))
def test_an_answer_never_has_more_tokens_than_it_may(less, template):
    prompt, tokens = template.encode("Which city?"), chosen(template, WRITTEN[1])
    filled = [token for part in SCAFFOLD for token in template.encode(part)]
    whole = len(tokens) + len(filled)
    assert answers(Steered([tokens]), template, [prompt], SCAFFOLD, whole) == [(WHOLE[1], True)]
    text, ended = answers(Steered([tokens]), template, [prompt], SCAFFOLD, whole - less)[0]
    assert not ended and len(text) < len(WHOLE[1])


def test_scores_with_keys_filled_in_stand_apart_and_change_no_score_of_the_run(trained, tmp_path):
    source = tmp_path / "again.jsonl"
    source.write_text("".join(VALIDATION.read_text().splitlines(keepends=True)[:4]))
    metrics = json.loads((trained / "metrics.json").read_text())
    scores, answers = evaluate_run.evaluate_rows(trained, source, "again", ["scaffold"])
    assert (scores["base"], scores["tuned"]) == (metrics["base"], metrics["tuned"])
    assert [row["tuned"] for row in answers] == [row["tuned"] for row in read_json_lines(trained / "predictions.jsonl")]
    assert scores["scaffold"].keys() == {"base", "tuned", "parts", "seconds"} and scores["scaffold"]["tuned"]["rows"] == 4
    for row in answers:
        assert all(row["scaffold"][side].startswith(scores["scaffold"]["parts"][0]) for side in ("base", "tuned"))


def test_rows_that_the_run_s_fields_do_not_fit_are_refused_before_a_model_answers(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_run.evaluate, "generate", lambda *_: pytest.fail("the model answered"))
    source = tmp_path / "text.jsonl"
    source.write_text('{"prompt": "Why?", "completion": "Because."}\n')
    with pytest.raises(Problem, match="has no JSON object as its answer") as caught:
        evaluate_run.evaluate_rows(trained, source, "text")
    assert caught.value.reason == "bad_data"
