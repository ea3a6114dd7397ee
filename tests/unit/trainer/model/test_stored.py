"""A base model that its owner has quantised is trained as it is stored, and said to be that; never quantised or merged into."""

import shutil

import pytest

from conf import load, schema
from conf.problem import Problem
from conf.text.quoting import quoted
from tests.unit.trainer.finished_run import finished
from trainer import __main__ as command
from trainer.estimate import architecture
from trainer.model import model
from trainer.preflight import preflight
from trainer.record import card, record


@pytest.fixture
def stored(tiny, tmp_path, base_for):
    folder = shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    base_for(schema.Quantisation.nf4).model.save_pretrained(folder)
    return folder


def test_it_is_trained_as_it_is_stored_and_the_record_says_so(stored, settings_for, tmp_path):
    words = [f"model.id={quoted(stored)}", "quant=none", "train.steps=1", "data.eval_rows=2", "train.gradient_checkpointing=auto"]
    settings, folder = settings_for(tmp_path / "runs", *words), tmp_path / "runs/stored"
    settings.run_id = folder.name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    manifest = record.manifest(folder)
    assert (
        manifest["stored"] == "bitsandbytes nf4 4 bits"
        and "base weights as they are stored: bitsandbytes nf4 4 bits" in manifest["precision"]
    )
    assert "| weights of the base model | as stored there: bitsandbytes nf4 4 bits |" in card.render(folder, "me/quick")
    assert record.settings(folder).train.gradient_checkpointing == "yes", "where what layers keep is only estimated, memory is saved"
    weights = model.load(settings.model, settings.quant).model.parameters()
    assert manifest["plan"]["planned_memory"]["base weights"] == pytest.approx(sum(weight.nbytes for weight in weights), rel=0.1)


@pytest.mark.parametrize(
    ("words", "hint"), [(["quant=nf4"], "`quant=none`"), (["quant=none", "publish.merged=true"], "`publish.merged=false`")]
)
def test_it_is_neither_quantised_again_nor_merged_into(words, hint, stored, settings_for, tmp_path):
    settings = settings_for(tmp_path / "runs", f"model.id={quoted(stored)}", *words)
    with pytest.raises(Problem, match="is stored quantised .bitsandbytes nf4 4 bits.") as caught:
        preflight.inspect(settings, None, None)
    assert hint in caught.value.hint


def test_what_others_store_is_named_by_its_method(tmp_path):
    for config, described in (
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq 4 bits"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "bitsandbytes 8 bits"),
        ({}, None),
    ):
        assert architecture.stored_quantisation(config) == described
    assert "| weights of the base model | 4-bit NF4" in card.render(finished(tmp_path / "plain"), "me/quick")
