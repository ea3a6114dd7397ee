"""What the plan says of a step is what torch counts: for every class that is trained, or the plan says that it is an estimate."""

import json

import pytest
import torch

from tests.unit.trainer import activations as measuring
from tests.unit.trainer.conftest import ROOT
from trainer.estimate import activations, architecture

ENTRIES = json.loads(activations.TABLE.read_text(encoding="utf-8"))
TRAINED = [kind for kind, verdict in architecture.table().items() if verdict.outcome != "refused"]
OFTEN = ["llama", "qwen3", "gemma3", "gpt2", "mixtral", "phi3"]


def check_entry(kind: str, recipe) -> None:
    entry, sizes = ENTRIES[kind], measuring.ELSEWHERE if ENTRIES[kind]["counted"] else measuring.USUAL
    kept = measuring.kept_for_backward(kind, sizes, torch.bfloat16, recipe)
    planned = measuring.ratios(entry["fp32"], entry["bf16"], measuring.step_bytes(kind, sizes, recipe), kept, recipe)
    print(kind, planned)
    if entry["counted"]:
        assert planned == pytest.approx(dict.fromkeys(planned, 1.0), abs=0.11), "0.1, and what differs from machine to machine"


@pytest.mark.parametrize("kind", OFTEN)
def test_a_step_of_a_counted_class_takes_the_bytes_that_are_planned(kind, settings_for, tmp_path):
    """With activations computed again and without, in fp32, and what is kept in bf16, in sizes that the table was not made from."""
    assert ENTRIES[kind]["counted"]
    check_entry(kind, settings_for(tmp_path, "quant=none", "lora.r=2"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINED)
def test_no_class_takes_more_than_is_planned_without_the_plan_saying_that_it_is_an_estimate(kind, settings_for, tmp_path):
    if kind in ENTRIES:
        check_entry(kind, settings_for(tmp_path, "quant=none", "lora.r=2"))


def test_the_table_says_counted_only_where_it_is_within_ten_percent():
    for kind, entry in ENTRIES.items():
        within = all(abs(ratio - 1) <= measuring.CLOSE for ratio in entry["planned"].values())
        assert within or not entry["counted"], kind
    assert set(ENTRIES) <= set(TRAINED)


def test_the_guide_states_how_many_are_counted_and_how_far_off_the_others_are():
    counted = [entry for entry in ENTRIES.values() if entry["counted"]]
    others = [
        (kind, entry["planned"][again])
        for kind, entry in ENTRIES.items()
        for again in ("yes", "no")
        if not entry["counted"] and again in entry["planned"]
    ]
    planned = [ratio * activations.of(kind).margin for kind, ratio in others]
    (line,) = [line for line in (ROOT / "docs/TRAINER.md").read_text().splitlines() if "activations.json" in line]
    assert f"{len(counted)} of {len(TRAINED)} architectures" in line
    assert f"{min(planned):.2f} to {max(planned):.2f} of the counted bytes" in line


def test_an_architecture_that_was_never_counted_is_an_estimate():
    assert activations.of("brand_new") == activations.of(None) == activations.NONE and not activations.NONE.counted
