"""A run's GGUF file is its merged model, shown by reading it back; a file that is not is left out, and the run stands."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from conf import load
from conf.problem import Problem
from conf.schema import Gguf
from trainer import __main__ as command
from trainer.export import gguf_file
from trainer.files import read_json_lines
from trainer.record import card, record

WORDS = ["publish.merged=true", "quant=none", "train.steps=2", "data.eval_rows=2"]


def trained(settings_for, folder: Path, *words: str) -> Path:
    settings = settings_for(folder / "runs", *WORDS, *words)
    settings.run_id = "shipped"
    run = Path(settings.runs) / settings.run_id
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(load.dump(settings))
    command.train(settings, run)
    return run


@pytest.fixture(scope="module")
def run(settings_for, tmp_path_factory) -> Path:
    return trained(settings_for, tmp_path_factory.mktemp("shipped"), "publish.gguf=q8_0")


def test_the_file_is_sealed_with_the_run_scored_and_named_on_the_card(run):
    assert {"merged/model-q8_0.gguf", "merged/Modelfile"} <= set(record.verify(run)["files"])
    told = json.loads((run / "metrics.json").read_text())["gguf"]
    assert (told["format"], told["file"], told["why"], told["modelfile"]) == ("q8_0", "model-q8_0.gguf", None, None)
    assert told["scores"]["rows"] == 2 and all("gguf" in row for row in read_json_lines(run / "predictions.jsonl"))
    assert "that as a GGUF file, q8_0 (published)" in card.render_merged(run, "me/tiny-merged", "me/tiny")


def test_transformers_reads_the_same_model_out_of_it(run):
    merged = run / "merged"
    ours = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert gguf_file.load_into(ours, merged / "model-q8_0.gguf"), "in 8 bits other numbers"
    theirs = AutoModelForCausalLM.from_pretrained(merged, gguf_file="model-q8_0.gguf", dtype=torch.float32)
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in ours.state_dict().items())


@pytest.mark.parametrize(("dtype", "changed"), [(torch.float16, False), (torch.bfloat16, True)])
def test_only_a_model_whose_weights_f16_holds_is_not_scored_twice(dtype, changed, run, tmp_path):
    """f16 holds every weight of f16; of bf16 not those below 2**-17, of which the tiny model has some."""
    merged = tmp_path / "merged"
    merged.mkdir()
    for file in (run / "merged").glob("*.json"):
        (merged / file.name).write_bytes(file.read_bytes())
    low = AutoModelForCausalLM.from_pretrained(run / "merged", dtype=dtype)
    low.save_pretrained(merged)
    vocabulary = gguf_file.read_vocabulary(gguf.GGUFReader(run / "merged/model-q8_0.gguf"))
    gguf_file.write(merged, "low", vocabulary, Gguf.f16, merged / "model-f16.gguf")
    assert gguf_file.load_into(low, merged / "model-f16.gguf") is changed


@pytest.mark.parametrize("form", [gguf_file.F16, gguf_file.Q8_0, gguf_file.F32])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 0.0, 1e4])
def test_weights_are_packed_and_unpacked_as_llama_cpp_does(form, scale):
    values = torch.randn(48, 96, generator=torch.Generator().manual_seed(1)) * scale
    values[0, :32] = torch.arange(-127, -95) / 2  # halves of a step
    packed = gguf_file.packed(values, form)
    assert np.array_equal(packed, gguf.quants.quantize(values.numpy(), form))
    read = gguf.ReaderTensor("x", form, np.array(values.shape), values.numel(), packed.nbytes, 0, packed, None)
    assert np.array_equal(gguf_file.unpacked(read).numpy(), gguf.dequantize(packed, form))
    assert ((gguf_file.unpacked(read) - values).abs() <= gguf_file._bound(values, form)).all()


def test_a_weight_that_f16_cannot_hold_is_beyond_the_bound():
    values = torch.full((1, 32), 7e4)
    assert not ((values.to(torch.float16).float() - values).abs() <= gguf_file._bound(values, gguf_file.F16)).any()


def test_a_file_that_is_not_the_merged_model_is_left_out_and_the_run_is_finished(settings_for, tmp_path, monkeypatch, capsys):
    own = gguf_file.packed

    def wrong(values, form):
        return own(values + 0.05 * (values.dim() > 1), form)

    monkeypatch.setattr(gguf_file, "packed", wrong)
    run = trained(settings_for, tmp_path, "publish.gguf=f16")
    told = json.loads((run / "metrics.json").read_text())["gguf"]
    assert told["file"] is None and "is not the merged model's" in told["why"]
    assert not list((run / "merged").glob("*.gguf")) and (run / "merged/model.safetensors").exists() and record.sealed(run)
    assert "gguf: not made: publish.gguf: model-f16.gguf was read back, and its tensor" in capsys.readouterr().out
    assert told["why"] in card.render_merged(run, "me/tiny-merged", "me/tiny")


REFUSED = [
    (["publish.gguf=q4_k_m", "publish.merged=true"], "only llama.cpp's own program can make", "llama-quantize"),
    (["publish.gguf=f16"], "which is made of the merged model", "publish.merged=true"),
    (["publish.gguf=true", "publish.merged=true"], "cannot be true", "it takes one of f16, q8_0, q4_k_m"),
]


@pytest.mark.parametrize(("words", "what", "hint"), REFUSED)
def test_what_cannot_be_made_is_refused_when_it_is_typed(words, what, hint):
    with pytest.raises(Problem, match=what) as caught:
        load.load(["cloud=twin", *words])
    assert hint in caught.value.hint


def test_it_is_made_before_the_run_is_sealed_so_that_it_is_another_run_with_it():
    plain, with_it = (load.load(["cloud=twin", "publish.merged=true", *more]) for more in ([], ["publish.gguf=f16"]))
    assert load.fingerprint(plain) != load.fingerprint(with_it)
