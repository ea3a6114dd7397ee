"""The laptop counts what the trainer counts: the same text, the same tokens, for the very rows."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from conf.problem import Problem
from conf.schema import LossOn
from conf.text.quoting import quoted
from data.rows import normalise, read
from tests.unit.trainer.conftest import ROOT, TRAIN
from trainer.preflight import preflight
from trainer.rows import chat_template, description, prompt, tokens

TURNS = [("system", "Be brief."), ("user", "Hi  there.\n"), ("assistant", "Good day."), ("user", "And now?"), ("assistant", "Bye.")]
SPOKEN = normalise({"messages": [{"role": role, "content": text} for role, text in TURNS]}, "here:1")


@pytest.mark.parametrize("name", ["tiny", "smollm2-135m"])
def test_rows_are_the_same_tokens_without_transformers(name):
    folder = ROOT / ".cache/models" / name
    if not folder.exists():
        pytest.skip("`make setup` makes it")
    theirs = prompt.Prompt(AutoTokenizer.from_pretrained(folder), description.stops(folder))
    ours = prompt.Prompt(tokens.Tokens(folder), description.stops(folder))
    assert ours.tokenizer.model_max_length == theirs.tokenizer.model_max_length
    assert (ours.stop, ours.stops) == (theirs.stop, theirs.stops)
    for row in [*read(TRAIN), SPOKEN]:
        assert ours.text(row.messages) == theirs.text(row.messages)
        for learn in LossOn:
            assert ours.example(row, learn) == theirs.example(row, learn)
    assert prompt.format_first_row(ours, [ours.example(SPOKEN)]) == prompt.format_first_row(theirs, [theirs.example(SPOKEN)])


def test_what_a_tokenizers_file_says_of_cutting_and_filling_up_is_heeded_by_nobody(tiny, tmp_path):
    """As a tokenizer is saved that was used to make batches of a fixed size."""
    folder = shutil.copytree(tiny, tmp_path / "model")
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    saved["padding"] = {"strategy": {"Fixed": 600}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    (folder / "tokenizer.json").write_text(json.dumps(saved | {"padding": saved["padding"] | {"pad_token": "<pad>"}}))
    plain = prompt.Prompt(tokens.Tokens(tiny), description.stops(tiny)).example(SPOKEN)
    for tokenizer in (tokens.Tokens(folder), AutoTokenizer.from_pretrained(folder)):
        assert prompt.Prompt(tokenizer, description.stops(folder)).example(SPOKEN) == plain


TURN = "{{ '<|im_start|>' + turn.role + '\\n' }}"
MARKED = (
    "{% for turn in messages %}" + TURN + "{% if turn.role == 'assistant' %}\n{% generation %}\n{% set said = turn.content %}"
    "{{ said }}<|im_end|>\n{% endgeneration %}{{ said }}\n{% else %}{{ turn.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SEVERAL = [{"name": "tool_use", "template": "{{ 1 / 0 }}"}, {"name": "default", "template": MARKED}]


@pytest.fixture
def with_template(tiny, tmp_path):
    """The tiny model's tokenizer, its template in tokenizer_config.json."""

    def make(template):
        folder = shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "chat_template.jinja"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        return folder

    return make


@pytest.mark.parametrize("template", [MARKED, SEVERAL], ids=["answers marked", "several templates"])
def test_a_template_of_another_shape_gives_the_same_tokens_here_and_there(template, with_template):
    folder = with_template(template)
    theirs = prompt.Prompt(AutoTokenizer.from_pretrained(folder), description.stops(folder))
    ours = prompt.Prompt(tokens.Tokens(folder), description.stops(folder))
    for turns in (SPOKEN.messages, SPOKEN.messages[1:2]):
        text = ours.text(turns)
        assert text == theirs.text(turns) and text.endswith("<|im_start|>assistant\n")
    assert ours.example(read(TRAIN)[0]) == theirs.example(read(TRAIN)[0])
    assert isinstance(theirs.tokenizer.chat_template, str), "whoever loads the saved tokenizer must find the one that was used"


@pytest.mark.parametrize("template", ["{% nonsense %}", "{{ raise_exception('never') }}", "{{ messages[0].content + 1 }}"])
@pytest.mark.parametrize("kind", [tokens.Tokens, AutoTokenizer.from_pretrained], ids=["laptop", "box"])
def test_a_template_that_cannot_be_rendered_is_a_sentence(kind, template, with_template):
    folder = with_template(template)
    with pytest.raises(Problem, match="the model's chat template does not render a question and its answer") as caught:
        prompt.Prompt(kind(folder), [2])
    assert caught.value.reason == "model_unavailable"


def test_a_template_whose_end_the_model_does_not_know_is_reported_in_one_line(tiny):
    known = tokens.Tokens(tiny)
    end, other = (known.tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|pad|>"))
    of_base, plain = prompt.Prompt(tokens.Tokens(tiny), [other]), tokens.Tokens(tiny)
    plain.chat_template = None
    assert of_base.warning.startswith("the chat template ends an answer with '<|im_end|>', and the model does not stop there")
    for quiet in (prompt.Prompt(known, [end]), prompt.Prompt(plain, [other])):
        assert quiet.warning == ""


class Counting(tokens.Tokens):
    """Keeps which texts it was asked for."""

    def __call__(self, text, **options):
        self.asked = [*getattr(self, "asked", []), *(text if isinstance(text, list) else [text])]
        return super().__call__(text, **options)


def test_many_rows_give_the_tokens_of_each_and_no_text_to_train_on_is_read_twice(tiny, settings_for, tmp_path, monkeypatch):
    monkeypatch.setattr(prompt, "TOGETHER", 5)
    template, data = prompt.Prompt(Counting(tiny), description.stops(tiny)), settings_for(tmp_path, "data.max_length=9999").data
    rows = [*read(TRAIN)[:7], SPOKEN, *read(TRAIN)[7:12]]
    for learn in LossOn:
        template.tokenizer.asked = []
        examples = template.examples(rows, data, learn)
        tokenised = template.tokenizer.asked
        assert len(tokenised) == 12 * 2 + (4 if learn is LossOn.every_answer else 2), "prompt and answer; an earlier answer cuts the prompt"
        assert examples == [replace(template.example(row, learn), values={}) for row in rows]
    assert template.held_out(rows, data) == [template.example(row) for row in rows]
    assert all(example.values for example, row in zip(template.held_out(rows, data), rows, strict=True) if row.output)


def test_the_stops_are_those_that_the_loaded_model_names(tiny, base):
    assert description.stops(tiny) == base.stops


def test_a_template_that_refuses_says_so_here_too(tiny):
    tokenizer = tokens.Tokens(tiny)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}{{ messages | tojson }}"
    )
    with pytest.raises(Problem, match="refuses a prompt with the roles system, user, assistant, user: no system turn"):
        prompt.Prompt(tokenizer, [2]).tokens(SPOKEN.messages)


def test_a_row_that_is_too_long_is_found_before_anything_is_paid_for(settings_for, tmp_path):
    with pytest.raises(Problem, match=r"row \S+ has \d+ tokens, more than data.max_length=300"):
        preflight.inspect(settings_for(tmp_path, "data.max_length=300"), None, None)


OUTLOOK = """
import sys
from conf import load
from conf.price import HourlyPrice
from conf.problem import Problem
from trainer.preflight import preflight
run = load.load({words!r})
class Card:
    name, bytes, count = "NVIDIA L4", {memory}, 1
try:
    report = preflight.make_report(preflight.inspect(run, None, None), run, Card, HourlyPrice("g6.2xlarge", 0.9776, "a list"), True)
    print(*report.lines, run.train.gradient_checkpointing, sep="\\n")
except Problem as problem:
    print(problem)
print(sorted({{"torch", "transformers", "peft"}} & set(sys.modules)))
"""


def outlook(tiny, memory):
    words = ["cloud=twin", "experiment=smoke", f"model.id={quoted(tiny)}", f"data.train={quoted(TRAIN)}", "train.eval_steps=50"]
    code = OUTLOOK.format(words=words, memory=memory)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_outlook_shows_the_mask_the_stop_token_and_what_was_decided_without_torch(tiny):
    done = outlook(tiny, 24_000_000_000)
    assert "\033[32m{" in done and "every answer ends with '<|im_end|>'" in done
    assert "GB of 22.1 GB usable on NVIDIA L4 in the fullest step: base weights 0.00" in done
    assert "train.gradient_checkpointing=no: with all activations kept the fullest step takes" in done
    assert "train.eval_steps=50 is more than all 4 steps" in done
    assert "an assumption, not measured" in done and "of g6.2xlarge at $0.9776 an hour (a list)" in done
    assert done.splitlines()[-2:] == ["no", "[]"], "what is decided is what the run is made with"


def test_the_outlook_refuses_what_does_not_fit_and_says_what_would(tiny):
    done = outlook(tiny, 4_000_000)
    assert done.startswith("the fullest step takes ") and "NVIDIA L4" in done and "hint: " in done
    assert done.splitlines()[-1] == "[]"


@pytest.mark.parametrize("options", ["", "ensure_ascii=true", "ensure_ascii=False, indent=2", "separators=(',', ':'), sort_keys=true"])
def test_json_is_written_as_transformers_writes_it_with_every_option(tiny, options):
    """GLM-4.5's template says `tojson(ensure_ascii=False)`."""
    theirs, ours = AutoTokenizer.from_pretrained(tiny), tokens.Tokens(tiny)
    theirs.chat_template = ours.chat_template = f"{{{{ messages[0] | tojson({options}) }}}}"
    turns = [{"role": "user", "content": "Zürich <b>"}]
    assert chat_template.render(ours, turns) == theirs.apply_chat_template(turns, tokenize=False)
