"""A spot box that AWS takes back, and starts again later, goes on with its run: nobody has asked for it again."""

import pytest
import stand_in_trainer
from test_recovery import run_ids, state, steps, trainers, wait_until

from twin import world

pytestmark = pytest.mark.slow  # half a minute: a run that is taken back half-way

SETTINGS = ("box.spot=true", "train.steps=60", "train.save_steps=5")


def test_the_run_goes_on_by_itself_when_aws_starts_the_box_again(laptop):
    stand_in_trainer.register(laptop.state, step_seconds=0.2, hold_at=23)
    laptop.inv("up", "deploy", "train", "--detach", overrides=SETTINGS)
    (run_id,) = run_ids(laptop)
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000020" in key for key in laptop.objects()))
    (made,) = laptop.client("ec2").describe_instances()["Reservations"][0]["Instances"]

    world.fault(laptop.state, "spot-notice", instance=made["InstanceId"], seconds=1200)  # on a busy machine 120 are too few
    wait_until(lambda: state(laptop, run_id)["phase"] == "failed")
    assert "AWS takes this spot box back at" in state(laptop, run_id)["evidence"]
    assert not trainers(laptop), "it would train until it is cut off"
    world.forward(laptop.state, 1205)
    wait_until(lambda: laptop.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]["State"]["Name"] == "stopped")

    world.fault(laptop.state, "spot-back", instance=made["InstanceId"])
    laptop.inv("up", "deploy", overrides=SETTINGS)  # what systemd and fstab do at a boot, and a box of this grade has neither
    wait_until(lambda: state(laptop, run_id)["phase"] == "done")
    assert sorted(set(steps(laptop, run_id))) == list(range(1, 61))
    log = laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert laptop.inv("logs", "--run", run_id).stdout == log and log.count("going on after step") == 1
