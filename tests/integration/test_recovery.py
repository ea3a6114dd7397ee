"""Whatever is interrupted, the same verb goes on where it stopped: nothing is lost, nothing runs twice."""

import json
import os
import signal
import time

import psutil
import pytest
import real_trainer
import stand_in_trainer

from twin import world

# Long enough to be caught in the middle, short enough to be waited for.
LONG = ("train.steps=40", "train.save_steps=5")


@pytest.fixture(scope="module")
def box(laptop):
    # The first attempt waits at its 12th step for whatever ends it: a busy machine must not decide what is shown.
    stand_in_trainer.register(laptop.state, step_seconds=0.4, hold_at=12)
    laptop.inv("up", "deploy")
    return laptop


def run_ids(laptop) -> list[str]:
    return sorted({key.split("/")[2] for key in laptop.objects() if "/runs/" in key})


def state(laptop, run_id: str) -> dict:
    return json.loads(laptop.object(f"fine-tune-slm/runs/{run_id}/state.json"))


def steps(laptop, run_id: str) -> list[int]:
    lines = laptop.object(f"fine-tune-slm/runs/{run_id}/events.jsonl").splitlines()
    return [event["step"] for event in map(json.loads, lines) if event["event"] == "step"]


def wait_until(what, seconds: float = 900):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := what():
            return result
        time.sleep(0.2)
    raise AssertionError("it did not happen")


def trainers(laptop) -> list[psutil.Process]:
    """The processes of the trainer, or of the one that stands in for it, in this world's boxes."""
    processes = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        ours = any(word == "trainer" or word.endswith(("/trainer", "stand_in_trainer.py")) for word in words)
        if ours and "run" in words and any(str(laptop.state) in word for word in words):
            processes.append(process)
    return processes


@pytest.mark.slow
def test_a_run_survives_the_laptop_the_trainer_and_the_box(box):
    """One story: Ctrl-C on the laptop, kill -9 of the trainer, the box stopped by someone; the run's steps are each done once."""
    watching = box.popen("train", overrides=LONG)
    wait_until(lambda: trainers(box) and run_ids(box))
    (run_id,) = run_ids(box)
    wait_until(lambda: state(box, run_id)["phase"] == "running")
    os.killpg(watching.pid, signal.SIGINT)
    printed, _ = watching.communicate(timeout=900)
    assert watching.returncode == 130
    assert f"{run_id} goes on" in printed or "what runs on the box goes on" in printed
    assert "Traceback" not in printed
    assert trainers(box), "Ctrl-C ended the run"

    refused = box.inv("down", ok=False)
    assert refused.returncode == 1
    assert f"{run_id} is still running" in refused.stderr

    other = box.inv("train", overrides=(*LONG, "lora.r=4"), ok=False)
    assert f"run `{run_id}` with other settings is still running" in other.stderr

    wait_until(lambda: any((box.state / "volumes").rglob("COMPLETE")))
    for process in trainers(box):
        process.kill()
    wait_until(lambda: state(box, run_id)["phase"] == "failed")
    assert state(box, run_id)["reason"] == "killed"

    box.inv("train", "--detach", overrides=LONG)
    assert run_ids(box) == [run_id]
    wait_until(lambda: trainers(box))
    instance = box.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]
    box.client("ec2").stop_instances(InstanceIds=[instance])
    wait_until(lambda: not trainers(box))
    stranded = box.inv("train", overrides=LONG, ok=False)
    assert "`inv up -- " in stranded.stderr

    done = box.inv("up", "deploy", "train", overrides=LONG)
    assert f"{run_id} is done" in done.stdout
    assert run_ids(box) == [run_id]
    assert sorted(set(steps(box, run_id))) == list(range(1, 41))
    log = box.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert "going on after step" in log
    assert box.inv("logs").stdout.splitlines() == log.splitlines()


@pytest.mark.slow
def test_down_with_force_ends_a_run_and_train_goes_on_with_it(box):
    settings = ("train.steps=1000", "train.save_steps=10", "train.eval_steps=500", "train.batch_size=2", "seed=3")
    real_trainer.register(box.state)
    box.inv("up", "deploy")
    box.inv("train", "--detach", overrides=settings)
    run_id = run_ids(box)[-1]
    wait_until(lambda: any(key.endswith(f"{run_id}/events.jsonl") for key in box.objects()) and steps(box, run_id))
    box.inv("down", "--force")
    assert not trainers(box)
    left = state(box, run_id)
    assert (left["phase"], left["reason"]) == ("failed", "killed")
    step = steps(box, run_id)[-1]
    assert f"ended from outside after step {step} of 1000, which is saved" in left["evidence"]
    done = box.inv("up", "deploy", "train", "down", overrides=settings)
    assert f"{run_id} is done" in done.stdout
    assert steps(box, run_id) == list(range(1, 1001)), "a step was taken twice"
    assert f"going on after step {step} of 1000" in box.inv("logs", "--run", run_id).stdout


@pytest.mark.slow
def test_the_twins_end_leaves_no_process(box):
    before = [box.state / "boxes" / name / "root" for name in os.listdir(box.state / "boxes")]
    assert before
    world.stop(box.state)
    left = []
    for process in psutil.process_iter():
        try:
            left += [process] if str(box.state) in process.environ().get("BOX_ROOT", "") else []
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    assert left == []
