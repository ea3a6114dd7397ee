"""A Modelfile is made only where its template writes what the chat template writes; what Go makes of it: test_gguf_in_llama_cpp."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from conf import load
from data.rows import read
from tests.unit.trainer.conftest import ROOT, TRAIN
from trainer.export import modelfile, vocabulary
from trainer.rows.prompt import Prompt

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"


@pytest.fixture
def made(tiny, tmp_path):
    """Writes a Modelfile for a template and rows: the text, or why there is none."""

    def make(template: str, rows=None) -> tuple[str | None, str | None]:
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        tokenizer.chat_template = template
        prompt = Prompt(tokenizer, [2])
        settings = load.load(["cloud=twin", "experiment=smoke", "data.max_length=500"])
        why = modelfile.write(tmp_path / "model-f16.gguf", settings, prompt, vocabulary.of(prompt, 640), rows or read(TRAIN)[:3])
        file = tmp_path / "Modelfile"
        return file.read_text() if file.exists() else None, why

    return make


def test_it_asks_as_the_run_was_scored(made):
    text, why = made(SYSTEM + CHATML + ASKED)
    lines = text.splitlines()
    assert why is None and lines[0] == "FROM ./model-f16.gguf"
    assert lines[2:] == [
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_ctx 524",
        "PARAMETER num_predict 24",
    ]
    assert r'{{ "<|im_start|>system\nBe kind.<|im_end|>\n" }}' in lines[1] and "<|begin|>" not in lines[1], "Ollama begins by itself"


def read_by_ollama(line: str) -> str:
    """As `unquote` in Ollama's parser/parser.go reads a value: it looks at both ends, and knows no escapes."""
    value = line.removeprefix("PARAMETER stop ")
    marks = next(marks for marks in ('"""', '"') if value.startswith(marks))
    assert value.endswith(marks) and len(value) >= 2 * len(marks)
    return value[len(marks) : -len(marks)]


@pytest.mark.parametrize("stop", ["<|im_end|>", '<"end">', '"end"', "<\\end>", "é"])
def test_a_stop_token_of_any_characters_is_what_ollama_reads(made, monkeypatch, stop):
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.convert_ids_to_tokens", lambda *_words: stop)
    text, why = made(SYSTEM + CHATML + ASKED)
    assert why is None and read_by_ollama(text.splitlines()[2]) == stop


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace("m.content", "m.content | trim") + ASKED,
        CHATML.replace("{{ m.content }}", "{{ m.content }}{% if '</think>' in m.content %} (thought){% endif %}") + ASKED,
        CHATML.replace("{{ m.content }}", "{{ m.content }}{% if loop.last %} (last){% endif %}") + ASKED,
    ],
    ids=["trims", "marks thoughts", "counts turns"],
)
def test_a_template_that_is_more_than_text_around_turns_gets_none(template, made, tmp_path):
    """Shown by turns that were tried; or by a row that it writes otherwise."""
    rows = [replace(row, messages=[{"role": "user", "content": " a</think>b "}]) for row in read(TRAIN)[:2]]
    text, why = made(template, rows)
    assert text is None and ("more than text around each turn" in why or f"write row {rows[0].id} otherwise" in why)


def test_the_shipped_models_get_one(tiny):
    for source in (tiny, ROOT / ".cache/models/smollm2-135m"):
        if source.is_dir():
            prompt = Prompt(AutoTokenizer.from_pretrained(source), [2])
            assert modelfile._frame(prompt, vocabulary.of(prompt, 49152)) is not None
