"""What does not fit is refused before weights are loaded, with settings that would fit; `auto` is decided once, and said why."""

import re
from dataclasses import replace

import pytest
import yaml

from conf import load
from conf.problem import Problem
from tests.unit.trainer import architectures, forked
from tests.unit.trainer.llama import LLAMA_8B
from trainer import __main__ as command
from trainer.estimate import fit, memory, summary
from trainer.estimate.fit import STEP, AvailableMemory
from trainer.evaluate import evaluate
from trainer.files import read_json_lines
from trainer.model import model
from trainer.model.distributed import ProcessGroup
from trainer.record import record
from trainer.rows.prompt import Example
from trainer.rows.sampler import Sampler, WeightedRows

GB = 10**9
ROWS = [Example(None, list(range(length - 80)), [1] * 80) for length in range(150, 312)]
NEEDS = fit.training_need(LLAMA_8B, Sampler([WeightedRows(ROWS)], 17, 16), 2)


def settings(*words):
    return load.load(["cloud=twin", "experiment=medical_ie_8b", *words])


def settled(room: float, *words):
    return fit.decide_gradient_checkpointing(settings(*words), NEEDS, AvailableMemory("NVIDIA X", int(room * GB)), max(map(len, ROWS)))


def with_words(words: str, *others: str) -> int:
    """Bytes that a run needs with these overrides."""
    return NEEDS(settings(*others, *words.split()))


def test_activations_are_kept_where_they_fit_and_else_computed_again_and_the_figures_are_reported():
    plain, less = (with_words(f"train.gradient_checkpointing={word}") for word in ("no", "yes"))
    assert less < plain
    chosen, why = settled(plain / GB + 0.1)
    assert chosen == "no" and why.startswith(f"with all activations kept the fullest step takes {plain / GB:.1f} GB of ")
    chosen, why = settled(plain / GB - 0.1)
    assert chosen == "yes" and why.endswith(f"; {less / GB:.1f} GB as it is") and "NVIDIA X" in why


def test_activations_are_computed_again_where_what_would_be_kept_is_only_estimated():
    chosen, why = fit.decide_gradient_checkpointing(
        settings(), NEEDS, AvailableMemory("NVIDIA X", 1000 * GB), max(map(len, ROWS)), exact=False
    )
    assert chosen == "yes" and "is an estimate" in why


def test_activations_are_kept_where_the_class_cannot_compute_them_again_or_smaller_packs_are_offered():
    plain = with_words("train.gradient_checkpointing=no")
    room = AvailableMemory("NVIDIA X", plain + GB)
    chosen, why = fit.decide_gradient_checkpointing(settings(), NEEDS, room, max(map(len, ROWS)), exact=False, can_checkpoint=False)
    assert chosen == "no" and why.startswith("transformers has no gradient checkpointing for this class")
    with pytest.raises(Problem) as caught:
        fit.decide_gradient_checkpointing(
            settings(), NEEDS, AvailableMemory("NVIDIA X", plain - GB), max(map(len, ROWS)), exact=False, can_checkpoint=False
        )
    assert "train.pack_tokens=" in caught.value.hint and "gradient_checkpointing" not in caught.value.hint


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bamba"])
def test_an_estimated_plan_says_that_it_is_estimated(kind):
    model_shape = model.shape_of_model(architectures.small(kind))
    run, order = settings(), Sampler([WeightedRows(ROWS)], 17, 16)
    (memory_line,) = [
        line
        for line in summary.lines(memory.make_plan(model_shape, run, order, ROWS[:4], "NVIDIA L4"), run, model_shape, "NVIDIA L4", None, "")
        if "fullest" in line
    ]
    assert (memory_line.startswith("memory   about ") and summary.ESTIMATED in memory_line) == (kind == "bamba")


@pytest.mark.parametrize(("word", "chosen"), [("yes", "yes"), ("no", "no"), ("true", "yes"), ("false", "no")])
def test_what_is_set_stays_as_it_is(word, chosen):
    assert settled(1000, f"train.gradient_checkpointing={word}")[0] == chosen


def test_another_word_is_refused_with_those_there_are():
    with pytest.raises(Problem, match=r"train.gradient_checkpointing is maybe") as caught:
        settings("train.gradient_checkpointing=maybe")
    assert "auto, yes or no" in caught.value.hint


def test_a_run_that_does_not_fit_is_offered_settings_and_each_of_them_fits():
    words = ["quant=none", "train.gradient_checkpointing=no"]
    room = with_words("", "quant=nf4", "train.gradient_checkpointing=no") / GB + 0.5
    with pytest.raises(Problem, match=r"the fullest step takes \d+\.\d GB, with all activations kept, and there are \d+") as caught:
        settled(room, *words)
    offers = re.findall(r"`([^`]+)` \(([\d.]+) GB\)", caught.value.hint)
    assert "quant=nf4" in [offer for offer, _ in offers]
    for offer, stated in offers:
        assert with_words(offer, *words) <= room * GB and f"{with_words(offer, *words) / GB:.1f}" == stated


def test_the_packs_that_are_offered_are_the_largest_that_fit():
    room = with_words("train.pack_tokens=2000 train.gradient_checkpointing=no") / GB
    with pytest.raises(Problem) as caught:
        settled(room, "train.gradient_checkpointing=no")
    (limit,) = re.findall(r"train.pack_tokens=(\d+)", caught.value.hint)
    assert with_words(f"train.pack_tokens={limit} train.gradient_checkpointing=no") <= room * GB
    assert with_words(f"train.pack_tokens={int(limit) + STEP} train.gradient_checkpointing=no") > room * GB


def test_settings_that_only_help_together_are_offered_together():
    room = with_words("train.pack_tokens=700 train.gradient_checkpointing=yes") / GB
    with pytest.raises(Problem) as caught:
        settled(room, "quant=none", "train.gradient_checkpointing=no")
    (offer,) = re.findall(r"set `([^`]+)`", caught.value.hint)
    assert " " in offer and with_words(offer, "quant=none", "train.gradient_checkpointing=no") <= room * GB


def test_where_nothing_helps_it_says_how_much_is_needed():
    with pytest.raises(Problem) as caught:
        settled(3)
    (least,) = re.findall(r"it takes ([\d.]+) GB: take a box with a larger card, `box.instance_type=TYPE`", caught.value.hint)
    assert float(least) > 3


def scored(room: float, *words: str):
    """As many rows at once as are planned for a memory, and their bytes; 1,792 tokens of prompt, as in a report of one that did not fit."""
    needs = fit.scoring_need(LLAMA_8B, [Example(None, list(range(1792)), [1])] * 500, 2)
    planned = fit.fit_eval_batch_size(settings(*words), needs, AvailableMemory("NVIDIA X", int(room * GB)))
    return planned.train.eval_batch_size, needs(planned) / GB


def test_rows_are_scored_at_once_as_many_as_fit():
    wanted_memory, taken = scored(1000)
    assert wanted_memory == 32 and taken > 22, "it came last, and did not fit into an L4"
    fewer, less = scored(22)
    assert fewer in (4, 8, 16) and less <= 22 < scored(1000, f"train.eval_batch_size={2 * fewer}")[1]


@pytest.mark.parametrize(
    ("words", "offer"),
    [
        (["publish.merged=true"], "set `publish.merged=false` ("),
        (["publish.merged=true", "publish.gguf=f16"], "set `publish.merged=false publish.gguf=null` ("),
        (["quant=none"], "set `quant=nf4` ("),
        ([], "no setting makes it smaller: "),
    ],
)
def test_one_row_that_cannot_be_scored_is_reported_with_what_helps(words, offer):
    with pytest.raises(Problem, match=r"scoring takes \d+\.\d GB for one row, and there are \d+") as caught:
        scored(14 if words else 5, *words)
    assert caught.value.hint.startswith(offer) and caught.value.reason == "bad_config"


def test_the_trainer_scores_as_many_rows_at_once_as_are_planned(settings_for, tmp_path, monkeypatch):
    def needs(*_):
        return lambda settings: settings.train.eval_batch_size * GB

    def compare(tuned, base, template, scored, settings, *_):
        raise Problem(f"scored by {settings.train.eval_batch_size}", "", "killed")

    monkeypatch.setattr(fit, "scoring_need", needs)
    monkeypatch.setattr(model, "available_memory", lambda *_: AvailableMemory("this machine", 2 * GB))
    monkeypatch.setattr(evaluate, "compare", compare)
    run = settings_for(tmp_path / "runs", "quant=none", "train.steps=1", "train.eval_batch_size=4", "train.report_to=[]")
    folder = forked.make(run, "scored")
    with pytest.raises(Problem, match="scored by 2"):
        command.train(run, folder, ProcessGroup())
    assert record.settings(folder).train.eval_batch_size == 4, "what was asked for stays: an attempt on another card is the same run"


@pytest.mark.parametrize(("gpu", "width"), [("NVIDIA L4", 2), ("NVIDIA T4", 4), ("Tesla V100-SXM2-16GB", 4), (None, 4)])
def test_a_card_without_bf16_computes_with_four_bytes(gpu, width):
    assert memory.number_width(gpu) == width


def test_the_trainer_refuses_before_it_loads_weights(settings_for, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "available_memory", lambda *_: AvailableMemory("this machine", 1_000_000))
    monkeypatch.setattr(model, "load", lambda *_: pytest.fail("weights were loaded"))
    run = settings_for(tmp_path / "runs", "quant=none")
    folder = forked.make(run, "too-large")
    with pytest.raises(Problem, match="the fullest step takes") as caught:
        command.train(run, folder, ProcessGroup())
    assert caught.value.reason == "bad_config" and "box.instance_type" in caught.value.hint


def test_what_the_trainer_decides_for_auto_is_in_a_file_of_its_own_and_in_its_record(trained):
    saved = yaml.safe_load((trained / "config.yaml").read_text())
    assert saved["train"]["gradient_checkpointing"] == "auto", "the settings are written once"
    assert record.settings(trained).train.gradient_checkpointing == "no"
    plan = record.verify(trained)["plan"]
    assert plan["recompute"] == "no" and "with all activations kept the fullest step takes" in plan["why"]
    assert plan["planned_memory"]["activations"] > 0


@pytest.mark.slow
def test_a_later_attempt_does_what_the_first_one_decided_whatever_memory_it_finds(settings_for, tmp_path, monkeypatch):
    run = settings_for(tmp_path / "runs", "quant=none", "train.report_to=[]")
    folder = forked.make(run, "decided")
    plain = []

    def small():
        return AvailableMemory("this machine", plain[0] - 1)

    real = fit.decide_gradient_checkpointing

    def decide(settings, needs, available, longest, *options):
        plain.append(needs(replace(settings, train=replace(settings.train, gradient_checkpointing="no"))))
        return real(settings, needs, small(), longest, *options)

    def compare(*_):
        raise Problem("the first attempt ends here", "start it again", "killed")

    with monkeypatch.context() as patch:
        patch.setattr(fit, "decide_gradient_checkpointing", decide)
        patch.setattr(evaluate, "compare", compare)
        with pytest.raises(Problem, match="the first attempt ends here"):
            command.train(run, folder, ProcessGroup())
    again = record.settings(folder)
    assert again.train.gradient_checkpointing == "yes"
    forked.finish(forked.start(again, folder), folder)
    assert record.settings(folder).train.gradient_checkpointing == "yes"
    assert [event["step"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"] == [1, 2, 3, 4]
