"""An adapter on all linear layers is on the language model's own, and what is not quantised is said."""

import copy
import warnings

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from conf import schema
from tests.unit.trainer.architectures import small
from trainer.model import layers, model, nf4

ALL = schema.Lora(4, 8, 0.0, "all-linear", {})


def adapted(kind: str, base_model=None):
    return model.add_adapter(model.BaseModel(base_model or small(kind), None, None, [], "fp32", "sdpa"), ALL, gradient_checkpointing=False)


def adapters(kind: str) -> list[str]:
    tuned = adapted(kind)
    return [name for name, module in tuned.named_modules() if isinstance(module, LoraLayer)]


def test_what_sees_gets_no_adapter():
    names = adapters("gemma3")
    assert any("q_proj" in name for name in names) and any("down_proj" in name for name in names)
    assert all("language_model" in name for name in names), "the vision tower learns nothing from text"


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_what_chooses_experts_gets_no_adapter_and_neither_does_the_head(kind):
    names = adapters(kind)
    assert any("q_proj" in name or "q_a_proj" in name for name in names)
    assert not [name for name in names if layers.ROUTER.search(name) or "lm_head" in name]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_both_matrices_of_experts_are_adapted_and_saved_and_merged(kind, tmp_path):
    """They are one tensor each, of all experts of a layer; what goes in has `gate` in its name and chooses none."""
    base_model = small(kind)
    plain, tokens = copy.deepcopy(base_model), torch.arange(3, 40)[None]
    tuned = adapted(kind, base_model)
    learned = {name for name, weight in tuned.named_parameters() if weight.requires_grad and ".experts." in name}
    assert len(learned) == 4 * base_model.config.num_hidden_layers, "A and B of two matrices in each layer"
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape) * 0.05)
        trained, untrained = tuned(input_ids=tokens).logits, plain(input_ids=tokens).logits
        tuned.save_pretrained(tmp_path, save_embedding_layers=False)
        read = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path)
        assert torch.allclose(read(input_ids=tokens).logits, trained, atol=1e-4)
        assert torch.allclose(read.merge_and_unload()(input_ids=tokens).logits, trained, atol=1e-3)
    assert not torch.allclose(trained, untrained, atol=0.1)


@pytest.mark.parametrize(("kind", "told"), [("qwen2_moe", ""), ("mixtral", ""), ("deepseek_v3", "down_proj, gate_proj, up_proj")])
def test_a_linear_layer_that_peft_leaves_out_is_reported(kind, told, capsys):
    """PEFT takes the names of a shared expert's and a dense layer's matrices for those of the experts."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        names = adapters(kind)
    assert any("shared_expert.gate_proj" in name for name in names) == (kind == "qwen2_moe"), "a shared expert's matrix chooses no expert"
    printed = capsys.readouterr().out
    assert (f"no adapter on {told} outside of experts" in printed) if told else "no adapter" not in printed


def test_a_dense_model_keeps_all_its_layers(base):
    assert layers.non_text_layers(base.model) == []


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


def test_a_quantised_model_has_the_sizes_of_the_plain_one_wherever_its_state_is_kept(base_for):
    quantised = base_for(schema.Quantisation.nf4).model
    for layer in nf4.layers(quantised).values():
        layer.quant_state = None  # as it is where the weight was not quantised as a part of the layer
    assert model.shape_of_model(quantised) == model.shape_of_model(base_for().model)


def test_a_mixture_of_experts_is_not_planned_as_if_it_were_dense(experts, base):
    mixed, dense = model.shape_of_config("experts", experts), model.shape_of_model(base.model)
    assert all(layer.experts and layer.expert_numbers for layer, _ in mixed.kinds)
    assert not any(layer.experts for layer, _ in dense.kinds)
