"""Faults on a box that is a real system: each has really happened there, and no disk but a blank one of ours is ever formatted."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from machine import Machine, needed, written

from remote.plan.script import compose
from remote.transport.transport import Result
from twin import world
from twin.box.machine import cleanup, lifecycle, loops, prerequisites

pytestmark = pytest.mark.system
ZONE = "us-east-1a"


@pytest.fixture(scope="module")
def box(prepared, tmp_path_factory):
    """A laptop whose box is up; nothing is mounted on it."""
    made = Machine(tmp_path_factory.mktemp("a hard world"))
    try:
        made.inv("twin.start", "up")
        yield made
    finally:
        world.stop(made.state)


@pytest.fixture
def rebooted(box):
    """After the test the box reboots: what befell it ends with that."""
    yield box
    reboot(box)


def reboot(box) -> None:
    record = box.box / "first.json"  # of the box's first process; it is not there while it is off
    first = record.read_text()
    world.fault(box.state, "box-reboots")
    box.until(lambda: lifecycle.alive(box.box) and record.exists() and record.read_text() != first)
    box.until(lambda: box.run("docker info", ok=False))


def create(box, size: int = 1) -> str:
    return box.client("ec2").create_volume(AvailabilityZone=ZONE, Size=size, VolumeType="gp3")["VolumeId"]


def attach(box, volume: str, letter: str = "g") -> None:
    box.client("ec2").attach_volume(VolumeId=volume, InstanceId=box.instance, Device=f"/dev/sd{letter}")


@pytest.fixture
def volume(box):
    """A blank volume of a gigabyte, attached; gone after the test."""
    made = create(box)
    attach(box, made)
    yield made
    remove(box, made)


def remove(box, volume: str) -> None:
    ec2 = box.client("ec2")
    box.run(f"umount /mnt/{volume}", ok=False)
    if ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0].get("Attachments"):
        ec2.detach_volume(VolumeId=volume)
    box.until(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    ec2.delete_volume(VolumeId=volume)


def prepare(box, volume: str, ours: str = "yes", size: int = 1, patience: int = 1) -> Result:
    """What volume.sh says on the box, byte for byte as it is sent."""
    settings = {"REGION": "r", "MOUNT_PATH": f"/mnt/{volume}", "VOLUME": volume, "OURS": ours, "SIZE_GB": size, "PATIENCE": patience}
    words = [*lifecycle.enter_command(box.box), "bash"]
    done = subprocess.run(words, input=compose("volume", settings), env={"PATH": prerequisites.SYSTEM_PATH}, text=True, capture_output=True)
    return Result(done.returncode, done.stdout, done.stderr)


def file(box, volume: str) -> Path:
    return box.state / "volumes" / volume / "disk"


def refused(box, volume: str, words: str, **settings) -> None:
    disks = [*box.state.glob("volumes/*/disk"), box.box / "instance-store/disk"]
    before = [written(disk) for disk in disks]
    result = prepare(box, volume, **settings)
    assert result.code == 1 and words in result.facts["problem"], result.stdout + result.stderr
    assert result.facts["hint"]
    box.run("sync")
    assert [written(disk) for disk in disks] == before
    assert box.run(f"mountpoint --quiet /mnt/{volume} && echo mounted", ok=False) == ""


def link(volume: str) -> str:
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


# Disks


def test_a_late_device_is_waited_for(box):
    volume = create(box)
    world.fault(box.state, "device-late", seconds=4)
    attach(box, volume)
    assert box.run(f"ls {link(volume)}", ok=False) == ""
    refused(box, volume, "its device did not appear")
    assert prepare(box, volume, patience=30).facts["formatted"] == "yes"
    remove(box, volume)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("LVM2_member", "it holds LVM2_member, which is not ours"),
        ("dos", "it has a partition table"),
        ("gpt", "it has a partition table"),
    ],
)
def test_a_disk_that_somebody_used_is_not_formatted(box, kind, words):
    needed("sfdisk", "pvcreate")
    world.fault(box.state, "foreign-filesystem", kind=kind)
    volume = create(box)
    attach(box, volume)
    refused(box, volume, words)
    remove(box, volume)


def test_a_disk_with_a_file_system_like_ours_is_mounted_as_it_is(box):
    world.fault(box.state, "foreign-filesystem", kind="xfs")
    volume = create(box)
    attach(box, volume)
    result = prepare(box, volume)
    assert (result.code, result.facts["formatted"]) == (0, "no"), result.stderr
    assert box.run(f"findmnt --noheadings --output FSTYPE /mnt/{volume}") == "xfs"
    remove(box, volume)


def test_the_instance_s_own_blank_disk_is_never_taken_for_the_volume(box):
    """Nor another volume of the same size: the one that is meant is not attached."""
    lookalike, meant = create(box), create(box)
    attach(box, lookalike)
    refused(box, meant, "its device did not appear")
    for volume in (lookalike, meant):
        remove(box, volume)


def test_swapped_devices_change_nothing(rebooted, volume):
    box = rebooted
    assert box.run(f"readlink -f {link(volume)}") != "/dev/nvme1n1"
    world.fault(box.state, "devices-swapped")
    reboot(box)
    store = box.run("readlink -f /dev/disk/by-id/nvme-Amazon_EC2*")
    assert store == "/dev/nvme3n1", "the volumes have not become the first ones"
    assert prepare(box, volume).facts["formatted"] == "yes"
    assert box.run(f"blkid -o value -s TYPE {link(volume)}; blkid -p {store}", ok=False) == "ext4"
    world.fault(box.state, "devices-swapped")


def test_a_disk_that_cannot_be_read_is_not_formatted(box, volume):
    world.fault(box.state, "disk-unreadable")
    assert box.run(f"dd if={link(volume)} bs=4096 count=1 status=none | wc -c") == "0"
    result = prepare(box, volume)
    assert result.code == 1 and "cannot be read" in result.facts["problem"]
    assert file(box, volume).stat().st_size == 0


def test_a_full_disk_takes_no_byte(box, volume):
    prepare(box, volume)
    world.fault(box.state, "disk-full")
    output = box.run(f"head -c 100000 /dev/zero 2>&1 >/mnt/{volume}/more || df --output=avail /mnt/{volume} | tail -n 1", ok=False)
    assert output.split()[-1] == "0"
    assert "No space left" in box.run(f"head -c 100000 /dev/zero >/mnt/{volume}/more 2>&1; cp /bin/bash /mnt/{volume}/ 2>&1", ok=False)


def test_a_lost_mount_is_gone_and_found_again(box, volume):
    prepare(box, volume)
    box.run(f"touch /mnt/{volume}/runs/kept")
    world.fault(box.state, "mount-lost")
    assert box.run(f"ls /mnt/{volume}") == ""
    assert prepare(box, volume, ours="no").facts["formatted"] == "no"
    assert box.run(f"ls /mnt/{volume}/runs") == "kept"


def test_a_mounted_volume_is_busy_until_it_is_unmounted(box):
    volume, ec2 = create(box), box.client("ec2")
    attach(box, volume)
    prepare(box, volume)
    assert ec2.detach_volume(VolumeId=volume)["State"] == "busy"
    assert box.run(f"ls /mnt/{volume}")
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "in-use"
    box.run(f"umount /mnt/{volume}")
    box.until(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    assert box.run(f"ls {link(volume)}", ok=False) == ""
    assert loops.loops(file(box, volume)) == []
    ec2.delete_volume(VolumeId=volume)


# Docker, the GPU and the box


def test_a_dead_docker_stays_dead_until_the_next_boot(box):
    world.fault(box.state, "docker-dead")
    time.sleep(1.5)  # longer than its service waits before it starts one that has ended
    assert "Cannot connect to the Docker daemon" in box.run("docker ps 2>&1", ok=False)
    reboot(box)
    assert box.run("docker info --format '{{.ServerVersion}}'")


def test_a_slow_docker_answers_late(rebooted):
    world.fault(rebooted.state, "docker-slow", seconds=3)
    time.sleep(0.5)
    began = time.monotonic()
    rebooted.run("docker ps")
    assert time.monotonic() - began > 1.5


def test_a_container_whose_process_is_killed_has_ended_by_signal_9(box):
    sleeper = "tar -ch /usr/bin/sleep /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 2>/dev/null | docker import - sleeper"
    box.run(f"{sleeper} && docker run --detach --network none --name sleeper sleeper /usr/bin/sleep 1000")
    world.fault(box.state, "container-killed")
    assert box.run("docker wait sleeper") == "137"
    box.run("docker rm sleeper")


def test_without_its_device_there_is_no_gpu_for_driver_and_container(rebooted):
    assert "NVIDIA L4" in rebooted.run("nvidia-smi -L")
    world.fault(rebooted.state, "gpu-missing")
    assert "couldn't communicate with the NVIDIA driver" in rebooted.run("nvidia-smi -L", ok=False)


def test_an_agent_that_hangs_answers_nothing(box):
    ssm = box.client("ssm")
    world.fault(box.state, "agent-hangs")
    sent = ssm.send_command(InstanceIds=[box.instance], DocumentName="AWS-RunShellScript", Parameters={"commands": ["true"]})
    time.sleep(1.5)
    where = {"CommandId": sent["Command"]["CommandId"], "InstanceId": box.instance}
    assert ssm.get_command_invocation(**where)["Status"] == "Pending"
    world.fault(box.state, "agent-restarts")
    box.until(lambda: ssm.get_command_invocation(**where)["Status"] == "Success")


def test_a_dead_box_runs_nothing_and_ec2_calls_it_running(box):
    first = box.box
    world.fault(box.state, "agent-hangs")
    world.fault(box.state, "box-dead")
    assert not lifecycle.alive(first) and box.instance_state() == "running"
    box.client("ec2").stop_instances(InstanceIds=[box.instance])
    box.until(lambda: box.instance_state() == "stopped")
    assert [back for back in loops.attached().values() if back.startswith(str(box.state))] == []


def test_what_a_killed_world_leaves_is_taken_away_and_a_living_world_stays(box, tmp_path):
    """The world's own process is killed: nobody is left who would end its box."""
    killed = Machine(tmp_path)
    killed.inv("twin.start", "up")
    left = killed.box
    os.kill(world.status(killed.state)["pid"], 9)
    box.until(lambda: not world.status(killed.state))
    assert lifecycle.alive(left) and [back for back in loops.attached().values() if back.startswith(str(killed.state))]
    world.reap()
    assert not lifecycle.alive(left)
    assert [back for back in loops.attached().values() if back.startswith(str(killed.state))] == []
    assert world.status(box.state)


def test_the_cache_keeps_what_is_used(tmp_path):
    for number, name in enumerate(["debian-old", "debian-new", "wheels-only", "wheels-half.part"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (number, number))
    cleanup.prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"debian-new", "wheels-only", "wheels-half.part"}
