"""What ends and tidies: a run is cancelled, runs are removed, costs are shown, a box is removed for good; and another box goes on."""

import time

import pytest
import stand_in_trainer
from test_recovery import run_ids, state, trainers, wait_until

pytestmark = pytest.mark.slow  # minutes: whole chains with runs that are ended half-way

LONG = ("train.steps=400", "train.save_steps=5")


@pytest.fixture(scope="module")
def box(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0.3)
    laptop.inv("up", "deploy")
    return laptop


def checkpoints(laptop, run_id: str) -> set[str]:
    return {key.split("/")[4] for key in laptop.objects() if f"/{run_id}/checkpoints/" in key and key.endswith("COMPLETE")}


def test_a_cancelled_run_is_whole_in_s3_and_never_gone_on_with(box):
    box.inv("train", "--detach", overrides=LONG)
    (run_id,) = run_ids(box)
    wait_until(lambda: checkpoints(box, run_id))
    assert f"{run_id} is cancelled" in box.inv("stop-run").stdout
    assert not trainers(box)
    assert state(box, run_id)["phase"] == "cancelled"
    lines = box.inv("logs").stdout.splitlines()
    assert f"step {len([line for line in lines if line.startswith('step ')])} of 400" in lines
    assert f"{run_id} is cancelled" in box.inv("stop-run").stdout  # so that a killed laptop's user may ask again


def test_a_run_goes_on_another_box_where_it_ended_and_its_log_has_no_gap(box):
    settings = ("train.steps=60", "train.save_steps=5", "seed=7")
    box.inv("train", "--detach", overrides=settings)
    run_id = run_ids(box)[-1]
    wait_until(lambda: "step-000020" in checkpoints(box, run_id))
    instance = box.client("ec2").describe_instances()["Reservations"][-1]["Instances"][-1]["InstanceId"]
    box.client("ec2").terminate_instances(InstanceIds=[instance])
    wait_until(lambda: not trainers(box))
    (volume,) = box.client("ec2").describe_volumes(Filters=[{"Name": "tag-key", "Values": ["fine-tune-slm:box"]}])["Volumes"]
    wait_until(lambda: box.client("ec2").describe_volumes(VolumeIds=[volume["VolumeId"]])["Volumes"][0]["State"] == "available")
    box.client("ec2").delete_volume(VolumeId=volume["VolumeId"])

    assert f"{run_id} is done" in box.inv("up", "deploy", "train", overrides=settings).stdout
    log = box.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert box.inv("logs", "--run", run_id).stdout == log
    resumed = int(log.split("going on after step ")[1].split()[0])
    assert resumed >= 20
    after = log.split("going on after step ")[1].splitlines()[1:]
    assert [line for line in after if line.startswith("step ")] == [f"step {number} of 60" for number in range(resumed + 1, 61)]
    wait_until(lambda: not checkpoints(box, run_id))  # nobody pays for a finished run's any longer


def test_cleaning_lists_then_removes_what_came_to_nothing_and_never_what_runs(box):
    done = [run_id for run_id in run_ids(box) if state(box, run_id)["phase"] == "done"]
    settings = (*LONG, "seed=9")
    box.inv("train", "--detach", overrides=settings)
    going_on = (set(run_ids(box)) - set(done)) - {run_ids(box)[0]}
    unanswered = box.inv("clean", ok=False)
    assert "cancelled, never finished" in unanswered.stderr
    assert "`--yes`" in unanswered.stderr
    assert "1 runs are removed" in box.inv("clean", "--yes").stdout
    assert set(run_ids(box)) == set(done) | going_on
    (root,) = (box.state / "boxes").glob("*/root")
    assert {path.name for path in (root / "mnt/training/runs").iterdir()} == set(done) | going_on
    assert trainers(box)
    box.inv("stop-run")


def test_costs_are_of_this_box_by_the_second_and_what_nobody_prices_is_unknown(box):
    out = box.inv("costs").stdout
    (running,) = [line for line in out.splitlines() if ", running" in line]
    seconds = int(running.split(", running")[1].split()[0])
    launched = box.client("ec2").describe_instances()["Reservations"][-1]["Instances"][-1]["LaunchTime"]
    assert abs(time.time() - launched.timestamp() - seconds) < 30
    assert abs(float(running.split()[-1]) - seconds / 3600 * 0.9776) < 0.01
    (bucket,) = [line for line in out.splitlines() if line.startswith("s3://")]
    assert bucket.rstrip().endswith("unknown")


def test_status_shows_what_it_remembers_first_and_never_as_current(box):
    box.inv("status", overrides=("seed=77",))
    box.inv("down", "--force")
    out = box.inv("status", overrides=("seed=77",)).stdout
    remembered, now = out.split("\nnow:\n")
    assert "last known, " in remembered
    assert " running" in remembered and " stopped" in now


def test_removing_a_box_for_good_asks_first_and_leaves_the_results(box):
    before = [key for key in box.objects() if "/runs/" in key]
    asked = box.inv("down", "--purge", ok=False)
    assert "with all that is on it" in asked.stderr and "`--yes`" in asked.stderr
    box.inv("down", "--purge", "--yes")
    states = {
        instance["State"]["Name"] for group in box.client("ec2").describe_instances()["Reservations"] for instance in group["Instances"]
    }
    assert states == {"terminated"}
    assert not box.client("ec2").describe_volumes(Filters=[{"Name": "tag-key", "Values": ["fine-tune-slm:box"]}])["Volumes"]
    assert [key for key in box.objects() if "/runs/" in key] == before
