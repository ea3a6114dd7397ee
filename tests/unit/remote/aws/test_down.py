"""The end of a box: stopped first and whatever else fails; for good where that is wanted, whenever it is cut short."""

import time
from pathlib import Path

import pytest

from conf.problem import Problem
from remote.aws import auto_stop, instance, volume
from remote.plan import verbs
from remote.plan.perform import perform
from remote.transport import ssh_ingress
from remote.transport.transport import Result
from twin import world


class Scripts:
    """A box's end of the transport: each script ends with the result the test gives."""

    def __init__(self, *results: Result):
        self.results = list(results)

    def __call__(self, aws, instance_id):
        return self

    def run(self, script, timeout, title=""):
        return self.results.pop(0)


DELIVERED = Result(0, "@@ stopped_run=\n@@ changed=yes\n")
UNDELIVERED = Result(1, "@@ reason=unreachable\n@@ problem=the run's files are not in S3 yet\n@@ hint=wait\n")


@pytest.fixture
def run(aws, store, settings):
    """Settings of a box that runs with its volume; nothing of it is left afterwards."""
    run = settings("box.name=ending")
    made = instance.ensure(aws, run.box).instance_id
    auto_stop.arm(aws, made, 12)
    volume.ensure(aws, run.box, made, instance.wait(aws, made).zone)
    yield run
    world.clear_faults(Path(aws.cloud.state))
    ec2 = aws.client("ec2")
    for each in ("instances", "volumes"):
        for one in there(aws)[each]:
            ec2.terminate_instances(InstanceIds=[one]) if each == "instances" else volume.delete(aws, "ending")
    for one in there(aws)["snapshots"]:
        ec2.delete_snapshot(SnapshotId=one)


def there(aws) -> dict:
    """What is paid for, by its tag."""
    ec2, mine = aws.client("ec2"), [{"Name": f"tag:{instance.BOX}", "Values": ["ending"]}]
    alive = [*mine, {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    groups = ec2.describe_instances(Filters=alive)["Reservations"]
    return {
        "instances": [one["InstanceId"] for group in groups for one in group["Instances"]],
        "volumes": [one["VolumeId"] for one in ec2.describe_volumes(Filters=mine)["Volumes"]],
        "snapshots": sorted(one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]),
    }


def state(aws) -> str:
    return instance.find(aws, "ending").state


def test_a_purge_with_a_snapshot_keeps_a_copy(aws, run):
    outcome = perform(verbs.purge(run, False, True, True), aws, Scripts(DELIVERED))
    assert there(aws) == {"instances": [], "volumes": [], "snapshots": [outcome.of(volume.Snapshot).snapshot_id]}


def test_the_volume_stays_while_its_copy_is_not_whole(aws, run, monkeypatch):
    perform(verbs.down(run, False, True), aws, Scripts(DELIVERED))
    usual = aws.client("ec2").describe_snapshots
    seen = []

    def late(**asked):
        seen.append(there(aws)["volumes"]) if len(seen) < 2 else None
        return {"Snapshots": [{"SnapshotId": "snap-1"}]} if len(seen) < 2 else {"Snapshots": []}

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(
        aws.client("ec2"),
        "describe_snapshots",
        lambda **asked: late() if "OwnerIds" in asked and len(asked["Filters"]) == 2 else usual(**asked),
    )
    perform(verbs.purge(run, False, True), aws, Scripts())
    assert len(seen) == 2 and all(seen)
    assert there(aws)["volumes"] == []


@pytest.mark.parametrize("cut", [(instance, "stop"), (instance, "terminate"), (volume, "delete")])
@pytest.mark.parametrize("before", [True, False])
def test_a_purge_that_was_cut_short_ends_with_the_same_command(aws, run, monkeypatch, cut, before):
    module, name = cut
    usual = getattr(module, name)

    def killed(aws, **settings):
        """Be killed."""
        if not before:
            usual(aws, **settings)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, killed)
        perform(verbs.purge(run, False, True), aws, Scripts(DELIVERED))
    perform(verbs.purge(run, False, True), aws, Scripts(DELIVERED))
    assert there(aws) == {"instances": [], "volumes": [], "snapshots": []}


def test_a_disk_is_copied_once_while_nothing_has_written_to_it(aws, run):
    time.sleep(1.1)  # EC2 gives the start of a box to the second
    first = perform(verbs.down(run, False, True), aws, Scripts(DELIVERED)).of(volume.Snapshot).snapshot_id
    assert perform(verbs.down(run, False, True), aws, Scripts()).of(volume.Snapshot).snapshot_id == first
    instance.ensure(aws, run.box)
    time.sleep(1.1)
    later = perform(verbs.down(run, False, True), aws, Scripts(DELIVERED)).of(volume.Snapshot).snapshot_id
    assert later != first
    instance.terminate(aws, instance.find(aws, "ending").id)
    assert perform(verbs.purge(run, False, True, True), aws, Scripts()).of(volume.Snapshot).snapshot_id == later
    assert there(aws) == {"instances": [], "volumes": [], "snapshots": sorted([first, later])}


def test_a_purge_of_what_is_gone_says_so(aws, run, capsys):
    for _ in range(2):
        perform(verbs.purge(run, False, True), aws, Scripts(DELIVERED))
    assert "there is neither a box nor a volume named `ending`" in capsys.readouterr().err


def test_a_copy_of_no_volume_is_said_and_the_box_is_stopped_and_disarmed(aws, run, capsys):
    box = instance.find(aws, "ending").id
    instance.stop(aws, box)
    ec2 = aws.client("ec2")
    (disk,) = there(aws)["volumes"]
    ec2.detach_volume(VolumeId=disk)
    volume.delete(aws, "ending")
    outcome = perform(verbs.down(run, False, True), aws, Scripts())
    assert "has no volume: there is nothing to copy" in capsys.readouterr().err
    assert (outcome.of(volume.Snapshot).snapshot_id, auto_stop.stop_time(aws, box), state(aws)) == (None, None, "stopped")


def test_the_box_is_stopped_before_a_denied_close_of_the_ssh_port_fails(aws, run):
    ssh_ingress.open_port(aws, instance.find(aws, "ending").id, "ending", "10.0.0.1/32")
    world.fault(Path(aws.cloud.state), "access-denied", only="ec2.RevokeSecurityGroupIngress,ec2.DescribeSecurityGroups", count=0)
    with pytest.raises(Exception, match="not authorized|still open"):
        perform(verbs.down(run, False), aws, Scripts(DELIVERED))
    assert state(aws) == "stopped"
    assert auto_stop.stop_time(aws, instance.find(aws, "ending").id) is None


@pytest.mark.parametrize("end", [UNDELIVERED, Result(255, stderr="umount: busy")])
def test_only_with_force_a_box_that_fails_to_deliver_is_stopped_all_the_same(aws, run, capsys, end):
    with pytest.raises(Problem):
        perform(verbs.down(run, False), aws, Scripts(end))
    assert state(aws) == "running"
    perform(verbs.down(run, True), aws, Scripts(end))
    assert state(aws) == "stopped"
    assert "; the box is stopped anyway; what it has not shipped stays on its volume" in capsys.readouterr().err


def test_what_comes_next_after_a_run_was_ended_is_going_on_with_it(run):
    assert verbs.down(run, True).next == "`inv up deploy train` goes on with a run that this has ended"
    assert verbs.down(run, False).next == "`inv report`"
