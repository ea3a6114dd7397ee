"""Two people with a box each, in one bucket: their runs are not in each other's way, and no run is trained on two boxes."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import stand_in_trainer
from test_recovery import run_ids, state, trainers, wait_until

from remote.runs import runs
from twin import world

pytestmark = pytest.mark.slow  # a minute: three runs on two boxes

SETTINGS = ("train.steps=60", "train.save_steps=5")
ADA, BOB = "box.name=ada", "box.name=bob"


@pytest.fixture(scope="module")
def boxes(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0.3, hold_at=22)
    for name in (ADA, BOB):
        laptop.inv("up", "deploy", overrides=(name,))
    return laptop


def instance(laptop, name: str) -> str:
    filters = [{"Name": "tag:fine-tune-slm:box", "Values": [name.removeprefix("box.name=")]}]
    return laptop.client("ec2").describe_instances(Filters=filters)["Reservations"][-1]["Instances"][-1]["InstanceId"]


def later(laptop, run_id: str) -> None:
    """Half an hour after the last sign of the run."""
    then = (datetime.now(UTC) - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = json.dumps(state(laptop, run_id) | {"since": then, "heartbeat": then}).encode()
    laptop.client("s3").put_object(Bucket="fine-tune-slm", Key=f"fine-tune-slm/runs/{run_id}/state.json", Body=old)


def test_a_run_that_ada_s_box_makes_is_gone_on_with_by_bob_s_only_when_hers_is_silent(boxes):
    boxes.inv("train", "--detach", overrides=(ADA, *SETTINGS))
    (run_id,) = run_ids(boxes)
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000020" in key for key in boxes.objects()))
    wait_until(lambda: state(boxes, run_id)["phase"] == "running")

    refused = boxes.inv("train", "--detach", overrides=(BOB, *SETTINGS), ok=False)
    assert f"run `{run_id}` of these very settings is running on the box `ada`" in refused.stderr
    boxes.inv("train", "--detach", overrides=(BOB, *SETTINGS, "seed=2"))
    wait_until(lambda: len(trainers(boxes)) == 2)
    boxes.inv("stop-run", overrides=(BOB,))

    hers = instance(boxes, ADA)
    world.fault(boxes.state, "box-stopped", instance=hers)
    wait_until(lambda: not trainers(boxes))
    later(boxes, run_id)
    stand_in_trainer.register(boxes.state, step_seconds=0.5)
    boxes.inv("deploy", "train", "--detach", overrides=(BOB, *SETTINGS))
    assert sorted(run_ids(boxes))[0] == run_id and len(run_ids(boxes)) == 2, "it is the same run"

    boxes.inv("up", "deploy", overrides=(ADA,))  # her volume holds the run as the current one
    root = boxes.state / "boxes" / hers / "root/mnt/training"
    wait_until(lambda: not (root / "current").exists() and not (root / "runs" / run_id).exists())
    assert state(boxes, run_id)["phase"] in (*runs.ACTIVE, "done"), "his goes on"
    wait_until(lambda: state(boxes, run_id)["phase"] == "done")
    log = boxes.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert boxes.inv("logs", "--run", run_id).stdout == log
    after = log.split("going on after step ")[1].splitlines()
    first = int(after[0]) + 1
    assert [line for line in after if line.startswith("step ")] == [f"step {number} of 60" for number in range(first, 61)]
