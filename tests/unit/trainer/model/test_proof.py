"""Before the first step it is proved that rows in a pack are rows alone, and that every weight learns; what fails falls back or stops."""

from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from conf import schema
from conf.problem import Problem
from tests.unit.trainer.conftest import adapted
from tests.unit.trainer.formats import computed_in
from trainer.model import attention, model, nf4, packing, proof

TRAIN = SimpleNamespace(pack_tokens=4096, neftune_noise_alpha=0.0)


def fresh(base, dropout: float = 0.1):
    """An adapter as training begins with: its second half is zero."""
    torch.manual_seed(5)
    return model.add_adapter(base, schema.Lora(8, 16, dropout, "all-linear", {}), gradient_checkpointing=False)


def prove(tuned, examples, train=TRAIN, refusal=None):
    return proof.verify_training(tuned, examples, train, refusal)


@pytest.mark.parametrize("kind", schema.Quantisation)
def test_a_model_whose_rows_keep_apart_is_packed_and_left_as_it_was(kind, number_format, base_for, examples):
    tuned = fresh(base_for(kind)).eval()
    before = {name: weight.clone() for name, weight in tuned.named_parameters()}
    result = prove(tuned, examples)
    assert result.packs, result.summary
    assert result.differences["a neighbour's change"] == 0
    assert 0 < result.differences["gradients in a pack"] < proof.ROUNDING[number_format]
    assert all(torch.equal(weight, before[name]) and weight.grad is None for name, weight in tuned.named_parameters())
    assert not tuned.training and {module.p for module in tuned.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}


def refused_packs(result, *words):
    assert not result.packs and all(word in result.why for word in words), result.summary
    assert result.differences["gradients behind a measurement"] <= proof.ROUNDING[torch.float32]


def test_attention_that_reaches_into_another_row_is_seen(tuned, examples, number_format, monkeypatch):
    def over_all(module, query, key, value, attention_mask, *, lengths, **options):
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **options)

    AttentionInterface.register(attention.PACKED, over_all)
    try:
        refused_packs(prove(tuned, examples), "one at a time", "a neighbour's change")
    finally:
        AttentionInterface.register(attention.PACKED, attention._within_rows)


def test_a_state_that_is_carried_from_token_to_token_is_seen(tuned, examples):
    """As in models with recurrence or convolution: what is packed reaches into the next row."""
    tuned.get_base_model().model.layers[1].mlp.register_forward_hook(lambda _module, _inputs, output: output + 0.1 * output.cumsum(1))
    refused_packs(prove(tuned, examples), "LlamaForCausalLM gives another result")


def test_a_model_that_keeps_its_own_attention_is_seen(tuned, examples, monkeypatch):
    monkeypatch.setattr(type(tuned.get_base_model()), "_can_set_attn_implementation", classmethod(lambda _kind: False))
    monkeypatch.setattr(type(tuned.get_base_model().model), "_can_set_attn_implementation", classmethod(lambda _kind: False))
    refused_packs(prove(tuned, examples), "LlamaForCausalLM keeps its own attention (sdpa)")


def test_a_model_that_passes_no_lengths_on_takes_no_packs(tuned, examples):
    def forgetful(module, _words, options):
        options.pop("lengths", None)
        return None, options

    for layer in tuned.get_base_model().model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, words, options: (words, forgetful(module, words, options)[1]), with_kwargs=True
        )
    refused_packs(prove(tuned, examples), "takes no packs", "lengths")


def test_positions_that_depend_on_the_longest_row_of_a_pack_are_seen(stretched, examples):
    base, context = stretched
    tuned = adapted(base)
    refused_packs(prove(tuned, examples), "a neighbour's change")
    short = [example for example in examples if len(example) < context]
    result = prove(tuned, short)
    assert result.packs, "within its context nothing is stretched"
    assert result.longest == max(map(len, short)), "and it is proved for no longer ones"


def forgetting(tuned):
    """Once it has computed without gradients, the model lets none through a layer: as bitsandbytes' repacked weights do."""
    calls = []

    def forget(module, _inputs, output):
        calls.extend([True] * (not module.training))
        return output.detach() if calls else output

    tuned.get_base_model().model.layers[1].mlp.up_proj.register_forward_hook(forget)


def test_a_measurement_that_takes_the_gradient_away_stops_the_run(tuned, examples):
    forgetting(tuned)
    with pytest.raises(Problem, match="a measurement changes the gradients of LlamaForCausalLM") as caught:
        prove(tuned, examples)
    assert "quant=none" in caught.value.hint


@pytest.mark.skipif(not has_avx512bf16(), reason="bitsandbytes repacks only on a CPU with AVX512-BF16")
def test_bitsandbytes_left_to_itself_is_caught_here(base_for, examples, monkeypatch):
    monkeypatch.setattr(nf4, "disable_repacking", lambda _model: None)
    with computed_in("bf16"):
        tuned = fresh(base_for(schema.Quantisation.nf4))
    with pytest.raises(Problem, match="a measurement changes the gradients|bf16|backward"):
        prove(tuned, examples)


def test_a_trained_weight_without_a_gradient_stops_the_run_and_is_named(tuned, examples):
    tuned.get_base_model().tower = torch.nn.Linear(2, 3)
    count = sum(weight.requires_grad for weight in tuned.parameters())
    with pytest.raises(Problem, match=rf"2 of {count} trained weights get no gradient, .*tower.weight") as caught:
        prove(tuned, examples)
    assert "lora.targets" in caught.value.hint


def test_a_model_that_cannot_take_a_row_stops_the_run_with_its_own_word(tuned, examples):
    tuned.get_base_model().model.layers[0].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no such layer")))
    with pytest.raises(Problem, match="LlamaForCausalLM cannot be trained on one row of this run: RuntimeError: no such layer"):
        prove(tuned, examples)


def test_without_packs_a_row_is_computed_in_the_model_s_own_attention(tuned, examples, settings_for, tmp_path):
    unpacked_train = SimpleNamespace(pack_tokens=None, neftune_noise_alpha=5.0)
    for train, refusal, why in ((TRAIN, "it carries a state", "a state"), (unpacked_train, None, "train.pack_tokens=null")):
        result = prove(tuned, examples, train, refusal)
        refused_packs(result, "one at a time", why)
    settings = settings_for(tmp_path)
    assert settings.train.pack_tokens and result.apply(settings).train.pack_tokens is None
    with attention.for_pack_tokens(tuned.get_base_model(), None):
        assert not attention.is_packed(tuned.get_base_model())
        for each in packing.packs(examples[:2], None):
            row = each.rows[0]
            plain = tuned(input_ids=torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -1]
            torch.testing.assert_close(model.logits(tuned, each), plain)
        with pytest.raises(ValueError, match="2 rows in a pack"):
            model.logits(tuned, packing.packs(examples[:2], 10_000)[0])


def test_rows_are_cut_longer_than_every_window_that_they_reach_beyond(examples):
    window = min(map(len, examples)) - 40
    config = SimpleNamespace(sliding_window=window, max_window_layers=4, attention_chunk_size=10_000)
    config.get_text_config = lambda: config
    first, second = proof._short_rows(examples, config)
    assert len(second) > window - 8 and len(first) > len(second) - 1
    config.sliding_window = None
    assert max(map(len, proof._short_rows(examples, config))) <= proof.ROW_TOKENS + 2 * proof.SHARED_TOKENS


def test_a_model_that_looks_ahead_is_refused(tuned, examples):
    """As BERT's classes do, which transformers loads as causal language models, too."""
    last = tuned.get_base_model().model.layers[1].mlp
    last.register_forward_hook(lambda _module, _inputs, output: output + 0.1 * output.flip(1).cumsum(1).flip(1))
    with pytest.raises(Problem, match="LlamaForCausalLM lets a token see the ones behind it"):
        prove(tuned, examples)
