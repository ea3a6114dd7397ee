"""What an eval step says of the held-out rows is what a plain forward pass of each row alone says."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from trainer.evaluate import eval_step
from trainer.model import attention
from trainer.rows import prompt

FIELDS = ["cancer_type", "stage", "treatment"]


def plain(tuned, example):
    """The row's loss and which of its answer tokens are put first, by the model itself: one row, no pack, all logits."""
    tokens = torch.tensor([example.prompt + example.completion])
    with torch.no_grad():
        logits = tuned(input_ids=tokens).logits[0, len(example.prompt) - 1 : -1]
    labels = torch.tensor(example.completion)
    return functional.cross_entropy(logits, labels, reduction="sum").item(), (logits.argmax(-1) == labels).tolist()


def test_the_figures_are_those_of_each_row_alone(tuned, examples):
    tuned.eval()
    # A completion that the model puts first in some rows: random weights would match nothing, and nothing would be compared.
    liked = [replace(example, completion=example.completion[:1] + greedy(tuned, example)[1:]) for example in examples[:3]]
    rows = [*liked, *examples[3:]]
    alone = [plain(tuned, example) for example in rows]
    with attention.packed(tuned.get_base_model()):
        figures = eval_step.measure(tuned, rows, 600, FIELDS, lambda: None)
    tokens = sum(len(row.completion) for row in rows)
    assert figures["loss"] == pytest.approx(sum(loss for loss, _ in alone) / tokens, rel=1e-4)
    assert figures["token_match"] == pytest.approx(sum(sum(match) for _, match in alone) / tokens)
    for name in FIELDS:
        right = [all(match[place] for place in row.values[name]) for row, (_, match) in zip(rows, alone, strict=True)]
        assert figures["fields"][name] == pytest.approx(sum(right) / len(rows))
    assert figures["field_match"] == pytest.approx(sum(figures["fields"].values()) / len(FIELDS))
    assert 0 < figures["field_match"] < 1, "a comparison of nothing with nothing"


def greedy(tuned, example):
    """A completion of the row's length that the model puts first everywhere."""
    tokens, cache = example.prompt + example.completion[:1], None
    with torch.no_grad():
        for _ in example.completion[1:]:
            cached = cache.get_seq_length() if cache else 0
            output = tuned(input_ids=torch.tensor([tokens[cached:]]), past_key_values=cache, use_cache=True)
            tokens, cache = [*tokens, output.logits[0, -1].argmax().item()], output.past_key_values
    return tokens[len(example.prompt) :]


def test_the_marked_tokens_write_exactly_a_field_s_value(template, examples):
    for example in examples:
        for name, value in example.row.output.items():
            written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            marked = template.tokenizer.decode([example.completion[place] for place in example.values[name]])
            assert written in marked and len(marked) <= len(written) + 4, name


@pytest.mark.parametrize(
    "text", ['{"a":null,"b":["x, y","}"],"c":{"a":1}}', '{ "a" : "q\\"} é" ,\n "b" : -1.5e3 }', "{}", '{"":""}', '{"a":true}  ']
)
def test_a_value_is_found_wherever_it_stands(text):
    spans = prompt.value_spans(text)
    assert {key: json.loads(text[start:end]) for key, (start, end) in spans.items()} == json.loads(text)


def test_the_logits_of_no_more_than_one_pack_are_ever_held(tuned, examples, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        eval_step.model, "logits", lambda tuned, pack, real=eval_step.model.logits: sizes.append(real(tuned, pack)) or sizes[-1]
    )
    with attention.packed(tuned.get_base_model()):
        eval_step.measure(tuned, examples, 400, FIELDS, lambda: None)
    assert len(sizes) > 1
    assert max(len(logits) for logits in sizes) < sum(len(example.completion) for example in examples)


def test_free_text_has_no_fields(tuned, examples):
    with attention.packed(tuned.get_base_model()):
        figures = eval_step.measure(tuned, examples, 4096, None, lambda: None)
    assert set(figures) == {"loss", "token_match"}
