"""Runs in other people's tools, with their real libraries where they are installed: whole, gone on with, and never the end of a run."""

import os
import subprocess
import sys

import pytest

from conf.problem import Problem
from tests.trainer import forked
from tests.trainer.conftest import ROOT
from trainer import trackers

SETTINGS = ["quant=none", "train.steps=3", "train.rows_per_step=2", "train.eval_every=3", "data.eval_rows=2"]
TRAIN = """
import sys
from pathlib import Path
from tests.trainer import forked
from trainer import record
folder = Path(sys.argv[1])
forked.finish(forked.start(record.settings(folder), folder), folder)
"""
READ = {
    "mlflow": """
import mlflow
(run,) = mlflow.search_runs(experiment_names=["tiny"], output_format="list")
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
print(run.info.run_name, sorted({point.step for point in history}), "eval/loss" in run.data.metrics)
""",
    "trackio": """
import trackio
run = trackio.Api().runs("tiny")[0]
found = {entry["step"] for entry in run.history() if entry.get("train/loss") is not None}
print(run.name, sorted(found), any(entry.get("eval/loss") is not None for entry in run.history()))
""",
}


@pytest.fixture
def places(tmp_path):
    """Where the libraries write: nowhere but in a folder of the test."""
    own = {
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }
    own |= {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "PYTHONPATH": str(ROOT)}
    return os.environ | own


def run(code: str, places: dict, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=places, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["mlflow", "wandb", "trackio"])
def test_a_run_and_its_later_attempt_are_one_run_of_the_library(name, settings_for, places, tmp_path):
    pytest.importorskip(name)
    settings = settings_for(tmp_path / "runs", *SETTINGS, f"train.trackers=[{name}]")
    folder = forked.make(settings, "20261122-tracked")
    run(TRAIN, places, str(folder))
    run(TRAIN, places, str(folder))
    if name == "wandb":  # its offline files tell no curves; both attempts name one run
        files = list((tmp_path / "wandb").rglob("*.wandb"))
        assert files and {path.name for path in files} == {"run-20261122-tracked.wandb"}
    else:
        assert run(READ[name], places).splitlines()[-1] == "20261122-tracked [1, 2, 3] True"


class Broken:
    def __init__(self, *_):
        self.asked = 0

    def log(self, *_):
        self.asked += 1
        raise ConnectionError("the server is away\nand more")

    def close(self):
        raise ConnectionError("still away")


def test_a_tracker_that_fails_says_so_once_and_the_run_goes_on(capsys):
    broken = Broken()
    careful = trackers.Careful("mlflow", broken)
    for step in (1, 2):
        careful.log({"loss": 1.0}, step)
    careful.close()
    assert broken.asked == 1
    assert capsys.readouterr().out == "the tracker mlflow draws no more: the server is away\n"


def test_a_tracker_that_does_not_start_is_one_sentence(settings_for, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no such server\nhttps://...")

    monkeypatch.setitem(trackers.KINDS, "tensorboard", refuse)
    with pytest.raises(Problem, match="the tracker tensorboard does not start: no such server") as caught:
        trackers.start(tmp_path, settings_for(tmp_path, "train.trackers=[tensorboard]"), 0)
    assert "MLFLOW_TRACKING_URI" in caught.value.hint
