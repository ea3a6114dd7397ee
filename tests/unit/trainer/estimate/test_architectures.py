"""Nothing is trained of which nobody knows what training makes of it: a verdict on every class that transformers can load."""

import json
from contextlib import nullcontext

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from conf.problem import Problem
from tests.unit.trainer import architectures
from trainer.estimate import architecture
from trainer.model import model


def test_every_class_that_transformers_loads_as_a_causal_language_model_has_a_verdict():
    assert architecture.table().keys() == MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    assert {verdict.outcome for verdict in architecture.table().values()} == {"packed", "alone", "refused"}
    assert all(verdict.why or verdict.outcome == "packed" for verdict in architecture.table().values())


def test_the_page_is_made_of_the_table():
    assert architectures.PAGE.read_text() == architectures.page(json.loads(architectures.TABLE.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", architecture.table())  # each by itself: its memory is free for the next one
def test_a_small_model_of_each_class_is_trained_as_the_table_says(kind):
    measured, stated = architectures.verdict(kind), architecture.table()[kind]
    assert (measured["outcome"], measured.get("gradient_checkpointing", True)) == (stated.outcome, stated.gradient_checkpointing)


@pytest.mark.parametrize("kind", ["llama", "ctrl", "jetmoe", "openai-gpt", "gpt_neox_japanese"])
def test_what_cannot_compute_activations_again_keeps_them_or_is_refused(kind, settings_for, tmp_path):
    able = kind == "llama"
    base = model.BaseModel(architectures.small(kind), None, None, [], "fp32", "sdpa")
    verdict, run = architecture.verdict("owner/name", {"model_type": kind}), settings_for(tmp_path, "train.gradient_checkpointing=yes")
    assert verdict.gradient_checkpointing == able
    with nullcontext() if able else pytest.raises(ValueError, match="does not support"):
        model.add_adapter(base, run.lora, gradient_checkpointing=True)
    with nullcontext() if able else pytest.raises(Problem, match="is a .*, which transformers cannot have compute activations again"):
        architecture.check_gradient_checkpointing(run, verdict)
    architecture.check_gradient_checkpointing(settings_for(tmp_path, "train.gradient_checkpointing=auto"), verdict)


@pytest.mark.parametrize("kind", ["llama", "qwen3_next", "falcon", "bert", "mixtral", "stablelm"])
def test_some_of_them_in_each_test_run(kind):
    outcome = {"llama": "packed", "mixtral": "packed", "bert": "refused"}.get(kind, "alone")
    assert architectures.verdict(kind)["outcome"] == architecture.table()[kind].outcome == outcome


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "brand_new"}, "owner/name is of the architecture `brand_new`, which was never tried here"),
        ({}, "owner/name is of the architecture `None`"),
        ({"model_type": "bert"}, "owner/name is a BertLMHeadModel, which cannot be trained here: .* see the ones behind it"),
    ],
)
def test_what_was_never_tried_or_cannot_be_trained_is_refused_by_name(config, what):
    with pytest.raises(Problem, match=what) as caught:
        architecture.verdict("owner/name", config)
    assert caught.value.reason == "model_unavailable" and "docs/ARCHITECTURES.md" in caught.value.hint


def test_what_packs_would_mix_is_trained_a_row_at_a_time():
    for kind in ("qwen3_next", "qwen3_5_text", "jamba", "bamba", "zamba2", "lfm2", "granitemoehybrid", "falcon"):
        assert architecture.verdict("owner/name", {"model_type": kind}).outcome in ("alone", "refused"), kind
