"""An answer is learned where the model's own template puts it, so that what is trained is what serving produces."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from conf import load
from conf.problem import Problem
from conf.schema import LossOn
from conf.text.quoting import quoted
from data.rows import normalise, read
from tests.unit.trainer.conftest import TRAIN, VALIDATION
from trainer import __main__ as command
from trainer.evaluate import finished_run
from trainer.files import read_json_lines
from trainer.record import card, record
from trainer.rows import description, prompt, tokens

OPEN = "{% for turn in messages %}"
USER = "{% if turn.role != 'assistant' %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% else %}"
CLOSE = "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
# Shapes of templates that people use, each in our own words.
PLAIN = OPEN + USER + "<|im_start|>assistant\n{{ turn.content }}<|im_end|>\n" + CLOSE + "{% endif %}"
LAST_THINKS = (
    "{% set said = turn.content.split('</think>')[-1] %}{% if loop.last %}<|im_start|>assistant\n<think>\n\n</think>\n\n{{ said }}"
)
THINKS = OPEN + USER + LAST_THINKS + "<|im_end|>\n{% else %}<|im_start|>assistant\n{{ said }}<|im_end|>\n{% endif %}" + CLOSE
HYBRID = THINKS + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
OPENED = (
    THINKS + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
FORGETS = PLAIN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
CHANNEL = PLAIN.replace("assistant\n{{ turn.content }}", "assistant\n<channel>final<message>{{ turn.content | trim }}<end>")
SPACED = (
    OPEN
    + "{% if turn.role == 'assistant' %} {{ turn.content }}<|im_end|>{% else %}[INST] {{ turn.content }} [/INST]{% endif %}{% endfor %}"
)
GENERATED = PLAIN.replace(
    "{{ turn.content }}<|im_end|>\n{% endif", "{% generation %}{{ turn.content | upper }}<|im_end|>{% endgeneration %}\n{% endif"
)
ROW = normalise({"prompt": "What is it?", "completion": "A cat."}, "f:1")
TALK = normalise(
    {
        "messages": [
            {"role": role, "content": text} for role, text in (("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b"))
        ]
    },
    "f:2",
)


def settings(*words):
    return load.load(["cloud=twin", *words]).data


@pytest.fixture(params=["box", "laptop"])
def make_prompt(request, tiny):
    def make(template, *words):
        tokenizer = AutoTokenizer.from_pretrained(tiny) if request.param == "box" else tokens.Tokens(tiny)
        tokenizer.chat_template = template
        return prompt.Prompt(tokenizer, description.stops(tiny), settings(*words))

    return make


def learned(template, example):
    whole = example.prompt + example.completion
    return [template.tokenizer.decode(whole[start:end]) for start, end in example.turns]


@pytest.mark.parametrize(
    ("template", "words", "answer"),
    [
        (PLAIN, [], "A cat.<|im_end|>"),
        (HYBRID, [], "<think>\n\n</think>\n\nA cat.<|im_end|>"),
        (HYBRID, ["data.chat_template_kwargs={enable_thinking: false}"], "A cat.<|im_end|>"),
        (OPENED, [], "\n</think>\n\nA cat.<|im_end|>"),
        (OPENED, ["data.chat_template_kwargs.enable_thinking=false"], "A cat.<|im_end|>"),
        (CHANNEL, [], "<channel>final<message>A cat.<end><|im_end|>"),
        (SPACED, [], " A cat.<|im_end|>"),
    ],
)
def test_prompt_and_answer_are_what_the_template_writes_for_the_finished_conversation(make_prompt, tiny, template, words, answer):
    rendering, theirs = make_prompt(template, *words), AutoTokenizer.from_pretrained(tiny)
    theirs.chat_template = rendering.tokenizer.chat_template
    example = rendering.example(ROW)
    assert learned(rendering, example) == [answer]
    chat = [*ROW.messages, {"role": "assistant", "content": ROW.completion}]
    whole = theirs.apply_chat_template(chat, tokenize=False)
    assert whole.startswith(rendering.tokenizer.decode(example.prompt + example.completion))
    generation_prompt = theirs.apply_chat_template(ROW.messages, tokenize=False, add_generation_prompt=True)
    assert example.prompt == rendering.tokens(ROW.messages) == rendering.encode(generation_prompt), "what serving starts from"
    assert rendering.answer(example.completion) == (ROW.completion, True), "what is scored is the answer alone"
    assert example.row == ROW


def test_what_stands_before_each_answer_is_reported_with_the_setting_that_puts_it_into_the_prompt(make_prompt):
    template = make_prompt(HYBRID)
    warning = template.warning
    assert warning.startswith("the chat template writes '<think>\\n\\n</think>\\n\\n' before each answer")
    assert "`'data.chat_template_kwargs={enable_thinking: false}'` puts it into the prompt" in warning
    assert make_prompt(PLAIN).warning == ""


def test_what_the_model_thought_is_no_part_of_its_answer(make_prompt):
    template = make_prompt(HYBRID)
    thought = [*template.encode("<think>\nA dog? </think> No.\n</think>\n\nA cat."), template.stop]
    assert template.answer(thought) == ("A cat.", True)
    assert template.answer(template.encode("<think>\nA dog, or")) == ("<think>\nA dog, or", False)
    reasoned = template.example(replace(ROW, completion="<think>hm</think>\n\nA cat."))
    assert reasoned.row.completion == "A cat." and template.answer(reasoned.completion) == ("A cat.", True)


def test_a_template_whose_generation_prompt_differs_from_an_answer_is_refused(make_prompt):
    closing = FORGETS.replace("<think>\n{%", "{{ '' if thinking is defined and not thinking else '<think>\n' }}{%")
    for template, hint in ((FORGETS, "data.chat_template=FILE.jinja"), (closing, "`'data.chat_template_kwargs={thinking: false}'`")):
        with pytest.raises(Problem, match="starts generation with '.*<think>.n' where a finished answer has '.*A cat") as caught:
            make_prompt(template).example(ROW)
        assert hint in caught.value.hint
    assert make_prompt(closing, "data.chat_template_kwargs={thinking: false}").example(ROW)


@pytest.mark.parametrize("template", [HYBRID, OPENED, CHANNEL, PLAIN, SPACED])
def test_a_conversation_is_never_refused_for_how_its_history_is_written(make_prompt, template):
    rendering = make_prompt(template)
    example = rendering.example(TALK)
    assert len(example.turns) == 1 and rendering.answer(example.completion) == ("b", True)
    assert example.prompt == rendering.tokens(TALK.messages)


def test_every_answer_is_learned_where_the_model_would_have_given_it(make_prompt):
    assert learned(*_pair(make_prompt(PLAIN))) == ["a<|im_end|>", "b<|im_end|>"]
    assert learned(*_pair(make_prompt(CHANNEL))) == ["<channel>final<message>a<end><|im_end|>", "<channel>final<message>b<end><|im_end|>"]
    for template in (HYBRID, OPENED):
        with pytest.raises(Problem, match="row f:2: .* changes an earlier answer") as caught:
            make_prompt(template).example(TALK, LossOn.every_answer)
        assert "data.loss_on=last_answer" in caught.value.hint
        assert make_prompt(template).example(replace(TALK, weights={1: 0}), LossOn.every_answer), "it is not learned"


def _pair(template):
    return template, template.example(TALK, LossOn.every_answer)


def test_every_answer_is_learned_by_the_marks_that_the_template_has(make_prompt):
    marked = HYBRID.replace("{{ said }}<|im_end|>\n{% endif %}", "{% generation %}{{ said }}<|im_end|>{% endgeneration %}\n{% endif %}")
    marked = marked.replace("\n\n{{ said }}<|im_end|>\n{% else", "\n\n{% generation %}{{ said }}<|im_end|>{% endgeneration %}\n{% else")
    template = make_prompt(marked)
    assert learned(*_pair(template)) == ["a<|im_end|>", "<think>\n\n</think>\n\nb<|im_end|>"]
    example = template.example(TALK, LossOn.every_answer)
    assert template.tokenizer.decode(example.prompt) == template.text(TALK.messages)


def test_a_template_that_leaves_out_the_question_or_the_answer_is_refused(make_prompt):
    for template in (
        PLAIN.replace("{{ turn.role }}\n{{ turn.content }}", ""),
        PLAIN.replace("{{ turn.content }}<|im_end|>\n" + CLOSE, "<|im_end|>\n" + CLOSE),
    ):
        with pytest.raises(Problem, match="leaves out what a turn of `(user|assistant)` says") as caught:
            make_prompt(template).example(ROW)
        assert "data.chat_template=FILE.jinja" in caught.value.hint


def test_a_template_of_the_users_own_and_its_values_are_saved_with_the_tokenizer(tiny, tmp_path, monkeypatch):
    (tmp_path / "mine ü.jinja").write_text(HYBRID + "{# ${x} #}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run = load.load(
        ["cloud=twin", "data.chat_template=mine ü.jinja", "data.chat_template_kwargs={enable_thinking: false, tools: [{a: 1}]}"]
    )
    again = load.read(load.dump(run))
    assert again.data.chat_template == run.data.chat_template == HYBRID + "{# ${x} #}\n", "what the file holds, not where it lies"
    rendering = prompt.Prompt(
        AutoTokenizer.from_pretrained(tiny), description.stops(tiny), replace(again.data, chat_template_kwargs={"enable_thinking": False})
    )
    assert rendering.text(ROW.messages).endswith("assistant\n<think>\n\n</think>\n\n")
    rendering.tokenizer.save_pretrained(tmp_path)
    anybody = AutoTokenizer.from_pretrained(tmp_path)
    assert anybody.apply_chat_template(ROW.messages, tokenize=False, add_generation_prompt=True) == rendering.text(ROW.messages)
    ours = prompt.Prompt(
        anybody, description.stops(tiny), replace(again.data, chat_template=None, chat_template_kwargs={"enable_thinking": False})
    )
    assert ours.example(ROW) == rendering.example(ROW)
    assert ours.tokenizer.chat_template == rendering.tokenizer.chat_template, "a settled one stays as it is"


def test_values_that_a_template_does_not_read_are_refused_by_name(make_prompt):
    with pytest.raises(Problem, match="has `enable_thinkin`, which the model's chat template does not read") as caught:
        make_prompt(HYBRID, "data.chat_template_kwargs={enable_thinkin: false}")
    assert "did you mean `enable_thinking`?" in caught.value.hint
    with pytest.raises(Problem, match="data.chat_template_kwargs has messages"):
        settings("data.chat_template_kwargs={messages: 1}")
    with pytest.raises(Problem, match="data.chat_template names nowhere.jinja, which cannot be read"):
        settings("data.chat_template=nowhere.jinja")
    with pytest.raises(Problem, match="no Jinja template|does not render"):
        make_prompt("{% if %}", "data.chat_template_kwargs={enable_thinking: false}")


def test_a_run_is_scored_on_answers_alone_and_a_finished_model_is_asked_as_in_training(settings_for, tmp_path, capsys):
    (tmp_path / "hybrid.jinja").write_text(HYBRID)
    words = [f"data.chat_template={quoted(tmp_path / 'hybrid.jinja')}", "quant=none", "train.steps=1", "train.batch_size=2"]
    settings, folder = settings_for(tmp_path / "runs", *words, "data.eval_rows=2"), tmp_path / "runs/thinks"
    settings.run_id = folder.name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    predictions = read_json_lines(folder / "predictions.jsonl")
    assert [row["expected"] for row in predictions] == [row.completion for row in read(VALIDATION)[:2]]
    assert "[[<think>\n\n</think>\n\n{" in capsys.readouterr().out, "what is learned is shown"
    assert record.manifest(folder)["answers_behind"] == "</think>" and "rpartition('</think>')" in card.render(folder, "me/thinks")
    again = finished_run.load(folder).prompt
    template = prompt.Prompt(AutoTokenizer.from_pretrained(settings.model.id), again.stops, settings.data)
    assert [again.example(row) for row in read(TRAIN)[:3]] == [template.example(row) for row in read(TRAIN)[:3]]


def test_tools_of_all_rows_are_written_where_a_row_has_none(make_prompt):
    template = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + PLAIN
    rendering = make_prompt(template, "data.chat_template_kwargs={tools: [{type: function, function: {name: weather}}]}")
    assert '"weather"' in rendering.text(ROW.messages) and '"weather"' in rendering.tokenizer.decode(rendering.example(ROW).prompt)
    own = [{"type": "function", "function": {"name": "clock"}}]
    assert '"clock"' in rendering.text(ROW.messages, own) and '"weather"' not in rendering.text(ROW.messages, own)
