"""The machines and disks behind EC2's answers, in the process grade: folders and processes, no root needed.

A box is an SSM agent in its own root folder with small stand-ins for hardware and daemons first on its PATH.
A volume is a folder; attaching it makes a link in the box's /dev/disk/by-id. Moto answers first, then the hardware follows.
"""

import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from twin import instances, processes, wire

HERE = Path(__file__).parent
STAND_INS = HERE / "bin"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the PATH of the agent's own service
BY_ID = "dev/disk/by-id"
# A script of a box must never meet the real ones of the machine that emulates it.
REFUSED = ("shutdown", "reboot", "poweroff", "halt", "systemctl", "systemd-run", "mkfs", "mkfs.xfs", "losetup")


class Boxes:
    def __init__(self, state: Path, region: str, today: Callable[[], datetime]):
        self.state, self.region = state, region
        self.today = today  # the world's clock
        self.offset = 0.0  # seconds that it is ahead of the machine's own
        self.environment: dict[str, str] = {}  # what every box is told of its world; known once the servers have ports
        self.agents: dict[str, subprocess.Popen] = {}
        self.lock = threading.RLock()
        self.operations: dict[str, wire.Handler] = {
            "ec2.RunInstances": self.run,
            "ec2.StartInstances": self.start,
            "ec2.StopInstances": self.stop,
            "ec2.RebootInstances": self.reboot,
            "ec2.TerminateInstances": self.terminate,
            "ec2.CreateVolume": self.create_volume,
            "ec2.DeleteVolume": self.delete_volume,
            "ec2.AttachVolume": self.attach,
            "ec2.DetachVolume": self.detach,
        }

    # What follows EC2's answers

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            for instance in re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", response.get_data(as_text=True)):
                instances.find(self.region, instance).launch_time = self.today()
                self.switch_on(instance)
        return response

    def start(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            for instance in request.listed("InstanceId"):
                instances.find(self.region, instance).launch_time = self.today()
                self.switch_on(instance)
        return response

    def stop(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        return self.leave(request, forward, "stopping", "stopped")

    def terminate(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        return self.leave(request, forward, "shutting-down", "terminated")

    def leave(self, request: wire.Request, forward: wire.Forward, passing: str, final: str) -> wire.Response:
        """Answers at once, as AWS does: the caller may be a process of the very box that goes down."""
        response = forward(request)
        if response.status_code == 200:
            for instance in request.listed("InstanceId"):
                instances.set_state(self.region, instance, passing)
                threading.Thread(target=self.switch_off, args=(instance, passing, final)).start()
        return response

    def reboot(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            for instance in request.listed("InstanceId"):
                threading.Thread(target=self.restart, args=(instance,)).start()
        return response

    def create_volume(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            self.volume(re.search(r"<volumeId>(vol-[0-9a-f]+)</volumeId>", response.get_data(as_text=True))[1]).mkdir(parents=True)
        return response

    def delete_volume(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            shutil.rmtree(self.volume(request.parameters["VolumeId"]))
        return response

    def attach(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            self.device(request).symlink_to(self.volume(request.parameters["VolumeId"]))
        return response

    def detach(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """A mounted volume stays: AWS shows it as `busy` until it is unmounted."""
        device = self.device(request)
        if str(device) in mounts(self.root(request.parameters["InstanceId"])):
            attachment = instances.volume(self.region, request.parameters["VolumeId"]).attachment
            attachment.status = "busy"
            return wire.Response(BUSY.format(**request.parameters, device=attachment.device), content_type="text/xml")
        response = forward(request)
        if response.status_code == 200:
            device.unlink()
        return response

    # Hardware

    def root(self, instance: str) -> Path:
        return self.state / "boxes" / instance / "root"

    def volume(self, volume: str) -> Path:
        return self.state / "volumes" / volume

    def device(self, request: wire.Request) -> Path:
        """Where udev links a volume: its serial is its id without the dash."""
        serial = request.parameters["VolumeId"].replace("-", "")
        return self.root(request.parameters["InstanceId"]) / BY_ID / f"nvme-Amazon_Elastic_Block_Store_{serial}"

    def switch_on(self, instance: str) -> None:
        with self.lock:
            root = self.root(instance)
            if processes.of(root):
                return
            furnish(root)
            self.set_clock(root)
            self.start_agent(instance)

    def start_agent(self, instance: str) -> None:
        root = self.root(instance)
        own = {"BOX_ROOT": str(root), "TMPDIR": str(root / "tmp"), "PATH": f"{root}/usr/bin:{SYSTEM_PATH}"}
        own["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"{self.environment['AWS_ENDPOINT_URL']}/imds/{instance}"
        with (root / "var/log/amazon-ssm-agent.log").open("ab") as log:
            self.agents[instance] = subprocess.Popen(
                [sys.executable, "-I", "-S", str(HERE / "agent.py"), instance],
                env=self.environment | own,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def move_clocks(self, offset: float) -> None:
        """Every box's `date` goes with the world's clock."""
        self.offset = offset
        for root in self.state.glob("boxes/*/root"):
            self.set_clock(root)

    def living_agents(self) -> list[str]:
        """The instances whose agent runs, and is not held."""
        return [one for one, agent in list(self.agents.items()) if agent.poll() is None and processes.runs(agent.pid)]

    def set_clock(self, root: Path) -> None:
        path = root.parent / "clock"
        temporary = path.with_suffix(".new")
        temporary.write_text(f"{self.offset:.0f}\n")
        temporary.rename(path)

    def shut_down(self, instance: str) -> None:
        with self.lock:
            root = self.root(instance)
            processes.end(root)
            if agent := self.agents.pop(instance, None):
                agent.wait()
            for directory in mounts(root).values():
                directory.unlink()
                directory.mkdir()
            for volatile in ("run", "tmp", "etc/mtab"):
                remove(root / volatile)

    def switch_off(self, instance: str, passing: str, final: str) -> None:
        with self.lock:
            self.shut_down(instance)
            if instances.find(self.region, instance)._state.name != passing:
                return  # stopped first and terminated meanwhile
            if final == "terminated":
                shutil.rmtree(self.root(instance).parent, ignore_errors=True)
            instances.set_state(self.region, instance, final)

    def restart(self, instance: str) -> None:
        self.shut_down(instance)
        self.switch_on(instance)


BUSY = (
    '<DetachVolumeResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><volumeId>{VolumeId}</volumeId>'
    "<instanceId>{InstanceId}</instanceId><device>{device}</device><status>busy</status></DetachVolumeResponse>"
)


def mounts(root: Path) -> dict[str, Path]:
    """Device to directory, as the stand-in `mount` writes them down."""
    table = root / "etc/mtab"
    lines = table.read_text().splitlines() if table.exists() else []
    return {device: Path(directory) for device, directory in (line.split("\t") for line in lines)}


def furnish(root: Path) -> None:
    """The root folder with its tools: launchers with absolute names, because a box knows no virtual environment."""
    for folder in ("dev/disk/by-id", "dev/shm", "etc", "mnt", "root", "run", "tmp", "usr/bin", "var/lib/docker", "var/log"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    python = shlex.quote(sys.executable)
    launchers = {path.stem: f"sh {shlex.quote(str(path))}" for path in STAND_INS.glob("*.sh")}
    launchers |= {name: f"{launchers['refused']} {name}" for name in REFUSED}
    launchers |= {"docker": f"{python} -E -s -S {shlex.quote(str(HERE / 'docker'))}", "aws": f"{python} -I -m awscli"}
    for name, command in launchers.items():
        path = root / "usr/bin" / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
