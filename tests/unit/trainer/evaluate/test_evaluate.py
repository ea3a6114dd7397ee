"""Scoring: the longest rows first, and fewer at once where they do not fit."""

from dataclasses import replace

import pytest
import torch

from trainer.evaluate import evaluate
from trainer.evaluate.evaluate_run import TimingRecord
from trainer.model import model
from trainer.rows import prompt


class Tight:
    """A memory that takes so many prompts at once."""

    def __init__(self, room: int, error: str = "CUDA out of memory. Tried to allocate 2 GiB"):
        self.room, self.error, self.asked = room, error, []

    def __call__(self, _model, _prompt, prompts, _limit):
        self.asked.append([len(each) for each in prompts])
        if len(prompts) > self.room:
            raise RuntimeError(self.error)
        return [(str(len(each)), True) for each in prompts]


def scored(way, base, template, examples, settings_for, tmp_path):
    settings = settings_for(tmp_path, "train.eval_batch_size=4")
    return evaluate.generate(base.model, template, examples, settings, TimingRecord(), "scoring", way)


def test_the_longest_rows_come_first_and_answers_keep_the_order_of_rows(base, template, examples, settings_for, tmp_path):
    way = Tight(4)
    answers = scored(way, base, template, examples, settings_for, tmp_path)
    assert [text for text, _ in answers] == [str(len(example.prompt)) for example in examples]
    lengths = [length for batch in way.asked for length in batch]
    assert lengths == sorted(lengths, reverse=True) and [len(batch) for batch in way.asked] == [4, 2]


def test_the_run_shows_that_it_is_alive_while_a_batch_is_answered(base_for, template, examples, settings_for, tmp_path):
    """`no sign of life for 2 min` was said of a run that was scoring 32 rows at once."""
    base, settings = base_for(), settings_for(tmp_path, f"train.eval_batch_size={len(examples)}", "data.max_new_tokens=5")
    timing, beats = TimingRecord(), []
    timing.heartbeat = lambda: beats.append(1)
    evaluate.generate(base.model, template, examples, settings, timing, "scoring")
    tuned = model.add_adapter(base, settings.lora, gradient_checkpointing=False)
    alone = len(beats)
    evaluate.generate(tuned, template, examples, settings, timing, "scoring")
    assert alone > 1 and len(beats) == 2 * alone


def test_what_does_not_fit_is_halved_until_it_does(base, template, examples, settings_for, tmp_path, capsys):
    for room, sizes in ((2, [4, 2, 2, 2]), (1, [4, 2, 1, 1, 1, 1, 1, 1])):
        way = Tight(room)
        answers = scored(way, base, template, examples, settings_for, tmp_path)
        assert [text for text, _ in answers] == [str(len(example.prompt)) for example in examples]
        assert [len(batch) for batch in way.asked] == sizes
    assert "scoring: 4 rows at once do not fit into memory; 2 are tried" in capsys.readouterr().out


@pytest.mark.parametrize(("room", "error"), [(0, "CUDA out of memory. Tried"), (2, "no such layer")])
def test_one_row_that_does_not_fit_and_any_other_error_stop_the_run(room, error, base, template, examples, settings_for, tmp_path):
    with pytest.raises(RuntimeError, match=error):
        scored(Tight(room, error), base, template, examples, settings_for, tmp_path)


@pytest.mark.parametrize("stretched", ["longrope"], indirect=True)
def test_rows_whose_positions_have_another_form_are_never_in_one_batch(stretched, examples, settings_for, tmp_path):
    """LongRoPE gives all rows of a batch the form of the longest."""
    base, context = stretched
    template, settings = prompt.Prompt(base.tokenizer, base.stops), settings_for(tmp_path, "train.eval_batch_size=4")
    short = [example for example in examples if len(example.prompt) <= context]
    long = replace(short[0], prompt=short[0].prompt * 3)
    assert len(long.prompt) > context and len(short) == 6
    way = Tight(8)
    evaluate.generate(base.model, template, [short[0], long, *short[1:]], settings, TimingRecord(), "scoring", way)
    assert [len(batch) for batch in way.asked] == [1, 4, 2]

    def first(prompts: list[list[int]]) -> torch.Tensor:
        width = max(map(len, prompts))
        rows = [[0] * (width - len(each)) + each for each in prompts]
        mask = [[0] * (width - len(each)) + [1] * len(each) for each in prompts]
        return base.model(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask)).logits[0, -1]

    with torch.no_grad():
        alone = first([short[0].prompt])
        assert torch.allclose(first([each.prompt for each in short]), alone, atol=1e-4)
        assert not torch.allclose(first([short[0].prompt, long.prompt]), alone, atol=1e-3), "this is why"
