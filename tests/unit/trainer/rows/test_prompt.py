"""One rendering for training, evaluation and prediction; one BOS; a stop token in every row; nothing cut."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from conf.problem import Problem
from conf.schema import Data, LossOn, TooLong
from data.rows import normalise, read
from tests.unit.trainer.conftest import TRAIN
from trainer.rows import chat_template as templates
from trainer.rows import prompt

QUESTION = normalise({"prompt": "What is it?", "completion": "A cat."}, "here:1")


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


def data(max_length: int, too_long: TooLong) -> Data:
    return Data("a", "b", None, max_length, too_long, LossOn.last_answer, {}, 4, 24)


def test_every_row_has_one_bos_and_ends_with_a_stop_token_that_is_learned(template):
    for row in read(TRAIN):
        example = template.example(row)
        tokens = example.prompt + example.completion
        assert tokens[0] == template.tokenizer.bos_token_id
        assert tokens.count(template.tokenizer.bos_token_id) == 1
        assert example.completion[-1] == template.stop in template.stops
        assert template.answer(example.completion) == (row.completion, True)


def test_a_glance_at_a_stranger_s_rows_and_template_shows_no_control_characters(tokenizer):
    tokenizer.chat_template = "\x1b]0;owned\x07" + tokenizer.chat_template
    made = prompt.Prompt(tokenizer, [tokenizer.eos_token_id])
    evil = normalise({"id": "\x1b[2J", "prompt": "\x1b[31mWhat is it?", "completion": "\x9bA cat."}, "here:1")
    told = prompt.format_first_row(made, [made.example(evil)], colour=True)
    assert "\\x1b[31mWhat" in told and "\\x1b]0;owned\\x07" in told and "\\x9bA cat." in told
    assert told.count("\x1b") == 2 and not {"\x07", "\x9b"} & set(told), "only our own colour"


def test_a_template_without_bos_gets_the_one_that_the_tokenizer_would_put(tokenizer):
    bos = tokenizer.bos_token_id
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    without = prompt.Prompt(tokenizer, [tokenizer.eos_token_id]).tokens(QUESTION.messages)
    adds = tokenizer("")["input_ids"] == [bos]
    assert without.count(bos) == int(adds)


def test_a_base_model_gets_a_plain_prompt_and_stops_with_its_own_end_token(tokenizer):
    tokenizer.chat_template = None
    plain = prompt.Prompt(tokenizer, [tokenizer.eos_token_id])
    assert plain.text(QUESTION.messages).removeprefix(tokenizer.bos_token) == "What is it?\n\n"
    assert plain.example(QUESTION).completion[-1] == tokenizer.eos_token_id


def test_the_stop_is_the_token_that_the_template_puts_behind_an_answer(tokenizer):
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|pad|>"])
    tokenizer.eos_token = "<|pad|>"
    assert prompt.Prompt(tokenizer, [pad, end]).stop == end
    assert tokenizer.eos_token_id == end, "whoever loads the saved tokenizer stops there too"


def test_a_stop_that_the_tokenizer_does_not_have_is_left_out(tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert prompt.Prompt(tokenizer, [end, 5000]).stops == [end]


def test_a_template_that_writes_the_date_renders_the_same_bytes_on_every_day(tokenizer):
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{% if date_string is defined %}{{ date_string }}{% endif %}" + templates.PLAIN
    rendered = prompt.Prompt(tokenizer, [tokenizer.eos_token_id]).text(QUESTION.messages)
    assert "26 Jul 202426 Jul 2024What is it?" in rendered


def test_a_settled_tokenizer_renders_the_same_after_it_was_saved_and_loaded(template, tmp_path):
    template.tokenizer.save_pretrained(tmp_path)
    again = prompt.Prompt(AutoTokenizer.from_pretrained(tmp_path), template.stops)
    for row in read(TRAIN):
        assert again.example(row) == template.example(row)


def test_a_row_that_is_too_long_stops_the_run_and_is_named(template):
    rows = read(TRAIN)
    longest = max(len(template.example(row)) for row in rows)
    with pytest.raises(Problem, match=rf"row \S+ has \d+ tokens, more than data.max_length=300[^$]*data.max_length={longest}`") as caught:
        template.examples(rows, data(300, TooLong.refuse))
    assert caught.value.reason == "bad_data"


def test_a_row_that_is_too_long_is_left_out_whole_only_when_asked(template, capsys):
    rows = read(TRAIN)
    examples = template.held_out(rows, data(300, TooLong.drop))
    left_out = [row for row in rows if len(template.example(row)) > 300]
    assert 0 < len(examples) == len(rows) - len(left_out)
    assert all(example == template.example(example.row) for example in examples), "none was cut"
    printed = capsys.readouterr().err
    assert f"left out: {len(left_out)} of {len(rows)} rows" in printed and left_out[0].id in printed


def test_a_template_that_refuses_a_role_is_a_problem_of_the_data(tokenizer):
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + templates.PLAIN
    strict = prompt.Prompt(tokenizer, [tokenizer.eos_token_id])
    row = replace(QUESTION, messages=[{"role": "system", "content": "Be brief."}, *QUESTION.messages])
    with pytest.raises(Problem, match="refuses a prompt with the roles system, user: no system turn"):
        strict.example(row)


def few_words(normalizer=None):
    """A tokenizer that has a token for few words and none for others, as older ones without bytes have for strange letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", "What", "is", "it", "?", "A", "cat", ".", "a", "Answer", ":"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer:
        made.normalizer = normalizer
    return prompt.Prompt(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"), [2])


def test_an_answer_that_the_tokenizer_has_no_token_for_is_refused_and_named():
    template = few_words()
    template.example(QUESTION)
    with pytest.raises(Problem, match=r"row here:1: the model's tokenizer has no token for a part of the answer.*'A <unk>"):
        template.example(replace(QUESTION, completion="A dog."))


def test_answers_that_the_tokenizer_changes_are_reported(tokenizer):
    from tokenizers.normalizers import Lowercase

    (note,) = few_words(Lowercase()).notes([replace(QUESTION, completion="A a"), replace(QUESTION, completion="a A", id="two")])
    assert "does not preserve answers: 'A a' of row here:1 and 1 more becomes 'a a'" in note
    assert prompt.Prompt(tokenizer, [2]).notes(read(TRAIN)) == []
