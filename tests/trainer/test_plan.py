"""What is planned is what is counted: bytes of weights, of moments, and of the tensors that autograd keeps."""

import json
import math
from pathlib import Path

import pytest
import torch

from conf import load, schema
from data.rows import read
from tests.trainer.conftest import ROOT, TRAIN
from trainer import attention, model, optimizer, pack, plan, prompt

SMALL = ROOT / ".cache/models/smollm2-135m"


def planned_load(packed: pack.Pack) -> plan.Load:
    return plan.Load(packed.tokens.shape[1], packed.lengths[1:], packed.lengths[0], len(packed.labels))


def counted(tuned, packed) -> int:
    """Bytes of all tensors that autograd keeps for one pack, each storage once; weights are none of them."""
    weights = {weight.untyped_storage().data_ptr() for weight in [*tuned.parameters(), *tuned.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other tensor takes its place
        return tensor

    attention._masks.cache_clear()
    with attention.packed(tuned.get_base_model()), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(tuned, packed)
    return sum(size for size, _ in kept.values())


def check(folder: Path, settings, rows: int) -> None:
    base = model.load(schema.Model(str(folder), "main", "", False), settings.quant)
    tuned = model.adapt(base, settings.lora, settings.train.recompute == "yes").train()
    made = plan.shape(json.loads((folder / "config.json").read_text()))
    width = base.model.dtype.itemsize
    examples = [prompt.Prompt(base.tokenizer, base.stops).example(row) for row in read(TRAIN)[:rows]]
    for packed in pack.packs(examples, settings.train.pack_tokens):
        assert plan.saved(made, settings, planned_load(packed), width) == pytest.approx(counted(tuned, packed), rel=0.1)
    learner = optimizer.build(tuned, settings.train)
    assert plan.learned(made, settings.lora) == sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    stored = sum(weight.numel() * weight.element_size() for name, weight in tuned.named_parameters() if "lora_" not in name)
    states = [weight.quant_state for weight in tuned.parameters() if hasattr(weight, "quant_state")]
    constants = sum(state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0) for state in states)
    assert plan.base(made, settings.quant, width) == pytest.approx(stored + constants, rel=0.01)
    for weight in tuned.parameters():
        if weight.requires_grad:
            weight.grad = torch.ones_like(weight)
    learner.step()
    remembered = sum(
        value.numel() * value.element_size() for state in learner.state.values() for value in state.values() if torch.is_tensor(value)
    )
    assert plan.moments(settings.train) * plan.learned(made, settings.lora) == pytest.approx(remembered, rel=0.1)


@pytest.mark.parametrize(
    "words",
    [
        ["quant=none"],
        ["quant=nf4"],
        ["quant=nf4", "quant.double=false"],
        ["quant=none", "train.recompute=true"],
        ["quant=none", "train.pack_tokens=null"],
        ["quant=none", "train.pack_tokens=900"],
        ["quant=none", "lora.targets=[q_proj,v_proj]"],
        ["quant=none", "lora=attention", "lora.r=4"],
        ["quant=none", "train.optimizer=torch.optim.SGD"],
    ],
    ids=lambda words: " ".join(words),
)
def test_the_tiny_model_keeps_the_bytes_that_were_planned(words, tiny, settings_for, tmp_path):
    check(tiny, settings_for(tmp_path, *words), rows=4)


@pytest.mark.parametrize("words", [["quant=none"], ["quant=nf4", "train.recompute=true"]], ids=lambda words: " ".join(words))
@pytest.mark.skipif(not SMALL.exists(), reason="`make setup` makes SmolLM2-135M")
def test_a_real_small_model_keeps_the_bytes_that_were_planned(words, settings_for, tmp_path):
    check(SMALL, settings_for(tmp_path, *words), rows=2)


def eight(*words):
    """Llama-3.1-8B on the shipped task, as `inv plan -- experiment=medical_ie_8b` would plan it; 4,500 rows of 600 tokens."""
    shape = plan.shape(LLAMA31_8B)
    row = prompt.Example(None, list(range(500)), list(range(100)))
    return lambda card: plan.make(shape, load.load(["cloud=twin", "experiment=medical_ie_8b", *words]), [row] * 4500, [row] * 500, card)


LLAMA31_8B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def test_eight_billion_weights_take_hours_on_an_l4_and_less_on_faster_cards():
    made = {card: eight()(f"NVIDIA {card}") for card in ("L4", "A10G", "L40S", "H100", "T4")}
    hours = {card: sum(one.seconds.values()) / 3600 for card, one in made.items()}
    assert 1 < hours["L4"] < 24
    assert hours["H100"] < hours["L40S"] < hours["L4"] < hours["A10G"] < hours["T4"]
    assert 6e9 < made["L4"].bytes < min(22e9, made["T4"].bytes)  # without bf16 what is computed is twice as wide


def test_seconds_of_an_unknown_card_are_not_made_up():
    assert all(math.isnan(seconds) for seconds in eight()("NVIDIA Z1").seconds.values())
