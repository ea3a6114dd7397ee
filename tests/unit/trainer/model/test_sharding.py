"""Two processes that hold a part of the base weights each train the adapter of two that hold all of them, byte for byte."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conf import schema
from data.rows import read
from tests.unit.trainer import forked
from tests.unit.trainer.conftest import VALIDATION, adapted
from trainer.evaluate import eval_step, evaluate
from trainer.evaluate.evaluate_run import TimingRecord
from trainer.files import digest, read_json_lines
from trainer.model import attention, model, sharding
from trainer.model.distributed import ALONE, ProcessGroup
from trainer.rows import prompt

pytestmark = pytest.mark.slow
# Five rows in packs of at most 700 tokens: one process has more packs than the other, which must pass through the model as often.
WORDS = ["train.report_to=[]", "train.batch_size=5", "train.pack_tokens=700", "train.eval_steps=2", "data.eval_rows=3", "lora.dropout=0.1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("volume") / "runs"


@pytest.fixture(scope="module")
def trained(settings_for, runs):
    """The adapter's hash, of a run by two processes with these settings."""

    def train(name: str, *words: str) -> str:
        settings = settings_for(runs, *WORDS, *words)
        folder = forked.make(settings, name)
        forked.together(settings, folder, 2)
        return digest(folder / forked.ADAPTER)

    return train


@pytest.mark.parametrize("checkpointing", ["yes", "no"])
@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_the_adapter_is_that_of_whole_weights_byte_for_byte(quant, checkpointing, trained, runs):
    words = (f"quant={quant}", "train.steps=3", f"train.gradient_checkpointing={checkpointing}")
    name = f"{quant}-{checkpointing}"
    assert trained(f"{name}-cut-up", *words, "train.fsdp=yes") == trained(f"{name}-whole", *words, "train.fsdp=no")
    losses = [
        [event["loss"] for event in read_json_lines(runs / f"{name}-{kind}/events.jsonl") if event["event"] in ("step", "eval")]
        for kind in ("cut-up", "whole")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3 + 3
    proofs = [event for event in read_json_lines(runs / f"{name}-cut-up/events.jsonl") if event["event"] == "proof"]
    assert proofs[0]["packs"], "the proof before step 1 is made on the weights that are cut up"


def test_killed_and_resumed_the_adapter_is_that_of_an_uninterrupted_run(trained, settings_for, runs):
    words = ("quant=nf4", "train.steps=8", "train.save_steps=1", "train.fsdp=yes")
    expected = trained("uninterrupted", *words)
    settings = settings_for(runs, *WORDS, *words)
    folder = forked.make(settings, "killed")
    children = forked.start_several(settings, folder, 2)
    while not list(folder.glob("checkpoints/step-000002/COMPLETE")):
        assert all(child.is_alive() for child in children), (folder / "log.txt").read_text()
        time.sleep(0.02)
    for child in children:
        child.kill()
        child.join()
    forked.together(settings, folder, 2)
    assert "going on after step " in (folder / "log.txt").read_text()
    assert digest(folder / forked.ADAPTER) == expected


def score_together(processes: ProcessGroup, settings: schema.Recipe, cut_up: bool, rows: int, size: int) -> None:
    """What the processes measure and answer together is what one does alone."""
    target = torch.device("cpu")
    base = model.load(settings.model, settings.quant, target)
    tuned, template = adapted(base), prompt.Prompt(base.tokenizer, base.stops)
    examples = [template.example(row) for row in read(VALIDATION)[:rows]]
    settings = replace(settings, train=replace(settings.train, eval_batch_size=size), data=replace(settings.data, max_new_tokens=6))

    def scored(group: ProcessGroup) -> tuple:
        with attention.packed(base.model):
            figures = eval_step.measure(tuned, examples, 700, settings.data.fields, lambda: None, group)
        model.use_greedy_decoding(base, template.stops)
        return figures, evaluate.generate(tuned, template, examples, settings, TimingRecord(), "scoring", processes=group)

    expected = scored(ALONE)
    if cut_up:
        sharding.shard(tuned, target, sharding.mesh(target, processes.world_size))
        processes.lockstep = True
        held = sum(weight.to_local().numel() for weight in tuned.parameters() if not weight.requires_grad)
        whole = sum(weight.numel() for weight in tuned.parameters() if not weight.requires_grad)
        assert held <= 0.51 * whole, "a process holds its part only"
    assert scored(processes) == expected


@pytest.mark.parametrize("rows", [1, 5])  # fewer than processes, and a number that does not go up
@pytest.mark.parametrize(("quant", "cut_up"), [("none", False), ("none", True), ("nf4", True)])
def test_scores_are_those_of_one_process(quant, cut_up, rows, settings_for, tmp_path):
    settings = settings_for(tmp_path, f"quant={quant}")
    forked.call_together(score_together, tmp_path, 2, settings, cut_up, rows, 2)
