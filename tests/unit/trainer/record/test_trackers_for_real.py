"""Runs in other people's tools, by their real libraries: a run that was interrupted is one run there, with one whole curve."""

import json
import os
import re
import subprocess
from pathlib import Path

import environments
import pytest
import yaml

from tests.unit.trainer import forked
from tests.unit.trainer.conftest import ROOT
from trainer.files import read_json_lines

pytestmark = pytest.mark.slow
PLACE = ROOT / ".cache/trackers"
PACKAGES = ROOT / "tests/unit/trainer/trackers.txt"
SETTINGS = ["quant=none", "train.steps=4", "train.batch_size=2", "train.eval_steps=2", "data.eval_rows=2"]
RUN = "20261122-tracked"
POINT = rb"train/loss\x82\x01.([\d.]+)"  # a key and its value, as protobuf writes the two: field 16, its length, its text
TRAIN = """
import os, signal, sys
from pathlib import Path
from tests.unit.trainer import forked
from trainer.record import record, trackers
folder, struck = Path(sys.argv[1]), sys.argv[2:]

class Struck(trackers.SafeTracker):
    def log(self, figures, step):
        super().log(figures, step)
        if struck and "train/loss" in figures and step == int(struck[0]):
            os.kill(os.getpid(), signal.SIGTERM)

trackers.SafeTracker = Struck
child = os.fork()
if child == 0:
    forked.train(record.settings(folder), folder, "fp32", {})
_, status = os.waitpid(child, 0)
print((folder / "log.txt").read_text())
sys.exit(bool(status) != bool(struck))
"""
# What a library kept, as it tells it itself: the name of its one run, the points of two curves, and what it knows of the settings.
READ = {
    "mlflow": """
import json, mlflow
(run,) = mlflow.search_runs(experiment_names=["tiny"], output_format="list")
history = mlflow.MlflowClient().get_metric_history
curves = [[[point.step, point.value] for point in history(run.info.run_id, name)] for name in ("train/loss", "eval/loss")]
print(json.dumps([run.info.run_name, *curves, mlflow.artifacts.load_text(run.info.artifact_uri + "/config.yaml"), run.info.status]))
""",
    "trackio": """
import json, subprocess, sys, trackio
(run,) = trackio.Api().runs("tiny")
def curve(name):
    words = ["get", "metric", "--project", "tiny", "--run", run.name, "--metric", name, "--json"]
    output = subprocess.run([sys.executable, "-m", "trackio.cli", *words], check=True, capture_output=True, text=True).stdout
    return [[point["step"], point["value"]] for point in json.loads(output)["values"]]
print(json.dumps([run.name, curve("train/loss"), curve("eval/loss"), run.config["config"]]))
""",
}


@pytest.fixture(scope="module")
def python():
    return str(environments.python_with(PLACE, PACKAGES))


@pytest.fixture
def run(python, tmp_path):
    """What a program prints; the libraries write nowhere but in a folder of the test."""
    own = {
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_SILENT": "true",
        "PYTHONPATH": str(ROOT),
    }

    def run(code: str, *words: str) -> str:
        done = subprocess.run([python, "-c", code, *words], cwd=ROOT, env=os.environ | own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_run_that_was_interrupted_is_one_run_with_one_curve(name, settings_for, run, tmp_path):
    folder = interrupted(name, settings_for, run, tmp_path)
    runs, losses, held_out, config, *status = json.loads(run(READ[name]).splitlines()[-1])
    assert runs == RUN
    events = read_json_lines(folder / "events.jsonl")
    for curve, kind in ((losses, "step"), (held_out, "eval")):
        assert curve == [[event["step"], pytest.approx(event["loss"])] for event in events if event["event"] == kind]
    assert [step for step, _ in losses] == [1, 2, 3, 4] and [step for step, _ in held_out] == [0, 2, 4]
    settings, decided = yaml.safe_load((folder / "config.yaml").read_text()), json.loads((folder / "decided.json").read_text())
    assert settings["train"]["gradient_checkpointing"] == "auto"
    settings["train"] |= {"gradient_checkpointing": decided["recompute"], "fsdp": "no"}  # as one process has trained with them
    assert yaml.safe_load(config) == settings
    assert status in ([], ["FINISHED"])


def test_wandb_gets_both_attempts_as_one_run_and_nothing_that_was_printed(settings_for, run, tmp_path):
    """As its offline files hold them: they are what `wandb sync` sends."""
    folder = interrupted("wandb", settings_for, run, tmp_path)
    files = sorted((tmp_path / "wandb").rglob("*.wandb"))
    assert [path.name for path in files] == [f"run-{RUN}.wandb"] * 2
    contents = [path.read_bytes() for path in files]
    losses = [[float(value) for value in dict.fromkeys(re.findall(POINT, body, re.DOTALL))] for body in contents]  # in curve and summary
    steps = [event["loss"] for event in read_json_lines(folder / "events.jsonl") if event["event"] == "step"]
    assert losses == [pytest.approx(steps[:3]), pytest.approx(steps[3:])]
    assert not any(b"loss on held-out rows" in body or b"going on after" in body for body in contents)


def interrupted(name: str, settings_for, run, tmp_path: Path) -> Path:
    """The folder of a run with this tracker that was asked to stop behind its third step, and then went on to its end."""
    folder = forked.make(settings_for(tmp_path / "runs", *SETTINGS, f"train.report_to=[{name}]"), RUN)
    run(TRAIN, str(folder), "3")
    assert "going on after step 3 of 4" in run(TRAIN, str(folder))
    return folder
