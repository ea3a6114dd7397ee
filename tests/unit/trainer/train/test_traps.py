"""What goes wrong in fine-tuning without anyone noticing: a claim that no run made, a score of other weights, a part never tried."""

import json
import re

import pytest
import yaml

from conf import load
from data.rows import read
from tests.unit.trainer.conftest import TRAIN, VALIDATION
from tests.unit.trainer.finished_run import METRICS, finished, settings
from trainer.files import digest, read_json_lines
from trainer.record import card, record, report

SCORE = re.compile(r"\b[01]\.\d{3}\b")


def shifted(value):
    """The same figures, each one a little different; counts and steps stay."""
    if isinstance(value, dict):
        return {key: shifted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shifted(item) for item in value]
    return value * 0.97 + 0.013 if isinstance(value, float) else value


def all_scores(values) -> set[str]:
    if isinstance(values, dict):
        return set().union(*map(all_scores, values.values()))
    if isinstance(values, list):
        return set().union(*map(all_scores, values))
    return {f"{values:.3f}"} if isinstance(values, (int, float)) else set()


@pytest.mark.parametrize("page", [lambda folder: card.render(folder, "me/quick"), report.render], ids=["card", "report"])
def test_every_reported_score_is_this_run_s_own(page, tmp_path):
    """A card written by hand keeps the figures of the run before."""
    scores = []
    for name, metrics in (("one", METRICS), ("other", shifted(METRICS))):
        folder = finished(tmp_path / name)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        body = page(folder).partition("Training</h2>")[0].partition("## How to use it")[0]
        scores.append(set(SCORE.findall(re.sub(r"(?s)<style>.*?</style>|^---.*?^---", "", body, flags=re.MULTILINE))))
        assert scores[-1] and scores[-1] <= all_scores(metrics), f"{name}: a figure that the record does not have"
    assert scores[0] != scores[1]


def test_what_is_claimed_of_the_training_is_what_the_settings_say(tmp_path):
    """A page that says "cosine" and "early stopping" of a run that had neither."""
    for words, claims in (
        (["train.lr_scheduler=linear", "lora.options={use_dora: true}"], ["linear, warmup 0.05 of all steps", "use_dora True"]),
        (["train.lr_scheduler=wsd", "train.warmup_steps=7", "train.loraplus_lr_ratio=16"], ["wsd, warmup 7 steps", "16.0 times as fast"]),
        (["train.early_stopping_patience=2"], ["stopped after 2 measurements"]),
        (
            ["train.metric_for_best_model=macro_f1", "train.optimizer=torch.optim.SGD"],
            ["highest macro-F1 of generated answers", "torch.optim.SGD"],
        ),
    ):
        folder = finished(tmp_path / claims[0].replace(" ", ""))
        (folder / "config.yaml").write_text(load.dump(settings(*words)))
        events = [event | ({"steps": 99} if "steps" in event else {}) for event in read_json_lines(folder / "events.jsonl")]
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        text = card.render(folder, "me/quick")
        assert all(claim in text for claim in claims), claims
    assert "stopped after" not in card.render(finished(tmp_path / "plain"), "me/quick") and "LoRA+" not in text


def test_the_scored_rows_were_held_out_and_each_was_answered(trained):
    predictions, held_out = read_json_lines(trained / "predictions.jsonl"), read(VALIDATION)
    assert [row["expected"] for row in predictions] == [row.completion for row in held_out[:4]]
    learned = {json.dumps(row.messages) for row in read(TRAIN)}
    assert not [row["id"] for row in predictions if json.dumps(row["prompt"]) in learned]
    assert all(isinstance(row[side], str) for row in predictions for side in ("base", "tuned"))


def test_the_record_alone_says_what_was_run_on_what_with_what_and_for_how_long(trained):
    """An artefact without config, code, data hash, versions, time and memory cannot be made again."""
    manifest = record.verify(trained)
    assert manifest["config_sha256"] == digest(trained / "config.yaml") == manifest["files"]["config.yaml"]["sha256"]
    assert manifest["data"]["train"] == digest(TRAIN) and manifest["data"]["validation"] == digest(VALIDATION)
    assert set(manifest["provenance"]) >= {"git_sha", "git_dirty", "image", "instance_type", "price_per_hour", "price_source"}
    assert {"python", "torch", "transformers", "peft", "bitsandbytes"} <= set(manifest["versions"])
    assert manifest["seconds"]["train"] > 0 and manifest["peak_memory"] > 0 and manifest["tokens"] > 0
    assert yaml.safe_load((trained / "config.yaml").read_text())["train"]["lr"] == record.settings(trained).train.lr


def test_a_smoke_run_measures_saves_generates_and_exports_before_its_last_step(trained):
    """A test mode whose five steps never reach an evaluation or a checkpoint tests what never breaks."""
    train = record.settings(trained).train
    assert train.eval_steps < train.steps and train.save_steps < train.steps
    steps = [event["step"] for event in read_json_lines(trained / "events.jsonl") if event["event"] == "eval"]
    assert steps[0] == 0 and train.eval_steps in steps and train.steps in steps
    assert (trained / "checkpoints" / f"step-{train.save_steps:06d}" / "COMPLETE").exists()
    done = {event["what"] for event in read_json_lines(trained / "events.jsonl") if event["event"] == "progress"}
    assert {"scoring tuned", "scoring base"} <= done and (trained / "adapter" / "adapter_model.safetensors").exists()


def test_a_run_of_a_few_steps_is_full_or_smoke_by_its_settings_and_by_nothing_else():
    """Fifty steps are no less a smoke run than five: the kind decides where a run may be published."""
    assert load.load(["cloud=twin", "experiment=smoke", "train.steps=5000"]).kind.value == "smoke"
    assert load.load(["cloud=twin", "train.steps=1"]).kind.value == "full"
