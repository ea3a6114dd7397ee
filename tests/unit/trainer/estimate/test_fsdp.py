"""Base weights are cut up over the cards where one does not hold them, and the plan says what each then holds."""

import re
from dataclasses import replace

import pytest

from conf import load
from conf.problem import Problem
from tests.unit.trainer.llama import LLAMA_8B
from trainer.estimate import fit, memory
from trainer.estimate.fit import AvailableMemory
from trainer.rows.prompt import Example
from trainer.rows.sampler import Sampler, WeightedRows

GB = 10**9
ROWS = [Example(None, list(range(length - 80)), [1] * 80) for length in range(150, 312)]
SAMPLER = Sampler([WeightedRows(ROWS)], 17, 16)


def settings(*words):
    return load.load(["cloud=twin", "experiment=medical_ie_8b", *words])


def decided(room: float, cards: int, *words: str, stored: str | None = None):
    scoring = fit.scoring_need(LLAMA_8B, ROWS[:8], 2, cards)
    needs = fit.Needs(fit.training_need(LLAMA_8B, SAMPLER, 2, cards), scoring, AvailableMemory("NVIDIA L4", int(room * GB)), cards)
    return fit.decide(settings(*words), needs, 311, True, True, stored)


@pytest.mark.parametrize(("quant", "width", "constants"), [("none", 2, 0), ("nf4", 2, memory.NF4_DOUBLE - 0.5)])
def test_a_card_holds_its_part_two_layers_and_what_is_in_no_layer(quant, width, constants):
    run = settings(f"quant={quant}", "train.fsdp=yes")
    whole = memory.base_weights(LLAMA_8B, run.quant, width)
    held = memory.held_weights(LLAMA_8B, run, width, 4)
    ((layer, count),) = LLAMA_8B.kinds
    linear = sum(matrix.inputs * matrix.outputs for matrix in layer.linear)
    layers = count * linear * (0.5 + constants if quant == "nf4" else width)
    assert held["base weights"] == pytest.approx((whole - constants * linear * count) / 4 + constants * linear * count, rel=1e-3)
    assert held["gathered weights"] == pytest.approx(2 * layers / count + whole - layers, rel=1e-3)
    assert memory.held_weights(LLAMA_8B, replace(run, train=replace(run.train, fsdp="no")), width, 4) == {"base weights": whole}


def test_auto_cuts_up_only_what_one_card_does_not_hold():
    assert decided(22, 4)[0].train.fsdp == "no"
    run, scored, why = decided(16, 4, "quant=none", "train.pack_tokens=512")
    assert run.train.fsdp == scored.train.fsdp == "yes" and run.train.gradient_checkpointing != "auto"
    assert why.endswith("the base weights are cut up over 4 cards (FSDP2)")
    for words, cards in ((("quant=none",), 1), (("quant=none", "train.fsdp=no"), 4)):
        with pytest.raises(Problem, match="the fullest step takes"):
            decided(12, cards, *words)


@pytest.mark.parametrize(
    ("words", "cards", "stored", "why"),
    [
        (("train.neftune_noise_alpha=5",), 4, None, "NEFTune's noise needs the whole embedding"),
        (("lora.options.init_lora_weights=pissa",), 4, None, "init_lora_weights=pissa needs the whole model"),
        (("publish.merged=true",), 4, None, "a merged model is made of the whole model"),
        ((), 4, "gptq 4 bits", "the model is stored quantised (gptq 4 bits)"),
        ((), 1, None, "there is one process"),
    ],
)
def test_what_cannot_be_cut_up_is_refused_with_the_setting_that_helps(words, cards, stored, why):
    with pytest.raises(Problem, match=re.escape(why)) as caught:
        decided(22, cards, "quant=none", "train.fsdp=yes", *words, stored=stored)
    assert "`" in caught.value.hint
    if cards > 1:
        with pytest.raises(Problem, match=re.escape(why)) as caught:
            decided(4, cards, "quant=none", *words, stored=stored)
        assert "takes" in caught.value.what, "and how much is missing"


def test_more_cards_take_less_time_and_cutting_up_costs_some():
    def seconds(cards: int, *words: str) -> dict[str, float]:
        return memory.make_plan(LLAMA_8B, settings(*words), SAMPLER, ROWS[:64], "NVIDIA L4", cards=cards).seconds

    one, four, cut_up = seconds(1), seconds(4), seconds(4, "train.fsdp=yes")
    assert one["scoring"] > four["scoring"] and one["training"] / 4 <= four["training"] < one["training"]
    assert all(cut_up[stage] > four[stage] for stage in ("training", "scoring"))
