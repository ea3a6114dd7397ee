"""`inv sweep`: a run for each combination, on one box; what fails is named, what is finished is not paid for twice."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import stand_in_trainer
from conftest import Laptop
from test_recovery import run_ids, state, trainers, wait_until

pytestmark = pytest.mark.slow  # chains of several runs

GRID = ("train.steps=4,8,3", "train.save_steps=2")


@pytest.fixture(scope="module")
def box(laptop):
    # Whoever makes a fifth step fails there, once.
    stand_in_trainer.register(laptop.state, step_seconds=0, crash_at=5)
    laptop.inv("up", "deploy")
    return laptop


def sealed(laptop, run_id: str) -> bool:
    return f"fine-tune-slm/runs/{run_id}/manifest.json" in laptop.objects()


def trained(laptop) -> int:
    """How often the trainer was started."""
    return sum(entry["operation"] == "SendCommand" and "fine-tune-slm train" in json.dumps(entry) for entry in laptop.journal())


def test_a_rehearsal_prints_every_job_and_touches_nothing(box):
    def asked():
        return len(
            [entry for entry in box.journal() if not entry["by"].startswith("i-") and entry["service"] not in ("ec2messages", "imds")]
        )

    before = asked()
    out = box.inv("--dry", "sweep", overrides=("lora.r=8,16", "train.lr=1e-4,2e-4")).stdout
    assert "job 3 of 4: lora.r=16 train.lr=0.0001" in out and "train.sh" in out and "Rank the finished runs" in out
    assert asked() == before and run_ids(box) == []


def test_a_sweep_goes_on_after_a_failure_and_the_same_command_does_only_what_is_missing(box):
    first = box.inv("sweep", overrides=GRID, ok=False)
    assert first.returncode == 1 and "Traceback" not in first.stderr
    name = re.search(r"sweep (\S+): 3 jobs, 0 of them finished; the rest is planned to take", first.stdout)[1]
    assert run_ids(box) == [f"{name}.{number}" for number in range(3)]
    assert [sealed(box, f"{name}.{number}") for number in range(3)] == [True, False, True]
    assert f"1 of 3 jobs failed:\n  {name}.1 (train.steps=8): {name}.1 failed (crashed): " in first.stderr
    assert f"`inv sweep --name {name} -- " in first.stderr and "tries again what is not finished" in first.stderr
    assert "difference to the first" in first.stdout and "next       `inv publish --run " in first.stdout

    again = box.inv("sweep", overrides=GRID)
    assert run_ids(box) == [f"{name}.{number}" for number in range(3)]
    assert sealed(box, f"{name}.1") and state(box, f"{name}.1")["phase"] == "done"
    assert again.stdout.count("is finished: not trained again") == 2
    assert "going on after step 4" in box.object(f"fine-tune-slm/runs/{name}.1/log.txt").decode()
    assert all(f"{name}.{number}  train.steps={steps} " in again.stdout for number, steps in enumerate((4, 8, 3)))

    best = re.search(r"`inv publish --run (\S+) -- ", again.stdout)[1]
    assert f"1  {best} " in again.stdout
    box.inv("publish", "--run", best)
    before = len(box.journal())
    third = box.inv("sweep", overrides=("train.save_steps=2", "train.steps=3,4,8"))
    assert "nothing is left to train" in third.stdout and third.stdout.count("not trained again") == 3
    sent = [entry for entry in box.journal()[before:] if entry["operation"] == "SendCommand"]
    assert sent == [], "a finished sweep needs no box"


def test_a_search_draws_its_values_goes_on_without_what_fails_and_more_trials_add_to_it(box):
    stand_in_trainer.register(box.state, step_seconds=0, crash_at=5)
    box.inv("up", "deploy")
    words = ("train.lr=tag(log,interval(1e-5,1e-3))", "train.steps=4,8", "train.save_steps=2")

    def begun() -> list[str]:
        return [run for run in run_ids(box) if run.startswith("drawn.")]

    rehearsed = box.inv("--dry", "sweep", "--name", "drawn", "--trials", "3", overrides=words).stdout
    first = re.search(r"trial 1 of 3: (train.lr=\S+ train.steps=\d)", rehearsed)[1]
    assert "Draw the next one's values by the scores so far" in rehearsed and "train.sh" in rehearsed and begun() == []

    done = box.inv("sweep", "--name", "drawn", "--trials", "3", overrides=words)
    assert begun() == [f"drawn.{number}" for number in range(3)]
    assert f"trial 1 of 3: drawn.0 ({first})" in done.stdout and "3 to train, as long as each takes what the first does" in done.stdout
    drawn = re.findall(r"^trial \d of 3: (drawn.\d) \(train.lr=\S+ train.steps=(\d)\)", done.stdout, re.MULTILINE)
    failing = [run for run, steps in drawn if steps == "8"]
    assert 0 < len(failing) < 3, f"the seed no longer draws some of both kinds: {drawn}"
    assert f"{len(failing)} of 3 trials failed:\n  {failing[0]} (train.lr=" in done.stdout
    assert [sealed(box, run) for run, _ in drawn] == [run not in failing for run, _ in drawn]
    assert "difference to the first" in done.stdout and "next       `inv publish --run drawn." in done.stdout

    before = trained(box)
    same = box.inv("sweep", "--trials", "3", overrides=words)
    assert "sweep drawn: 3 trials" in same.stdout and same.stdout.count("not trained again") == 3 - len(failing)
    assert f"{failing[0]} (train.lr=" in same.stdout and "has failed: " in same.stdout
    assert trained(box) == before and begun() == [f"drawn.{number}" for number in range(3)]
    box.inv("sweep", "--trials", "4", overrides=words)
    assert trained(box) == before + 1 and begun() == [f"drawn.{number}" for number in range(4)]


def test_where_the_run_was_ended_from_outside_or_the_box_is_gone_the_sweep_ends_and_goes_on_later(box):
    stand_in_trainer.register(box.state, step_seconds=0.05, hold_at=3)
    box.inv("up", "deploy")
    words = ("train.steps=4,5", "train.save_steps=2", "seed=5")
    going = box.popen("sweep", "--name", "lost", overrides=words)
    try:
        wait_until(lambda: any((box.state / "volumes").rglob("lost.0/checkpoints/step-000002/COMPLETE")))
        for process in trainers(box):
            process.kill()
        printed, _ = going.communicate(timeout=900)
    finally:
        going.kill()
    assert going.returncode == 1 and "Traceback" not in printed
    assert "lost.0 failed (killed)" in printed and "0 of 2 jobs are finished" in printed
    assert "hint: `inv up deploy -- " in printed and "`, then `inv sweep --name lost -- " in printed
    assert [run for run in run_ids(box) if run.startswith("lost")] == ["lost.0"], "the next job was begun"

    instance = box.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]
    box.client("ec2").stop_instances(InstanceIds=[instance])
    stranded = box.inv("sweep", overrides=words, ok=False)
    assert "0 of 2 jobs are finished" in stranded.stderr and "`; then `inv sweep --name lost -- " in stranded.stderr
    box.inv("up", "deploy")
    going = box.popen("sweep", "--name", "lost", overrides=words)
    try:
        wait_until(lambda: any((box.state / "volumes").rglob("lost.1/checkpoints/step-000002/COMPLETE")))
        wait_until(lambda: not any("/locks/" in key for key in box.objects()))  # it is watched from here on
        time.sleep(1)
        os.killpg(going.pid, signal.SIGINT)
        printed, _ = going.communicate(timeout=900)
    finally:
        going.kill()
    assert going.returncode == 130 and "lost.1 goes on, and no job begins after it. `inv sweep --name lost -- " in printed
    assert sealed(box, "lost.0") and trainers(box)
    (folder,) = (box.state / "volumes").rglob("runs/lost.1")
    (folder / "go").touch()
    done = box.inv("sweep", overrides=words)
    assert "lost.1 is done in" in done.stdout or done.stdout.count("not trained again") == 2
    assert [run for run in run_ids(box) if run.startswith("lost")] == ["lost.0", "lost.1"]


@pytest.mark.parametrize(
    ("overrides", "what", "hint"),
    [
        ((), "no setting has several values", " lora.r=8,16`"),
        (("lora.r=8",), "no setting has several values", "`inv sweep"),
        (("lora.rr=8,16",), "there is no setting `lora.rr`", "`lora.r`"),
        (("lora.r=8,0",), "lora.r is 0", "more than 0"),
        (("lora.r=2,2",), "`lora.r=2` and `lora.r=2` are the same run", "each value once"),
        (("publish.private=true,false",), "are the same run", "settings that the training depends on"),
        (("train.lr=interval(1e-5,1e-3)",), "needs `--trials`", "`inv sweep --trials 12 -- "),
        (("lora.r=(2",), "lora.r=(2", "quote"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence_and_a_hint(tmp_path, overrides, what, hint):
    done = Laptop(tmp_path).inv("--dry", "sweep", overrides=overrides, ok=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    error, _, rest = done.stderr.partition("\n\nhint: ")
    assert what in error and hint in rest


def test_a_job_that_cannot_be_trained_is_named_before_anything_is_paid_for(box):
    before = trained(box)
    done = box.inv("sweep", "--name", "long", overrides=("data.max_length=50,60",), ok=False)
    assert done.returncode == 1 and "data.max_length=50" in done.stderr and "long.1 (data.max_length=60) cannot be trained" in done.stdout
    assert trained(box) == before and not [run for run in run_ids(box) if run.startswith("long")]
    missing = box.inv("sweep", overrides=("data.train=none.jsonl", "lora.r=2,4"), ok=False)
    assert "none.jsonl, and there is no such file" in missing.stderr and "`data.train=FILE.jsonl`" in missing.stderr
    named = box.inv("sweep", "--name", "Not/this", overrides=("lora.r=2,4",), ok=False)
    assert "a sweep cannot be called 'Not/this'" in named.stderr


def test_a_curve_chooses_numbers_of_rows_trains_them_and_shows_what_twice_as_many_would_bring(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0)
    laptop.inv("up", "deploy")
    refused = laptop.inv("curve", overrides=("train.steps=2",), ok=False)
    assert "2 steps of 8 rows see 16 rows, however many there are" in refused.stderr
    words = ("train.steps=null", "train.epochs=1", "seed=5")
    first = laptop.inv("curve", overrides=words)
    name = re.search(r"sweep (\S+): 3 jobs, 0 of them finished", first.stdout)[1]
    assert f"job 1 of 3: {name}.0 (data.train_rows=2) begins" in first.stdout and f"{name}.2 (data.train_rows=null) begins" in first.stdout
    assert "twice the rows (64) would bring" in first.stdout and "next       `inv publish --run " in first.stdout
    page = re.search(r"page +(.+)", first.stdout)[1]
    assert page.endswith(f"{name}.html") and "<svg" in Path(page).read_text(encoding="utf-8")
    assert "3 of them finished" in laptop.inv("curve", overrides=words).stdout, "the same command trains nothing again"
