"""The laptop dies at any call of a verb that ends, removes or asks something: the same verb again, and the end is the same.

One story on one box, told from top to bottom: each test begins where the one before it ended.
"""

import pytest
import stand_in_trainer
from crash import killed
from test_housekeeping import checkpoints
from test_recovery import run_ids, state, steps, trainers, wait_until

pytestmark = pytest.mark.slow  # minutes: every verb is killed at every call
BOX = "fine-tune-slm:box"
ALONE = {"PutObject locks", "GetObject locks", "DeleteObject locks"}
SCRIPT = {"DescribeInstances", "DescribeInstanceInformation", "GetCommandInvocation"}


@pytest.fixture(scope="module")
def box(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0.3)
    laptop.inv("up", "deploy")
    laptop.inv("train", overrides=("train.steps=2",))
    (laptop.finished,) = run_ids(laptop)
    return laptop


def begin(laptop, seed: int) -> str:
    """The id of a run that goes on, with a checkpoint in S3."""
    before = set(run_ids(laptop))
    laptop.inv("train", "--detach", overrides=("train.steps=4000", "train.save_steps=5", f"seed={seed}"))
    (run_id,) = set(run_ids(laptop)) - before
    wait_until(lambda: checkpoints(laptop, run_id))
    return run_id


def left(laptop, folder: str) -> list[str]:
    return [key for key in laptop.objects() if f"/{folder}/" in key]


def test_a_run_is_cancelled_with_its_log_and_its_newest_checkpoint_in_s3(box):
    run_id = begin(box, seed=1)
    calls = killed(box, "stop-run")
    assert ALONE | SCRIPT | {"SendCommand cancel", "PutObject audit"} <= set(calls)
    assert state(box, run_id)["phase"] == "cancelled" and not trainers(box)
    done = steps(box, run_id)
    assert done == list(range(1, len(done) + 1))
    assert f"step-{len(done):06d}" in checkpoints(box, run_id)
    log = box.inv("logs", "--run", run_id).stdout.splitlines()
    assert [line for line in log if line.startswith("step ")] == [f"step {number} of 4000" for number in done]
    assert not left(box, "locks")


def test_only_the_run_that_came_to_nothing_is_removed(box):
    going = begin(box, seed=2)
    of_finished_run = {key for key in box.objects() if f"/runs/{box.finished}/" in key}
    calls = killed(box, "clean", "--yes")
    assert ALONE | SCRIPT | {"SendCommand held", "DeleteObjects", "SendCommand clean", "PutObject audit"} <= set(calls)
    assert set(run_ids(box)) == {box.finished, going}
    assert of_finished_run <= set(box.objects())
    (root,) = (box.state / "boxes").glob("*/root")
    assert {path.name for path in (root / "mnt/training/runs").iterdir()} == {box.finished, going}
    assert trainers(box) and not left(box, "locks")
    box.inv("stop-run")


def test_what_was_asked_and_answered_is_left_nowhere(box):
    calls = killed(box, "predict", "Stage II.")
    assert ALONE | SCRIPT | {"PutObject questions", "SendCommand predict", "GetObject questions", "DeleteObjects"} <= set(calls)
    assert not left(box, "questions") and not left(box, "locks")
    assert box.inv("predict", "Stage III.").stdout.splitlines()[-1] == "Stage III."


def test_a_run_is_scored_once_for_one_split(box):
    calls = killed(box, "evaluate", "--split", "smoke_validation")
    assert ALONE | SCRIPT | {"SendCommand evaluate", "GetObject runs smoke_validation.json"} <= set(calls)
    names = ("smoke_validation.json", "smoke_validation.predictions.jsonl")
    assert left(box, "evaluations") == [f"fine-tune-slm/runs/{box.finished}/evaluations/{name}" for name in names]
    assert not left(box, "locks")


def test_box_and_volume_go_for_good_and_one_copy_and_the_results_stay(box):
    ec2, mine = box.client("ec2"), [{"Name": "tag-key", "Values": [BOX]}]
    (instance,) = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    (group,), (name,) = instance["SecurityGroups"], [tag["Value"] for tag in instance["Tags"] if tag["Key"] == BOX]
    door = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}  # as `up` leaves it with box.ssh=true
    ranges = [{"CidrIp": "10.0.0.1/32", "Description": f"{BOX}={name}"}]
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[door | {"IpRanges": ranges}])
    results = left(box, "runs")
    calls = killed(box, "down", "--purge", "--snapshot", "--yes")
    changes = {"SendCommand stop", "StopInstances", "DeleteSchedule", "CreateSnapshot", "RevokeSecurityGroupIngress", "PutObject audit"}
    assert ALONE | SCRIPT | changes | {"TerminateInstances", "DeleteVolume"} <= set(calls)
    states = {one["State"]["Name"] for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]}
    assert states == {"terminated"}
    assert ec2.describe_volumes(Filters=mine)["Volumes"] == []
    assert len(ec2.describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]) == 1
    assert box.client("scheduler").list_schedules()["Schedules"] == []
    assert ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"][0]["IpPermissions"] == []
    assert not left(box, "locks")
    assert left(box, "runs") == results
