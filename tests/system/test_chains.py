"""Whole chains with the real trainer in its real image: what befalls the box in the middle, and how the run ends all the same."""

import pytest
from machine import MOUNT, may_resize, trainers

from twin import world

pytestmark = pytest.mark.system
STEPS = 40
NOTICE = 1200  # seconds of the world's clock: on a busy machine a box takes longer than AWS's 120 to look and send
# Long enough to be caught in the middle.
LONG = (f"train.steps={STEPS}", "train.save_steps=4", f"train.eval_steps={STEPS}", "train.batch_size=2")

OURS = ("fine-tune-slm:box", "fine-tune-slm:owner", "Name")


@pytest.fixture
def settings(machine, request):
    """Those of a run of this test's own."""
    return (*LONG, f"seed={100 + len(request.node.name)}")


def test_from_nothing_to_a_published_adapter_and_a_stopped_box(machine):
    (run_id,) = machine.run_ids()[:1]
    machine.ended_well(run_id, steps=4, resumed=0)
    assert "is published and verified" in machine.first.stdout and "is stopped" in machine.first.stdout


def test_somebody_stops_the_box_in_the_middle(machine, settings):
    with machine.counted() as most:
        run_id = machine.begin(*settings)
        world.fault(machine.state, "box-stopped")
        machine.until(lambda: machine.instance_state() == "stopped")
        stranded = machine.inv("train", overrides=settings, ok=False)
        assert stranded.returncode == 1 and "`inv up -- " in stranded.stderr
        done = machine.inv("up", "deploy", "train", "publish", overrides=settings)
    assert f"{run_id} is done" in done.stdout
    assert most() == 1
    machine.ended_well(run_id, STEPS, resumed=1)


def test_the_box_reboots_in_the_middle(machine, settings):
    with machine.counted() as most:
        run_id = machine.begin(*settings)
        first = machine.first_process()
        world.fault(machine.state, "box-reboots")
        machine.until(lambda: machine.first_process() not in ("", first))
        done = machine.inv("up", "train", "publish", overrides=settings)
    assert f"{run_id} is done" in done.stdout
    assert most() == 1
    machine.ended_well(run_id, STEPS, resumed=1)


def test_a_run_of_before_whose_container_was_root_goes_on(machine, settings):
    """All that it has left on the volume is root's, and becomes the trainer's once."""
    with machine.counted() as most:
        run_id = machine.begin(*settings)
        machine.inv("down", "--force")
        machine.inv("up", "deploy")
        machine.run(f"chown -hR 0:0 {MOUNT}/runs/{run_id} {MOUNT}/hub-cache && docker rm --force $(docker ps --all --quiet)")
        done = machine.inv("train", "publish", overrides=settings)
    assert f"{run_id} is done" in done.stdout
    assert most() == 1
    machine.ended_well(run_id, STEPS, resumed=1)
    owners = machine.run(f"find {MOUNT}/runs/{run_id} {MOUNT}/hub-cache -printf '%u\n' | sort -u")
    assert owners == "10001"


def test_the_disk_is_full_in_the_middle_and_grows(machine, settings):
    """Or is made room on, where root may not let a mounted file system grow."""
    with machine.counted() as most:
        run_id = machine.begin(*settings)
        world.fault(machine.state, "disk-full")
        machine.until(lambda: machine.phase(run_id)["phase"] == "failed")
        assert machine.phase(run_id)["reason"] == "disk_full" and "box.disk_gb=" in machine.phase(run_id)["hint"]
        again = machine.inv("train", overrides=settings, ok=False)
        assert again.returncode == 1 and " box.disk_gb=...`" in again.stderr
        assert not trainers()
        if not may_resize():
            machine.run(f"rm {MOUNT}/somebodys.file*")
        larger = ("box.disk_gb=110",) if may_resize() else ()
        done = machine.inv("up", "deploy", "train", "publish", overrides=(*settings, *larger))
    machine.run(f"rm -f {MOUNT}/somebodys.file*")
    assert f"{run_id} is done" in done.stdout
    assert most() == 1
    machine.ended_well(run_id, STEPS, resumed=1)


def test_aws_takes_the_spot_box_back_and_another_box_goes_on(machine, settings):
    settings = (*settings, f"train.steps={10 * STEPS}", f"train.eval_steps={10 * STEPS}")  # still going on when the box hears of it
    machine.client("ec2").terminate_instances(InstanceIds=[machine.instance])
    machine.until(lambda: machine.instance_state() == "terminated")
    spot = as_spot(machine)
    machine.inv("up", "deploy")
    assert machine.instance == spot
    volume = machine.run(f"findmnt --noheadings --output UUID {MOUNT}")
    with machine.counted() as most:
        run_id = machine.begin(*settings)
        world.fault(machine.state, "spot-notice", seconds=NOTICE)
        machine.until(lambda: machine.phase(run_id)["phase"] == "failed")
        assert "AWS takes this spot box back" in machine.phase(run_id)["evidence"]
        world.forward(machine.state, NOTICE)
        machine.until(lambda: machine.instance_state() == "terminated")
        done = machine.inv("up", "deploy", "train", "publish", overrides=settings)
    assert machine.instance != spot and machine.run(f"findmnt --noheadings --output UUID {MOUNT}") == volume
    assert f"{run_id} is done" in done.stdout
    assert most() == 1
    machine.ended_well(run_id, 10 * STEPS, resumed=1)


def as_spot(machine) -> str:
    """A spot box with the tags and the template of the one before it."""
    ec2 = machine.client("ec2")
    last = ec2.describe_instances(InstanceIds=[machine.instance])["Reservations"][0]["Instances"][0]
    (template,) = ec2.describe_launch_templates()["LaunchTemplates"]
    return ec2.run_instances(
        ImageId=last["ImageId"],
        InstanceType=last["InstanceType"],
        MinCount=1,
        MaxCount=1,
        LaunchTemplate={"LaunchTemplateName": template["LaunchTemplateName"]},
        InstanceMarketOptions={"MarketType": "spot"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [tag for tag in last["Tags"] if tag["Key"] in OURS]}],
    )["Instances"][0]["InstanceId"]
