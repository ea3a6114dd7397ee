"""A merged model is what was trained, in one piece; both ways to merge are scored, and the one that scores better is kept."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from bitsandbytes import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf import load, schema
from conf.problem import Problem
from conf.text.quoting import quoted
from trainer import __main__ as command
from trainer.evaluate import finished_run
from trainer.files import read_json_lines
from trainer.model import model
from trainer.record import card, figures, record
from trainer.train import merge


@pytest.fixture(scope="module")
def run(settings_for, tmp_path_factory) -> Path:
    """A finished run that made a merged model."""
    settings = settings_for(tmp_path_factory.mktemp("merged") / "runs", "publish.merged=true")
    settings.run_id = "merged"
    folder = Path(settings.runs) / settings.run_id
    (folder / "merged-w16").mkdir(parents=True)  # as an attempt leaves it that was killed while it merged
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    return folder


def logits(model, tokens):
    with torch.inference_mode():
        return model(input_ids=tokens).logits


def test_the_round_trip_gives_the_weights_that_training_saw(base_for):
    trained, plain = base_for(schema.Quantisation.nf4).model, base_for().model
    merge.quantize_dequantize(plain, double_quant=True)
    compared = 0
    for name, module in trained.named_modules():
        if type(module).__name__ == "Linear4bit":
            stored = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert torch.equal(plain.get_submodule(name).weight, stored.to(plain.dtype)), name
            compared += 1
    assert compared == 14
    assert torch.equal(plain.lm_head.weight, base_for().model.lm_head.weight), "the head is never quantised"


@pytest.mark.parametrize(("form", "kind"), [("nf4", schema.Quantisation.nf4), ("w16", schema.Quantisation.none)])
def test_a_merged_model_expects_what_base_and_adapter_expect(trained, base_for, form, kind):
    from peft import PeftModel

    tokens = torch.tensor([[1, 50, 200, 33, 7, 90]])
    merged = merge.build(form, None, record.settings(trained), trained / "adapter")
    unmerged = PeftModel.from_pretrained(base_for(kind).model, trained / "adapter").eval()
    assert torch.allclose(logits(merged, tokens), logits(unmerged, tokens), atol=2e-4)
    assert not torch.allclose(logits(merged, tokens), logits(base_for(kind).model, tokens), atol=1e-2), "the adapter does nothing"


def test_the_two_forms_differ_and_nothing_is_left_in_4_bit(trained):
    one, other = (merge.build(form, None, record.settings(trained), trained / "adapter") for form in ("nf4", "w16"))
    assert not torch.equal(one.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)
    assert {type(module) for module in one.modules() if isinstance(module, torch.nn.Linear)} == {torch.nn.Linear}


def test_the_better_form_is_kept_and_a_tie_goes_to_what_was_trained():
    def scored(nf4, w16):
        return {"nf4": {"kind": "extraction", "macro_f1": nf4}, "w16": {"kind": "extraction", "macro_f1": w16}}

    assert merge.best(scored(0.5, 0.6)) == "w16"
    assert merge.best(scored(0.6, 0.5)) == "nf4"
    assert merge.best(scored(0.5, 0.5)) == "nf4"
    assert merge.forms_of(schema.Quantisation.none) == ("w16",)


@pytest.mark.slow
def test_the_run_holds_one_merged_model_and_the_scores_of_both(run):
    listed = record.verify(run)["files"]
    assert {"merged/model.safetensors", "merged/config.json", "merged/tokenizer.json"} <= set(listed)
    assert not [name for name in listed if name.startswith("merged-")] and not list(run.glob("merged-*"))
    merged = json.loads((run / "metrics.json").read_text())["merged"]
    assert set(merged["forms"]) == {"nf4", "w16"} and merged["chosen"] == merge.best(merged["forms"])
    assert all(side["rows"] == 4 for side in merged["forms"].values())


@pytest.mark.slow
def test_read_back_with_plain_transformers_it_gives_the_answers_that_were_scored(run):
    """None of our code between the saved files and the answers, one row at a time; no PEFT at all."""
    tokenizer = AutoTokenizer.from_pretrained(run / "merged")
    plain = AutoModelForCausalLM.from_pretrained(run / "merged", dtype="auto").eval()
    for row in read_json_lines(run / "predictions.jsonl"):
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            output = plain.generate(**tokens, max_new_tokens=24, do_sample=False, eos_token_id=tokenizer.eos_token_id)
        assert tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True) == row["merged"]


@pytest.mark.slow
def test_the_card_names_the_form_that_was_chosen_and_scores_both(run):
    text, chosen = card.render(run, "me/quick"), json.loads((run / "metrics.json").read_text())["merged"]["chosen"]
    assert "`me/quick-merged`" in text
    assert text.count("(published)") == 1 and f"| {figures.FORMS[chosen]} (published) |" in text
    assert all(name in text for name in figures.FORMS.values())
    assert all(name.replace("'", "&#39;") in (run / "report.html").read_text() for name in figures.FORMS.values())


@pytest.mark.slow
def test_the_adapter_of_the_run_is_still_that_of_training(run):
    assert finished_run.load(run).base.precision == record.manifest(run)["precision"]


TOUCHED = [  # what an adapter may change of the embeddings and the head, which many small models share
    (["q_proj", "embed_tokens"], {}),
    (["q_proj", "lm_head"], {}),
    (["q_proj", "embed_tokens", "lm_head"], {}),
    (["q_proj", "embed_tokens"], {"ensure_weight_tying": True}),
    ("all-linear", {"modules_to_save": ["lm_head"]}),
    ("all-linear", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    ("all-linear", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    ("all-linear", {"trainable_token_indices": [1, 5]}),
    ("all-linear", {"trainable_token_indices": {"embed_tokens": [1, 5]}}),
]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request, tiny, tmp_path) -> Path:
    """The tiny model, its head the embedding or one of its own."""
    base_model = AutoModelForCausalLM.from_pretrained(tiny)
    if not request.param:
        base_model.config.tie_word_embeddings = False
        base_model.lm_head.weight = torch.nn.Parameter(base_model.lm_head.weight.flip(0).clone())
    shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    base_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("targets", "options"), TOUCHED)
def test_the_exported_and_the_merged_model_are_the_trained_one_whatever_the_adapter_changes(
    targets, options, folder, settings_for, tmp_path
):
    settings = settings_for(tmp_path / "runs", f"model.id={quoted(folder)}", "quant=none")
    base = model.load(settings.model, settings.quant)
    try:
        tuned = model.add_adapter(base, schema.Lora(8, 16, 0.0, targets, options), gradient_checkpointing=False).eval()
    except Problem as problem:
        pytest.skip(f"refused: {problem.what}")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (each for each in tuned.parameters() if each.requires_grad):
            weight.add_(torch.randn(weight.shape, generator=draw) * 0.05)
    tokens = torch.tensor([[1, 50, 200, 33, 7, 90]])
    expected = logits(tuned, tokens)
    model.save(tuned, base, settings.model, tmp_path / "adapter")
    whole = merge.load_with_adapter("w16", None, settings, tmp_path / "adapter")
    torch.testing.assert_close(logits(whole, tokens), expected, rtol=1e-4, atol=1e-4)
    merge.merged(whole).save_pretrained(tmp_path / "merged")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    torch.testing.assert_close(logits(saved, tokens), expected, rtol=1e-3, atol=1e-3)


def test_a_merged_model_that_is_not_the_trained_one_stops_the_run_its_scores_written(settings_for, tmp_path, monkeypatch):
    """As tied embeddings were merged: the file is not what was scored."""
    settings = settings_for(tmp_path / "runs", "publish.merged=true", "quant=none", "train.steps=1", "data.eval_rows=2")
    settings.run_id, own = "wrong", merge.merged

    def wrong(whole):
        merged = own(whole)
        merged.lm_head.weight.data.mul_(1.5)
        return merged

    monkeypatch.setattr(merge, "merged", wrong)
    folder = tmp_path / "runs/wrong"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    with pytest.raises(Problem, match=r"the merged model \(w16\) expects other tokens than base and adapter"):
        command.train(settings, folder)
    assert json.loads((folder / "metrics.json").read_text())["tuned"], "what was scored is not lost"
