"""The main job on boxes that are real systems: docker, disks, registry and sshd as on EC2, and the same scripts byte for byte."""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from machine import MOUNT

from remote.aws.instance import HOST_KEY
from twin.box import processes
from twin.box.machine import lifecycle, loops, network

pytestmark = pytest.mark.system


def test_the_image_that_ran_is_the_one_that_was_built_and_pushed(machine):
    tags = machine.client("ecr").describe_images(repositoryName="fine-tune-slm")["imageDetails"]
    container = json.loads(machine.run("docker inspect $(docker ps --all --quiet --filter label=fine-tune-slm.run)"))[0]
    (image,) = json.loads(machine.run("docker image ls --quiet | sort -u | xargs docker image inspect"))
    assert container["State"]["ExitCode"] == 0 and container["Image"] == image["Id"]
    assert [name.partition("@")[2] for name in image["RepoDigests"]] == [tags[0]["imageDigest"]]


def test_the_trainer_was_an_ordinary_user_with_its_own_folders_and_within_limits(machine):
    container = json.loads(machine.run("docker inspect $(docker ps --all --quiet --filter label=fine-tune-slm.run)"))[0]
    held = container["HostConfig"]
    assert container["Config"]["User"] == "10001:10001" and held["CapDrop"] == ["ALL"] and "no-new-privileges" in held["SecurityOpt"]
    assert held["ReadonlyRootfs"] and held["IpcMode"] == "private" and held["NetworkMode"] == "fine-tune-slm" and not held["Privileged"]
    assert held["Memory"] > 0 and held["MemorySwap"] == held["Memory"] and held["PidsLimit"] == 8192
    assert [(one["Name"], one["Hard"]) for one in held["Ulimits"]] == [("core", 0)]
    (run_id,) = machine.run_ids()[:1]
    writable = {mount["Destination"] for mount in container["Mounts"] if mount["RW"]}
    assert writable == {f"{MOUNT}/{name}" for name in (f"runs/{run_id}", "hub-cache", "base-scores")}
    others = {mount["Destination"].rpartition("/")[0] for mount in container["Mounts"] if not mount["RW"]}
    assert others == {f"{MOUNT}/inputs", f"{MOUNT}/runs/{run_id}", "/run/fine-tune-slm"}  # in the run: its settings


ASK = """
import http.client
def ask(method, path, **headers):
    service = http.client.HTTPConnection("169.254.169.254", timeout=5)
    try:
        service.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return service.getresponse().status
    except OSError as error:
        return type(error).__name__
print(ask("GET", "/latest/meta-data/instance-id"), ask("PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="60"))
"""


def test_no_container_comes_to_the_box_s_role_while_the_box_does(machine):
    image = machine.run("docker image ls --quiet | head -n 1")
    inside = f"docker run --rm --network fine-tune-slm --user 10001 --entrypoint python {image} -c '{ASK}'"
    assert machine.run(inside).split() == ["401", "TimeoutError"], "without a token it is told nothing, and no token reaches it"
    assert machine.run(f"python3 -c '{ASK}'").split() == ["401", "200"]
    options = {"InstanceId": machine.instance, "HttpTokens": "required"}
    machine.client("ec2").modify_instance_metadata_options(**options, HttpPutResponseHopLimit=2)
    assert machine.run(inside).split() == ["401", "200"], "one hop more, and it is there: the test sees the difference"
    again = machine.inv("train", ok=False)
    assert again.returncode == 1 and "` closes its metadata service" in again.stderr
    machine.inv("up")
    assert machine.run(inside).split() == ["401", "TimeoutError"]


def test_a_container_reaches_the_hub_and_nothing_that_listens_on_this_machine(machine):
    image = machine.run("docker image ls --quiet | head -n 1")
    hub, aws = (urlsplit(machine.environment[name]).port for name in ("HF_ENDPOINT", "AWS_ENDPOINT_URL"))
    reach = "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))"
    inside = f"docker run --rm --network fine-tune-slm --user 10001 --entrypoint python {image} -c '{reach}'"
    assert machine.run(f"{inside} {network.GATEWAY} {hub}") == "0"
    for address in (network.GATEWAY, "127.0.0.1", network.BOX):
        assert machine.run(f"{inside} {address} {aws}") != "0"


def test_the_box_is_a_system_of_its_own_and_cannot_turn_the_machine_off(machine):
    assert machine.run("hostname; cat /proc/1/comm").split() == ["box", "bash"]
    assert int(re.search(r"CapEff:\s+(\w+)", machine.run("cat /proc/1/status"))[1], 16) >> 22 & 1 == 0
    assert int(re.search(r"CapEff:\s+(\w+)", machine.run("cat /proc/$(pgrep -f opt/box/agent | head -n 1)/status"))[1], 16) >> 22 & 1 == 0
    first = json.loads((machine.box / "first.json").read_text())["pid"]
    for kind in ("mnt", "pid", "uts", "ipc", "net"):
        assert Path(f"/proc/{first}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()


def test_the_volume_is_formatted_and_the_blank_disk_beside_it_is_not(machine):
    kinds = machine.run(
        "for disk in /dev/disk/by-id/nvme-*; do echo $(basename $disk) $(blkid -p -o value -s TYPE $disk || echo blank); done"
    )
    file_systems = {name.split("_")[1]: kind for name, kind in (line.split() for line in kinds.splitlines())}
    assert file_systems == {"EC2": "blank", "Elastic": "ext4"}
    assert machine.run("findmnt --noheadings --output FSTYPE /mnt/training") == "ext4"
    assert machine.run("ls /mnt/training/runs/*/manifest.json")


def test_one_comes_in_by_a_pushed_key_and_the_host_key_that_the_first_console_showed(machine, tmp_path):
    instance = machine.client("ec2").describe_instances(InstanceIds=[machine.instance])["Reservations"][0]["Instances"][0]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    pinned = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}[HOST_KEY]
    (tmp_path / "hosts").write_text(f"box {pinned}\n")
    options = ["-F", str(machine.state / "ssh_config"), "-o", f"UserKnownHostsFile={tmp_path}/hosts", "-o", "HostKeyAlias=box"]
    ssh = [
        "ssh",
        *options,
        "-o",
        "BatchMode=yes",
        "-i",
        str(tmp_path / "key"),
        instance["PublicIpAddress"],
        "hostname; id -un; sudo -n id -un",
    ]

    def push() -> None:
        machine.client("ec2-instance-connect").send_ssh_public_key(
            InstanceId=machine.instance, InstanceOSUser="root", SSHPublicKey=(tmp_path / "key.pub").read_text()
        )

    push()
    assert subprocess.run(ssh, capture_output=True).returncode == 255, "its group lets nobody in"
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
    change = {"GroupId": instance["SecurityGroups"][0]["GroupId"], "IpPermissions": [rule]}
    machine.client("ec2").authorize_security_group_ingress(**change)
    assert subprocess.run(ssh, text=True, capture_output=True, check=True).stdout.split() == ["box", "root", "root"]
    machine.client("ec2").revoke_security_group_ingress(**change)


def test_scripts_travel_by_ssh_to_its_own_sshd(machine):
    again = machine.inv("up", "deploy", overrides=("box.ssh=true",))
    assert "(changed: no)" in again.stdout
    accepted = machine.run("grep -c 'Accepted publickey for root' /var/log/sshd.log")
    assert int(accepted) >= 3  # setup, volume, deploy
    machine.inv("up")  # closes the port


def test_it_comes_back_from_a_reboot_with_agent_docker_and_volume(machine):
    before = machine.run("sha256sum /mnt/training/runs/*/manifest.json")
    first = json.loads((machine.box / "first.json").read_text())
    machine.client("ec2").reboot_instances(InstanceIds=[machine.instance])
    machine.until(lambda: not processes.alive(**first) and lifecycle.alive(machine.box))
    again = machine.inv("up", "deploy")
    assert "(changed: no)" in again.stdout  # docker has kept the image
    assert machine.run("sha256sum /mnt/training/runs/*/manifest.json") == before


def test_a_box_that_shuts_itself_down_is_stopped(machine):
    machine.run("touch /var/kept; sync")
    machine.run("shutdown -h now")
    machine.until(lambda: machine.instance_state() == "stopped")
    assert not lifecycle.alive(machine.box)
    assert [back for back in loops.attached().values() if back.startswith(str(machine.state))] == []


def test_it_starts_again_with_all_that_it_had_and_goes_down(machine):
    again = machine.inv("up", "deploy", "down")
    assert "(changed: no)" in again.stdout and machine.instance_state() == "stopped"
    assert (machine.box / "root/var/kept").exists()
    assert not lifecycle.alive(machine.box)
    machine.inv("up", "deploy")
