"""A sweep by the real command: each job a process and a run of its own, whatever becomes of the one before."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from conf import load
from conf.sweep.job import Job, assign
from conf.text.quoting import quoted
from trainer.record import leaderboard, record
from trainer.sweep.launcher import ProcessLauncher

pytestmark = pytest.mark.slow  # a trainer for each job

# The command itself, with the trainer that learns nothing in the place of the one that takes ten seconds to start.
DRIVER = """
import runpy, sys
from trainer.sweep import launcher
child = "import os, runpy, sys; print('process', os.getpid(), flush=True); sys.path.insert(0, 'tests/support'); " \\
        "runpy.run_path('tests/support/stand_in_trainer.py', run_name='__main__')"
launcher.TRAINER = (sys.executable, "-c", child)
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""


class Sweeps:
    """Starts sweeps of one name in a folder of their own."""

    def __init__(self, folder):
        self.runs = folder / "runs"

    def start(self, *words: str, program=("-c", DRIVER), **options: object) -> subprocess.Popen:
        own = ["-m", "run_id=rank", "experiment=smoke", f"runs={quoted(self.runs)}", "train.save_steps=2", *words]
        told = {f"STAND_IN_{name.upper()}": str(value) for name, value in options.items()}
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | told
        command = [sys.executable, *program, *own]
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *words: str, **options: object) -> tuple[int, str]:
        process = self.start(*words, **options)
        said, _ = process.communicate(timeout=900)
        assert "Traceback" not in said
        return process.returncode, said

    def state(self, job: int) -> dict:
        return json.loads((self.runs / f"rank.{job}/state.json").read_text())


@pytest.fixture
def sweeps(tmp_path):
    return Sweeps(tmp_path / "a volume")


def test_a_job_that_fails_is_named_at_the_end_the_others_are_made_and_the_same_name_goes_on(sweeps):
    words = ("train.steps=4,8,3",)
    code, said = sweeps.run(*words, crash_at=5, step_seconds=0)
    assert code == 1
    assert "1 of 3 jobs failed:\n  rank.1 (train.steps=8): the trainer crashed: RuntimeError: told to crash at step 5" in said
    assert "hint: " in said and "`python -m trainer -m experiment=smoke" in said and "train.steps=4,8,3 run_id=rank`" in said
    assert [record.sealed(sweeps.runs / f"rank.{job}") for job in range(3)] == [True, False, True]
    assert sweeps.state(0)["phase"] == "done" and sweeps.state(1)["reason"] == "crashed"
    pids = [line.split()[1] for line in said.splitlines() if line.startswith("process ")]
    assert len(set(pids)) == 3, "each job must have a process of its own"
    made = {job: (sweeps.runs / f"rank.{job}/manifest.json").read_bytes() for job in (0, 2)}

    code, said = sweeps.run(*words, crash_at=5, step_seconds=0)
    assert code == 0, said
    assert said.count("is finished: not trained again") == 2 and said.count("process ") == 1
    assert "going on after step 4" in (sweeps.runs / "rank.1/log.txt").read_text()
    assert made == {job: (sweeps.runs / f"rank.{job}/manifest.json").read_bytes() for job in (0, 2)}
    table = list(csv.DictReader((sweeps.runs / "rank.csv").read_text().splitlines()))
    assert {row["settings"] for row in table} == {"train.steps=4", "train.steps=8", "train.steps=3"}
    assert all(float(row["value"]) and row["low"] and row["high"] for row in table)

    code, said = sweeps.run("train.steps=3,2", step_seconds=0)
    assert code == 0 and "job 2 of 2: rank.3 (train.steps=2) begins" in said and "rank.2 (train.steps=3) is finished" in said


def test_ctrl_c_lets_the_job_save_where_it_is_and_the_sweep_goes_on_there(sweeps):
    words = ("train.steps=60", "lora.r=2,4", "train.save_steps=100")
    process = sweeps.start(*words, step_seconds=0.1)
    events, deadline = sweeps.runs / "rank.0/events.jsonl", time.monotonic() + 900
    while not (events.exists() and '"step": 3' in events.read_text()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 130 and "Traceback" not in said
    assert "the sweep was stopped at rank.0; 0 of 2 jobs are finished" in said and "run_id=rank`" in said
    assert sweeps.state(0)["reason"] == "killed" and not (sweeps.runs / "rank.1").exists()
    (saved,) = (sweeps.runs / "rank.0/checkpoints").glob("step-*/COMPLETE")

    code, said = sweeps.run(*words, step_seconds=0)
    assert code == 0, said
    assert f"going on after step {int(saved.parent.name[5:])}" in (sweeps.runs / "rank.0/log.txt").read_text()
    steps = [event["step"] for event in map(json.loads, events.read_text().splitlines()) if event["event"] == "step"]
    assert steps == list(range(1, 61)), "a step was lost, or taken twice"


def test_what_cannot_be_is_said_before_anything_is_trained(sweeps):
    for words, what in (
        (("lora.rr=2,4",), "lora.rr"),
        (("lora.r=2,0",), "lora.r is 0"),
        (("lora.r=2,2",), "`lora.r=2` and `lora.r=2` are the same run"),
        (("run_id=a/b", "lora.r=2,4"), "run_id is 'a/b'"),
    ):
        code, said = sweeps.run(*words)
        assert code == 1 and what in said, said
        assert not list(sweeps.runs.glob("rank.*"))


def test_a_job_that_another_process_trains_is_left_to_it(sweeps):
    first = sweeps.start("lora.r=2,4", "train.steps=50", step_seconds=0.2)
    deadline = time.monotonic() + 900
    while not (sweeps.runs / "rank.0/events.jsonl").exists() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        code, said = sweeps.run("lora.r=2,4", "train.steps=50")
        assert code == 1 and "rank.0 is being trained by another process" in said
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=900)


def test_the_real_trainer_is_swept_and_the_leaderboard_ranks_its_scores(sweeps, tiny):
    few = ("quant=none", "train.steps=2", "data.eval_rows=2", "train.report_to=[]")
    words = (f"model.id={quoted(tiny)}", *few, "data.max_length=50,700")
    process = sweeps.start(*words, program=("-m", "trainer"))
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 1 and "rank.0 (data.max_length=50): row smoke_train-0000 has" in said
    manifest = record.verify(sweeps.runs / "rank.1")
    assert manifest["run_id"] == "rank.1" and manifest["peak_memory"] > 50_000_000
    (row,) = csv.DictReader((sweeps.runs / "rank.csv").read_text().splitlines())
    metrics = json.loads((sweeps.runs / "rank.1/metrics.json").read_text())
    assert float(row["value"]) == metrics["tuned"]["macro_f1"] and float(row["loss"]) == metrics["completion_loss"]["tuned"]


def scored(folder, name, macro_f1, loss, answers):
    from tests.unit.trainer import finished_run

    run = finished_run.settings()
    made = folder / name
    finished_run.unsealed(made, run)
    metrics = json.loads((made / "metrics.json").read_text())
    metrics["tuned"]["macro_f1"], metrics["completion_loss"]["tuned"] = macro_f1, loss
    (made / "metrics.json").write_text(json.dumps(metrics))
    rows = [finished_run.prediction(number, "", answer) for number, answer in enumerate(answers)]
    (made / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def test_the_leaderboard_is_sorted_and_says_what_may_be_chance(tmp_path):
    right, wrong = '{"cancer_type":"lung","stage":"IV","gene_mutation":null}', '{"cancer_type":"skin","stage":"I","gene_mutation":"EGFR"}'
    runs = {
        scored(tmp_path, "s.0", 0.4, 0.5, [right] * 2 + [wrong] * 10): "lora.r=1",
        scored(tmp_path, "s.1", 0.9, 0.3, [right] * 12): "lora.r=2",
        scored(tmp_path, "s.2", 0.9, 0.2, [right] * 11 + [wrong]): "lora.r=3",
    }
    entries = leaderboard.ranked(runs)
    assert [entry.run_id for entry in entries] == ["s.2", "s.1", "s.0"], "equal scores go by the loss"
    assert [entry.chance for entry in entries] == [False, True, False]
    told = leaderboard.text(entries).splitlines()
    assert told[1].startswith("1  s.2  lora.r=3  0.900 (")
    assert "may be chance" in told[2] and "may be chance" not in told[3]
    assert "`inv evaluate" in told[-1]


def test_a_run_is_found_again_whatever_was_decided_for_auto(settings_for, tmp_path):
    place = ProcessLauncher(tmp_path)
    first = [Job(settings_for(tmp_path, f"lora.r={r}")) for r in (2, 4)]
    assign(first, "s", place.runs("s"))
    for job in first:
        (tmp_path / job.run_id).mkdir()
        text = load.dump(job.settings).replace("gradient_checkpointing: auto", "gradient_checkpointing: 'no'")
        (tmp_path / job.run_id / "config.yaml").write_text(text)
    (tmp_path / "s.7").mkdir()
    again = [Job(settings_for(tmp_path, f"lora.r={r}")) for r in (4, 2, 8)]
    assign(again, "s", place.runs("s"))
    assert [job.run_id for job in again] == ["s.1", "s.0", "s.8"]
    assert again[0].settings.train.gradient_checkpointing == "no"
