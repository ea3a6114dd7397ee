"""Boxes of the machine grade: a root of its own over a small Debian, its own processes, names, mounts, network, docker, sshd and disks."""

import json
import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from twin.aws.ec2 import instance_connect, instances
from twin.box import gpus, processes, ssh
from twin.box.boxes import Boxes
from twin.box.machine import debian, lifecycle, network, prerequisites

HERE = Path(__file__).parent
GPU = {"nvidia0": (1, 3)}  # the stand-in for its driver looks for it, and nobody else may find one here
PATIENCE = 30.0  # seconds until a box has booted
ECS_AGENT = 51679  # of a box's 127.0.0.1: where ECS's agent has the credentials of its tasks


class MachineBoxes(Boxes):
    """Boxes whose `root` folder, seen from outside, holds what the box has changed since its image."""

    POWER = "root/dev/power"
    IS_SYSTEM = True
    cache: Path
    registry: str  # host and port of ECR's data plane, as images are named by them

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.outers: dict[str, subprocess.Popen] = {}  # what holds a box's namespaces
        self.networks: dict[str, network.Network] = {}

    def switch_on(self, instance: str, cold: bool = True) -> None:
        with self.lock:
            box = self.root(instance).parent
            if lifecycle.alive(box):
                return
            (box / "root/dev").mkdir(parents=True, exist_ok=True)
            self.note_boot(instance, cold)
            gpus.install(box / "root", instances.find(self.region, instance).instance_type)
            instance_connect.host_key(box / "root")
            make_nodes(box / "root/dev")
            if instances.has_ecs_agent(self.region, instance):
                (box / "root/etc/ecs").mkdir(parents=True, exist_ok=True)
            self.disks.boot(instance, cold)
            self.boot(box)
            self.set_clock(box / "root")
            self.ssh_server.open(instance, "root", sshd(box, self.box_environment(instance)))
            self.start_agent_at_boot(instance)
            self.cloud_init(instance)

    def boot(self, box: Path) -> None:
        """The box's first process runs, and has put its root together."""
        lower = ":".join(map(str, [stand_ins(self.state), *debian.box_layers(self.cache)]))
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child=SIGKILL"]
        with (box / "boot.log").open("ab") as log:
            outer = self.outers[box.name] = subprocess.Popen(
                [*unshare, str(HERE / "init.sh"), lower, str(box)],
                env={"PATH": prerequisites.SYSTEM_PATH, "TRACE": self.environment.get("TWIN_TRACE", "")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not (first := lifecycle.child(outer)) or not Path(f"/proc/{first}/root/run/booted").exists():
            if outer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the box did not boot: {(box / 'boot.log').read_text(errors='replace', encoding='utf-8')[-1000:]}")
            if first and box.name not in self.networks:
                self.networks[box.name] = self.connect(box.name, first)
            time.sleep(0.02)
        (box / "first.json").write_text(json.dumps({"pid": first, "started": processes.started(first)}), encoding="utf-8")

    def connect(self, instance: str, first: int) -> network.Network:
        aws, hub = (urlsplit(self.environment[name]).port for name in ("AWS_ENDPOINT_URL", "HF_ENDPOINT"))
        here = {port: port for port in (aws, hub, int(self.registry.partition(":")[2]))}
        here |= {ECS_AGENT: aws} if instances.has_ecs_agent(self.region, instance) else {}
        metadata = urlsplit(self.metadata_address(instance)).port
        return network.connect(first, [hub], here, metadata, lambda: instances.hops(self.region, instance))

    def user_scripts(self, instance: str) -> list[bytes]:
        return instances.scripts(instances.user_data(self.region, instance))

    def run_at_boot(self, instance: str, scripts: list[str]) -> None:
        self.spawn(instance, "cloud-init-output.log", "/opt/box/late-boot.sh", *scripts)

    def start_agent(self, instance: str) -> dict:
        """As systemd does for an agent that ended; what its predecessor started runs on."""
        words = ("/usr/bin/python3", "-E", "-s", "-S", "/opt/box/agent", instance)
        self.agents[instance] = self.spawn(instance, "amazon-ssm-agent.log", *words, TWIN_AGENT_KEY=self.agent_key(instance))
        return {"pid": self.agents[instance].pid}

    def spawn(self, instance: str, log: str, *words: str, **more: str) -> subprocess.Popen:
        root = self.root(instance)
        with (root / "var/log" / log).open("ab") as file:
            return subprocess.Popen(
                [*lifecycle.enter_command(root.parent), *words],
                env=self.box_environment(instance) | more,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def processes_of(self, instance: str) -> list[psutil.Process]:
        return lifecycle.processes_of(self.root(instance).parent)

    def box_environment(self, instance: str) -> dict[str, str]:
        own = {"TMPDIR": "/tmp", "PATH": prerequisites.SYSTEM_PATH, "BOX_ROOT": ""}
        own |= {"BASH_ENV": "/opt/box/trace.sh"} if "BASH_ENV" in self.environment else {}
        # From the box and from its containers the Hub is at the gateway; the metadata service is where every client looks for it.
        own["HF_ENDPOINT"] = f"http://{network.GATEWAY}:{urlsplit(self.environment['HF_ENDPOINT']).port}"
        return self.environment | own

    def shut_down(self, instance: str) -> None:
        with self.lock:
            self.ssh_server.close(instance)
            box = self.root(instance).parent
            self.shutdowns.pop(instance, None)
            self.sleeping.pop(instance, None)
            lifecycle.end(box)
            if connected := self.networks.pop(instance, None):
                connected.close()
            self.close_metadata(instance)
            if outer := self.outers.pop(instance, None):
                outer.wait()
            if agent := self.agents.pop(instance, None):
                agent.wait()
            self.disks.unmount_all(instance)
            shutil.rmtree(box / "root/run", ignore_errors=True)


def make_nodes(folder: Path) -> None:
    """What the kernel itself puts into /dev; the disks come apart."""
    numbers = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "kmsg": (1, 11), "tty": (5, 0), **GPU}
    for name, (major, minor) in numbers.items():
        if not (folder / name).exists():
            os.mknod(folder / name, stat.S_IFCHR, os.makedev(major, minor))
            (folder / name).chmod(0o600 if name == "kmsg" else 0o666)
    (folder / "disk/by-id").mkdir(parents=True, exist_ok=True)


def sshd(box: Path, environment: dict[str, str]) -> ssh.Serve:
    """Serves a connection by the box's own sshd, in the box."""
    own = " ".join(f'"{name}={value}"' for name, value in environment.items())
    words = [
        *lifecycle.enter_command(box),
        "/usr/sbin/sshd",
        "-i",
        "-f",
        "/opt/box/sshd_config",
        "-E",
        "/var/log/sshd.log",
        "-o",
        f"SetEnv={own}",
    ]

    def serve(connection: socket.socket) -> subprocess.Popen:
        return subprocess.Popen(
            words, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, env={"PATH": prerequisites.SYSTEM_PATH}
        )

    return serve


def stand_ins(state: Path) -> Path:
    """What every box has over its Debian: the agent, its first process, and what stands for hardware."""
    folder = state / "stand-ins"
    if not folder.exists():
        (folder / "opt/box").mkdir(parents=True)
        shutil.copytree(HERE.parent / "agent", folder / "opt/box/agent", ignore=shutil.ignore_patterns("__pycache__"))
        channel, room = HERE.parents[1] / "channel", folder / "opt/box/twin"  # what agent and service share
        shutil.copytree(channel, room / "channel", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE.parents[1] / "__init__.py", room)
        for path in (HERE / "init.sh", HERE / "late-boot.sh", HERE / "sshd_config", HERE.parent / "trace.sh"):
            shutil.copy(path, folder / "opt/box")
        shutil.copytree(HERE / "bin", folder / "usr/local/sbin")
        for name in ("reboot", "poweroff", "halt"):
            (folder / "usr/local/sbin" / name).symlink_to("shutdown")
    return folder
