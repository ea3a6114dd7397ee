"""Whatever goes wrong during a run, the same verbs end it well: every step once in the log, one run, sealed; and the last word is true."""

import json

import pytest
import stand_in_trainer
from test_recovery import run_ids, state, trainers, wait_until

from twin import world

pytestmark = pytest.mark.system  # minutes: a run for each fault
STEPS = 12


@pytest.fixture(scope="module")
def box(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0.4)
    laptop.inv("up", "deploy")
    laptop.number = 100
    return laptop


@pytest.fixture
def settings(box):
    """Settings that no other test has; the world is healed afterwards."""
    box.number += 1
    yield (f"train.steps={STEPS}", "train.save_every=2", f"seed={box.number}")
    world.heal(box.state)


def ended_well(box, run_id: str) -> None:
    assert state(box, run_id)["phase"] == "done"
    manifest = json.loads(box.object(f"fine-tune-slm/runs/{run_id}/manifest.json"))
    assert manifest["run_id"] == run_id
    log = box.inv("logs", "--run", run_id).stdout
    assert log == box.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert {f"step {number} of {STEPS}" for number in range(1, STEPS + 1)} <= set(log.splitlines())
    assert not trainers(box)


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("throttle", {"seed": 1, "share": 0.3, "count": 30}),
        ("server-error", {"seed": 2, "share": 0.2, "count": 20}),
        ("request-lost", {"seed": 3, "share": 0.2, "count": 10}),
        ("answer-lost", {}),
        ("lag", {"seconds": 3}),
        ("s3-slow", {"seconds": 1, "count": 20}),
        ("s3-cut", {"count": 2, "by": "box"}),
        ("agent-restarts", {"after": 2}),
    ],
)
def test_a_run_ends_well_in_one_go_through(box, settings, fault, options):
    before = run_ids(box)
    world.fault(box.state, fault, **options)
    done = box.inv("train", overrides=settings)
    (run_id,) = set(run_ids(box)) - set(before)
    assert f"{run_id} is done" in done.stdout
    world.heal(box.state)
    ended_well(box, run_id)
    steps = [line for line in box.inv("logs", "--run", run_id).stdout.splitlines() if line.startswith("step ")]
    assert len(steps) == STEPS, "a second trainer, or a second start"


@pytest.mark.parametrize("fault", ["container-killed", "box-stopped", "box-reboots", "box-terminated"])
def test_the_same_verbs_go_on_after(box, settings, fault):
    before = run_ids(box)
    box.inv("train", "--detach", overrides=settings)
    (run_id,) = set(run_ids(box)) - set(before)
    wait_until(lambda: trainers(box))
    world.fault(box.state, fault)
    wait_until(lambda: not trainers(box))
    done = box.inv("up", "deploy", "train", overrides=settings)
    assert f"{run_id} is done" in done.stdout
    ended_well(box, run_id)


def test_credentials_that_expire_during_the_wait_end_neither_the_run_nor_the_wait(box, settings):
    watching = box.popen("train", overrides=settings)
    wait_until(lambda: trainers(box))
    world.fault(box.state, "credentials-expired", count=3, only="s3.GET")
    said, _ = watching.communicate(timeout=120)
    assert watching.returncode == 0, said
    assert said.count("the AWS credentials have expired; log in from another shell") == 1
    assert f"{run_ids(box)[-1]} is done" in said
