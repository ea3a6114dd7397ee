"""The stand-in image makes what the real one makes, in a second, so that what befalls a run can be tested often."""

import json

import pytest
import stand_in_trainer


@pytest.fixture(scope="module")
def quick(laptop):
    stand_in_trainer.register(laptop.state)
    laptop.inv("up", "deploy")
    return laptop


def state(laptop, run_id: str) -> dict:
    return json.loads(laptop.object(f"fine-tune-slm/runs/{run_id}/state.json"))


def runs(laptop) -> list[str]:
    return sorted({key.split("/")[2] for key in laptop.objects() if "/runs/" in key})


@pytest.mark.slow
def test_a_stand_in_run_is_sealed_verified_and_published_like_any_other(quick):
    done = quick.inv("train", "publish", overrides=("train.steps=20",))
    assert "is published and verified" in done.stdout
    (run_id,) = runs(quick)
    assert state(quick, run_id)["phase"] == "done"
    log = quick.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert [line for line in log.splitlines() if line.startswith("step ")] == [f"step {n} of 20" for n in range(1, 21)]


@pytest.mark.slow
def test_a_run_that_crashes_once_goes_on_from_its_checkpoint(quick):
    stand_in_trainer.register(quick.state, crash_at=8)
    settings = ("train.steps=10", "train.save_steps=5", "seed=5")
    failed = quick.inv("deploy", "train", overrides=settings, ok=False)
    assert "told to crash at step 8" in failed.stderr
    quick.inv("train", overrides=settings)
    log = quick.object(f"fine-tune-slm/runs/{runs(quick)[-1]}/log.txt").decode()
    assert "going on after step 5" in log and log.rstrip().splitlines()[-1] == "step 10 of 10"
