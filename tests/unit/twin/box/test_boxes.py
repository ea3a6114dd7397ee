"""Boxes and volumes: what EC2 says is what happens to real processes and files."""

import os
import time

import pytest
from botocore.exceptions import ClientError

from twin import world
from twin.box import processes


@pytest.fixture
def machine(cloud):
    """A box that the test may stop or terminate."""
    box = cloud.box()
    yield box
    cloud.ec2.terminate_instances(InstanceIds=[box.instance])


def stop(box, until):
    box.cloud.ec2.stop_instances(InstanceIds=[box.instance])
    assert box.cloud.instance_state(box.instance) in ("stopping", "stopped")
    until(lambda: box.cloud.instance_state(box.instance) == "stopped")


def refused(call, **arguments) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


def test_stop_ends_everything_and_keeps_files_and_volume(machine, until):
    volume, device = machine.attach_volume()
    mount = machine.root / "mnt/data"
    machine.run(f"mkfs.ext4 -q '{device}' && mkdir -p '{mount}' && mount '{device}' '{mount}' && echo kept > '{mount}/file'")
    machine.run("trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null &")
    machine.run('echo kept > "$BOX_ROOT/root/file"; echo secret > "$BOX_ROOT/run/token"')
    assert len(processes.of(machine.root)) >= 2
    stop(machine, until)
    assert processes.of(machine.root) == []
    assert (machine.root / "root/file").exists() and not (machine.root / "run/token").exists()
    assert not mount.is_symlink()
    assert (machine.cloud.state / "volumes" / volume / "data/file").read_text() == "kept\n"


def test_stop_lets_processes_end_in_order(machine, until):
    waiting = "trap 'echo bye > \"$BOX_ROOT/root/last\"; exit' TERM\nwhile :; do sleep 0.1; done\n"
    (machine.root / "root/waiting.sh").write_text(waiting)
    machine.run('setsid sh "$BOX_ROOT/root/waiting.sh" >/dev/null 2>&1 </dev/null & sleep 0.3')
    stop(machine, until)
    assert (machine.root / "root/last").read_text() == "bye\n"


def test_a_box_may_stop_itself(machine, until):
    (machine.root / "root/stopping.sh").write_text('aws ec2 stop-instances --instance-ids "$AWS_SSM_INSTANCE_ID"\n')
    machine.run('setsid sh "$BOX_ROOT/root/stopping.sh" >"$BOX_ROOT/root/answer" 2>&1 </dev/null &')
    until(lambda: machine.cloud.instance_state(machine.instance) == "stopped")
    assert processes.of(machine.root) == []


def test_a_stopped_box_takes_no_commands_and_works_again_after_start(machine, until):
    stop(machine, until)
    assert refused(lambda: machine.send("true")) == "InvalidInstanceId"
    assert machine.cloud.agents()[machine.instance]["PingStatus"] == "Online"  # stale, as on AWS
    machine.cloud.ec2.start_instances(InstanceIds=[machine.instance])
    begun = time.monotonic()
    assert machine.run("echo again")["StandardOutputContent"] == "again\n"
    assert time.monotonic() - begun < 5


def test_reboot_ends_what_ran(machine, until):
    machine.run('setsid sleep 65.5 >/dev/null 2>&1 </dev/null & echo x > "$BOX_ROOT/root/file"')
    before = processes.of(machine.root)
    machine.cloud.ec2.reboot_instances(InstanceIds=[machine.instance])
    until(lambda: not any(process.is_running() and process.status() != "zombie" for process in before))
    assert machine.run('cat "$BOX_ROOT/root/file"')["StandardOutputContent"] == "x\n"


def test_terminate_deletes_the_box_and_frees_the_volume(machine, until):
    volume, _ = machine.attach_volume()
    machine.cloud.ec2.terminate_instances(InstanceIds=[machine.instance])
    until(lambda: machine.cloud.instance_state(machine.instance) == "terminated")
    until(lambda: not machine.root.exists())
    assert (machine.cloud.state / "volumes" / volume).is_dir()
    assert machine.cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"
    assert refused(machine.cloud.ec2.start_instances, InstanceIds=[machine.instance]) == "IncorrectInstanceState"


def test_without_a_profile_no_agent_registers(cloud):
    silent = cloud.launch(IamInstanceProfile={})
    time.sleep(0.7)
    assert silent not in cloud.agents()
    assert "not authorized" in (cloud.state / "boxes" / silent / "root/var/log/amazon-ssm-agent.log").read_text()
    cloud.ec2.terminate_instances(InstanceIds=[silent])


def test_same_client_token_gives_the_same_instance(cloud):
    first, again = cloud.launch(ClientToken="once"), cloud.launch(ClientToken="once")
    assert first == again
    assert refused(cloud.launch, ClientToken="once", InstanceType="g6.xlarge") == "IdempotentParameterMismatch"
    cloud.ec2.terminate_instances(InstanceIds=[first])


def test_refuses_unknown_instance_type_and_image(cloud):
    assert refused(cloud.launch, InstanceType="g6.gigantic").startswith("InvalidInstanceType")
    request = {"ImageId": "ami-0123456789abcdef0", "MinCount": 1, "MaxCount": 1}
    assert refused(cloud.ec2.run_instances, **request).startswith("InvalidAMIID")


def test_volume_is_formatted_mounted_and_unmounted_as_on_linux(box, until):
    volume, device = box.attach_volume()
    names = f"D='{device}' M='{box.root}/mnt/cycle'; mkdir -p \"$M\"; "

    def code(script: str) -> int:
        return box.shell(names + script).returncode

    probe = 'blkid -p -o value -s TYPE "$D"'
    assert code(probe) == 2 and box.shell(names + 'wipefs -n "$D"').stdout == ""
    assert code('mount "$D" "$M"') == 32 and code('mountpoint -q "$M"') == 32
    assert code('mkfs.ext4 -q "$D"') == 0 and box.shell(names + probe).stdout == "ext4\n"
    assert box.shell(names + 'wipefs -n "$D"').stdout != ""
    assert code('mount "$D" "$M" && mountpoint -q "$M" && echo x > "$M/file"') == 0
    assert code('mount "$D" "$M"') == 32 and code('mkfs.ext4 -q "$D"') == 1
    busy = box.shell(names + 'cd "$M"; umount "$M"')
    assert busy.returncode == 32 and "target is busy" in busy.stderr
    assert code('umount "$M"') == 0 and code('umount "$M"') == 32 and code('[ ! -e "$M/file" ]') == 0
    assert code('mount "$D" "$M" && [ -s "$M/file" ]') == 0
    assert box.cloud.ec2.detach_volume(VolumeId=volume)["State"] == "busy"
    assert code('umount "$M" && echo x > "$M/below" && mount "$D" "$M" && [ -s "$M/file" ] && [ ! -e "$M/below" ]') == 0, "it is hidden"
    assert code('umount "$M" && [ -s "$M/below" ] && [ ! -e "$M/file" ]') == 0
    until(lambda: box.cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    assert not os.path.lexists(device)
    assert refused(box.cloud.ec2.detach_volume, VolumeId=volume) == "IncorrectState"


def test_volume_attaches_once_and_in_its_own_zone_only(box):
    ec2 = box.cloud.ec2
    volume, _ = box.attach_volume()
    assert refused(ec2.attach_volume, VolumeId=volume, InstanceId=box.instance, Device="/dev/sdg") == "VolumeInUse"
    ec2.detach_volume(VolumeId=volume)
    ec2.delete_volume(VolumeId=volume)
    assert not (box.cloud.state / "volumes" / volume).exists()
    far = ec2.create_volume(AvailabilityZone="us-east-1b", Size=1)["VolumeId"]
    assert refused(ec2.attach_volume, VolumeId=far, InstanceId=box.instance, Device="/dev/sdg") == "InvalidVolume.ZoneMismatch"


@pytest.mark.parametrize(
    "command", ["mount -a", "umount -l x", "blkid /dev/x", "nvidia-smi -q", "wipefs -a x", "shutdown -x", "mkfs.xfs x"]
)
def test_what_is_not_emulated_is_refused_or_absent(box, command):
    assert box.shell(command).returncode != 0


def test_shows_the_gpu_of_the_instance_type(box):
    query = "nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader"
    assert box.shell(query).stdout.startswith("NVIDIA L4, 23034 MiB, 580.")
    assert box.shell(query + ",nounits").stdout.startswith("NVIDIA L4, 23034, 580.")


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("g5.2xlarge", ["NVIDIA A10G, 23028 MiB, 580.95.05"]),
        ("g6.12xlarge", ["NVIDIA L4, 23034 MiB, 580.95.05"] * 4),
        ("g6f.large", ["NVIDIA L4, 2861 MiB, 580.95.05"]),
    ],
)
def test_each_type_has_its_own_gpus(cloud, kind, shown):
    box = cloud.box(InstanceType=kind)
    assert box.shell("nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader").stdout.splitlines() == shown
    assert len(box.shell("nvidia-smi -L").stdout.splitlines()) == len(shown)
    idle = box.shell("nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits").stdout
    assert idle.splitlines() == ["0"] * len(shown)


def test_a_type_without_a_gpu_has_no_driver(cloud):
    done = cloud.box(InstanceType="m7i.large").shell("nvidia-smi -L")
    assert done.returncode == 9 and "couldn't communicate with the NVIDIA driver" in done.stdout


def log(box, name: str) -> str:
    path = box.root / "var/log" / name
    return path.read_text() if path.exists() else ""


def test_user_data_runs_once_in_a_boxs_life(cloud, until):
    box = cloud.box(UserData='#!/bin/sh\necho $0 boots >>"$BOX_ROOT/root/told"\n')
    log_file = box.root / "root/told"
    until(log_file.exists)
    assert log_file.read_text() == f"{box.root}/var/lib/cloud/instance/scripts/part-001 boots\n"
    stop(box, until)
    cloud.ec2.start_instances(InstanceIds=[box.instance])
    assert box.run("echo up")["StandardOutputContent"] == "up\n"
    assert len(log_file.read_text().splitlines()) == 1
    cloud.ec2.terminate_instances(InstanceIds=[box.instance])


def test_user_data_that_is_no_script_is_refused_here(cloud):
    assert refused(cloud.launch, UserData="#cloud-config\n") == "InvalidParameterValue"


def test_a_planned_shutdown_comes_when_it_is_due_unless_it_is_called_off(cloud, until):
    def planned(*more: str) -> str:
        instance = cloud.launch(
            UserData="\n".join(["#!/bin/sh", "shutdown -h +30", *more, "echo done"]), InstanceInitiatedShutdownBehavior="stop"
        )
        path = cloud.state / "boxes" / instance
        until(lambda: "done" in (path / "root/var/log/cloud-init-output.log").read_text() and not (path / "power").exists())
        return instance

    left, called_off = planned(), planned("shutdown -c")
    world.forward(cloud.state, 29 * 60)
    assert cloud.instance_state(left) == "running"
    world.forward(cloud.state, 61)
    until(lambda: cloud.instance_state(left) == "stopped")
    assert cloud.instance_state(called_off) == "running"
    cloud.ec2.terminate_instances(InstanceIds=[left, called_off])
