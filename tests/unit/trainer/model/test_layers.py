"""An adapter on all linear layers is on the language model's own, and what is not quantised is said."""

import pytest
from peft.tuners.lora import LoraLayer

from conf import schema
from tests.unit.trainer.architectures import small
from trainer.model import layers, model

ALL = schema.Lora(4, 8, 0.0, "all-linear", {})


def adapters(kind: str) -> list[str]:
    made = small(kind)
    tuned = model.adapt(model.Base(made, None, None, [], "fp32", "sdpa"), ALL, recompute=False)
    return [name for name, module in tuned.named_modules() if isinstance(module, LoraLayer)]


def test_what_sees_gets_no_adapter():
    found = adapters("gemma3")
    assert any("q_proj" in name for name in found) and any("down_proj" in name for name in found)
    assert all("language_model" in name for name in found), "the vision tower learns nothing from text"


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_what_chooses_experts_gets_no_adapter_and_neither_does_the_head(kind):
    found = adapters(kind)
    assert any("q_proj" in name or "q_a_proj" in name for name in found)
    assert not [name for name in found if layers.ROUTER.search(name) or "lm_head" in name]


def test_a_dense_model_keeps_all_its_layers(base):
    assert layers.apart(base.model) == []


@pytest.fixture(scope="module")
def experts(tiny, tmp_path_factory):
    """A small mixture of experts with the tiny model's tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("experts")
    small("mixtral").save_pretrained(folder)
    for path in tiny.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_experts_that_nf4_leaves_as_they_are_are_counted_and_said(experts):
    base = model.load(schema.Model(str(experts), "main", "", False), schema.Quant(schema.Quantisation.nf4, True))
    apart = (base.model.model.embed_tokens, base.model.lm_head)
    plain = [weight for weight in base.model.parameters() if weight.ndim > 1 and weight.is_floating_point()]
    stored = sum(weight.numel() for weight in plain) - sum(part.weight.numel() for part in apart)
    assert stored > 100_000, "its experts"
    assert f"% of them ({stored:,}), which bitsandbytes leaves as they are" in base.precision


def test_a_dense_model_is_in_4_bit_as_a_whole(base_for):
    assert base_for(schema.Quantisation.nf4).precision.endswith(", base weights in 4-bit NF4")
    assert base_for().precision.endswith(", base weights not quantised")


def test_a_mixture_of_experts_is_not_planned_as_if_it_were_dense(experts, base):
    assert not model.sizes("experts", experts).like_llama and model.sizes_of(base.model).like_llama
