"""A tokenizer goes into a GGUF file only if llama.cpp reads the rows of the run in the tokens of training; the laptop says so before."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from conf.problem import Problem
from conf.text.quoting import quoted
from data.rows import read
from tests.unit.trainer.conftest import TRAIN
from trainer import __main__ as command
from trainer.export import vocabulary
from trainer.preflight import preflight
from trainer.rows import tokens
from trainer.rows.prompt import Prompt

GGUF = ["publish.merged=true", "publish.gguf=q8_0", "quant=none"]


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def change(file, **values) -> None:
    whole = json.loads(file.read_text())
    for key, value in values.items():
        place = whole["model"] if key in whole["model"] else whole
        place[key] = value
    file.write_text(json.dumps(whole))


def prompts(folder) -> list[Prompt]:
    """The same tokenizer in transformers, as the trainer has it, and as the laptop has it."""
    return [Prompt(each, [2]) for each in (AutoTokenizer.from_pretrained(folder), tokens.Tokens(folder))]


def test_what_is_kept_is_the_tokenizer_and_its_template(tiny):
    mine, laptops = (vocabulary.of(prompt, 643) for prompt in prompts(tiny))
    assert mine == laptops
    assert (mine.pre, mine.ids, mine.add_bos) == ("gpt-2", {"bos": 0, "eos": 2, "pad": 3}, True)
    assert mine.tokens[:5] == ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "!"] and mine.kinds[:5] == [3, 3, 3, 3, 1]
    assert mine.tokens[640:] == ["[PAD640]", "[PAD641]", "[PAD642]"] and mine.kinds[640:] == [5, 5, 5]
    assert "<|im_start|>" in mine.chat_template and len(mine.merges) == 380
    for prompt in prompts(tiny):
        vocabulary.check_tokens(mine, prompt, read(TRAIN))


def test_a_bos_token_that_only_the_template_writes_is_put_there_once(folder):
    change(folder / "tokenizer.json", post_processor=None)
    assert [vocabulary.of(prompt, 640).add_bos for prompt in prompts(folder)] == [False, False]


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ODD = [
    (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"}, BYTES]}},
        "splits text otherwise",
    ),
    ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "splits text otherwise"),
    ({"ignore_merges": True}, "splits text otherwise"),
    ({"normalizer": {"type": "Lowercase"}}, r"changes text before it reads it \(Lowercase\)"),
    ({"byte_fallback": True}, "not byte-level BPE"),
]


@pytest.mark.parametrize(("values", "what"), ODD, ids=[what for _, what in ODD])
def test_another_tokenizer_is_refused_by_the_plan_and_before_training(values, what, folder, settings_for, tmp_path):
    change(folder / "tokenizer.json", **values)
    settings = settings_for(tmp_path / "runs", f"model.id={quoted(folder)}", *GGUF)
    with pytest.raises(Problem, match=f"publish.gguf: the model's tokenizer cannot be written as GGUF: .*{what}") as caught:
        preflight.inspect(settings, None, None)
    assert "`publish.gguf=null`" in caught.value.hint
    settings.run_id = "odd"
    run = tmp_path / "runs/odd"
    run.mkdir(parents=True)
    with pytest.raises(Problem, match=what):
        command.train(settings, run)
    assert not (run / "adapter").exists() and not (run / "checkpoints").exists()


def test_rows_that_llama_cpp_reads_in_other_tokens_are_refused(folder, settings_for, tmp_path):
    """A normaliser that llama.cpp lacks: whether it changes anything, rows show."""
    change(folder / "tokenizer.json", normalizer={"type": "NFC"})
    rows = tmp_path / "rows.jsonl"
    words = [f"model.id={quoted(folder)}", f"data.train={quoted(rows)}", "data.fields=null", *GGUF]
    rows.write_text('{"prompt": "caf\\u00e9", "completion": "a"}\n')
    preflight.inspect(settings_for(tmp_path / "runs", *words), None, None)
    rows.write_text('{"id": "cafe", "prompt": "cafe\\u0301", "completion": "a"}\n')
    with pytest.raises(Problem, match="llama.cpp would read row cafe in other tokens"):
        preflight.inspect(settings_for(tmp_path / "runs", *words), None, None)


KINDS = [
    ({"model_type": "gemma3_text"}, "its architecture is `gemma3_text`"),
    ({"sliding_window": 64, "model_type": "mistral"}, "sliding window"),
    ({"hidden_act": "gelu"}, "its activation is gelu"),
    (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024}},
        "of the kind `yarn`",
    ),
    ({"attention_bias": True, "model_type": "qwen3"}, "it has biases"),
]


@pytest.mark.parametrize(("values", "what"), KINDS, ids=[what for _, what in KINDS])
def test_another_architecture_is_refused_by_name(values, what, folder, settings_for, tmp_path):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Problem, match=f"cannot be written as GGUF: .*{what}") as caught:
        preflight.inspect(settings_for(tmp_path / "runs", f"model.id={quoted(folder)}", *GGUF), None, None)
    assert "`publish.gguf=null`" in caught.value.hint
    preflight.inspect(settings_for(tmp_path / "runs", f"model.id={quoted(folder)}"), None, None)  # trained it can be
