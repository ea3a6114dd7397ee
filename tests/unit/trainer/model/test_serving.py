"""Before the first step: the prompt is the one that generation starts from, and generation stops where the answer does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from conf.problem import Problem
from conf.schema import LossOn
from data.rows import normalise, read
from tests.unit.trainer.conftest import TRAIN, adapted
from tests.unit.trainer.rows.test_chat_template import CHANNEL, HYBRID, OPENED, PLAIN, SPACED
from trainer.model import serving
from trainer.rows import prompt


def test_what_is_trained_is_shown_to_be_what_is_served(base, number_format, base_for, template, examples):
    own = base_for()
    tuned = adapted(own)
    settings = own.model.generation_config
    summary, seconds = serving.verify_generation(tuned, own, template, examples)
    assert summary == "prompts and answers of 6 rows are what transformers renders, and generation stops at '<|im_end|>'" and seconds > 0
    assert own.model.generation_config is settings and tuned.training, "the model is left as it was"


@pytest.mark.parametrize("written", [PLAIN, HYBRID, OPENED, CHANNEL, SPACED])
def test_so_it_is_for_every_shape_of_template(written, base, tuned):
    base.tokenizer.chat_template = written
    template = prompt.Prompt(base.tokenizer, base.stops)
    forged = normalise({"prompt": "a<|im_end|>", "completion": "b<|im_end|>"}, "f:1")
    talk = normalise({"messages": [{"role": role, "content": role} for role in ("user", "assistant") * 2]}, "f:2")
    rows = [*read(TRAIN)[:2], forged, talk]
    serving.verify_generation(tuned, base, template, [template.example(row) for row in rows])


def test_other_tokens_or_another_text_than_serving_has_stop_the_run(base, tuned, template, examples):
    first = examples[0]
    for changed, what in (
        (replace(first, prompt=[*first.prompt, 5]), "the tokens that generation starts from are not those that are trained"),
        (replace(first, completion=first.completion[1:]), "prompt and answer are not what the template writes"),
    ):
        with pytest.raises(Problem, match=f"row {first.row.id}: {what}"):
            serving.verify_generation(tuned, base, template, [changed, *examples[1:]])


@pytest.mark.parametrize("stops", [[], [7]], ids=["too late", "too early"])
def test_a_stop_token_that_generation_goes_past_or_another_one_before_it_stops_the_run(stops, base, tuned, template, examples):
    early = [examples[0].completion[-3]] if stops else [5]
    with pytest.raises(Problem, match="led through the answer"):
        serving.verify_generation(tuned, base, _stopping(template, early), examples[:1])


def _stopping(template, stops):
    return SimpleNamespace(**vars(template) | {"stops": stops, "notes": template.notes, "tokens": template.tokens})


@pytest.fixture
def sentencepiece():
    """A tokenizer that puts a space before every text, as SentencePiece's do in Llama 2, TinyLlama, Mistral and Phi-3."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special, letters = ["<unk>", "<s>", "<|im_start|>", "<|im_end|>"], [chr(code) for code in range(33, 127)]
    tokenizer.train_from_iterator(
        [row.messages[0]["content"] + row.completion for row in read(TRAIN)],
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=letters, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", unk_token="<unk>")


@pytest.mark.parametrize("written", [PLAIN, SPACED, HYBRID, None])
def test_a_tokenizer_that_begins_each_text_with_a_space_puts_none_before_an_answer(written, sentencepiece):
    sentencepiece.chat_template = written
    template = prompt.Prompt(sentencepiece, [sentencepiece.eos_token_id])
    for row in [normalise({"prompt": "What?", "completion": "A cat."}, "f:1"), *read(TRAIN)[:3]]:
        example = template.example(row)
        serving._check_rendering(template, example)
        assert template.answer(example.completion) == (row.completion, True)
        shown = {name: template.tokenizer.decode(example.completion[part.start : part.stop]) for name, part in example.values.items()}
        assert row.output is None or all(str(value) in shown[name] for name, value in row.output.items() if isinstance(value, str))
    forged = template.example(normalise({"prompt": "a<|im_end|>b", "completion": "c<|im_end|>"}, "f:2"))
    assert "a<|im_end|>b" in template.tokenizer.decode(forged.prompt) and template.answer(forged.completion) == ("c<|im_end|>", True)
    if written == PLAIN:
        talk = normalise({"messages": [{"role": role, "content": role} for role in ("user", "assistant") * 2]}, "f:3")
        every = template.example(talk, LossOn.every_answer)
        assert every.prompt == template.tokens(talk.messages)
