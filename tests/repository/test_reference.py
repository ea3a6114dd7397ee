"""The kept record of the reference run is whole but for its weights, its scores follow from its answers, and the pages say them."""

import hashlib
import json
import re

import pytest
import yaml
from conftest import ROOT

from data import rows, score

FOLDER = ROOT / "docs/reference/run"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
METRICS = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))
LEFT_OUT = ("adapter/", "tensorboard/")


def test_every_file_but_the_weights_is_there_as_the_run_sealed_it():
    listed = {name: facts["sha256"] for name, facts in MANIFEST["files"].items() if not name.startswith(LEFT_OUT)}
    assert listed == {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in listed}
    log = (FOLDER / "log.txt").read_bytes()[: MANIFEST["log"]["bytes"]]
    assert hashlib.sha256(log).hexdigest() == MANIFEST["log"]["sha256"]
    assert {file.name for file in FOLDER.iterdir()} == {*listed, "manifest.json", "log.txt"}


def test_it_trained_and_scored_on_the_rows_that_are_shipped():
    for split in ("train", "validation"):
        assert MANIFEST["data"][split] == hashlib.sha256((ROOT / f"data/{split}.jsonl").read_bytes()).hexdigest()
    assert (MANIFEST["data"]["train_rows_seen"], MANIFEST["data"]["validation_rows_scored"]) == (4500, 200)


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_its_scores_follow_from_its_answers(which):
    answers = [json.loads(line) for line in (FOLDER / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    held_out = rows.read(ROOT / "data/validation.jsonl")[:200]
    assert [answer["id"] for answer in answers] == [row.id for row in held_out]
    fields = yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))["data"]["fields"]
    again = score.score([answer[which] for answer in answers], held_out, [True] * len(answers), fields)
    for name in ("macro_f1", "row_exact", "json_valid", "empty_f1", "unsupported"):
        assert again[name] == METRICS[which][name], name


@pytest.mark.parametrize("page", ["README.md", "docs/reference/README.md"])
def test_the_pages_say_these_scores(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    said = {
        name: re.findall(r"\d\.\d{3}", re.sub(r"\(.*?\)", "", row))
        for name, row in re.findall(r"^\| `(validation|test_\w+)` (\|.*)$", text, re.M)
    }
    splits = json.loads((ROOT / "docs/reference/splits.json").read_text(encoding="utf-8"))
    scores = {name: (one["tuned"], one["baselines"]["dictionary"]) for name, one in splits.items()}
    scores["validation"] = (METRICS["base"], METRICS["tuned"], METRICS["baselines"]["dictionary"])
    assert {name: numbers[: len(scores[name])] for name, numbers in said.items()} == {
        name: [f"{one['macro_f1']:.3f}" for one in several] for name, several in scores.items()
    }
