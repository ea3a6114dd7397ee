"""Boxes of the machine grade: a root of its own over a small Debian, its own processes, names and mounts, docker, sshd and disks.

Only the network is shared with the machine outside, and nothing in a box listens but on 127.0.0.1.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import psutil

from twin import access, doors, processes
from twin.boxes import Boxes
from twin.machine import debian, ground, life

HERE = Path(__file__).parent
GPU = {"nvidia0": (1, 3)}  # the stand-in for its driver looks for it, and nobody else may find one here
PATIENCE = 30.0  # seconds until a box has booted


class MachineBoxes(Boxes):
    """Boxes whose `root` folder, seen from outside, holds what the box has changed since its image."""

    POWER = "root/dev/power"
    cache: Path

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.outers: dict[str, subprocess.Popen] = {}  # what holds a box's namespaces

    def switch_on(self, instance: str, cold: bool = True) -> None:
        with self.lock:
            box = self.root(instance).parent
            if life.alive(box):
                return
            (box / "root/dev").mkdir(parents=True, exist_ok=True)
            self.note_boot(instance, cold)
            access.host_key(box / "root")
            make_nodes(box / "root/dev")
            self.disks.boot(instance, cold)
            self.boot(box)
            self.set_clock(box / "root")
            self.doors.open(instance, "root", sshd(box, self.inside(instance)))
            self.start_agent_at_boot(instance)
            self.cloud_init(instance)

    def boot(self, box: Path) -> None:
        """The box's first process runs, and has put its root together."""
        lower = ":".join(map(str, [stand_ins(self.state), *debian.box(self.cache)]))
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL"]
        with (box / "boot.log").open("ab") as log:
            outer = self.outers[box.name] = subprocess.Popen(
                [*unshare, str(HERE / "init.sh"), lower, str(box)],
                env={"PATH": ground.SYSTEM_PATH, "TRACE": self.environment.get("TWIN_TRACE", "")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not (first := life.child(outer)) or not Path(f"/proc/{first}/root/run/booted").exists():
            if outer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the box did not boot: {(box / 'boot.log').read_text(errors='replace', encoding='utf-8')[-1000:]}")
            time.sleep(0.02)
        (box / "first.json").write_text(json.dumps({"pid": first, "started": processes.started(first)}), encoding="utf-8")

    def start_agent(self, instance: str) -> dict:
        """As systemd does for an agent that ended; what its predecessor started runs on."""
        self.agents[instance] = self.begin(
            instance, "amazon-ssm-agent.log", "/usr/bin/python3", "-E", "-s", "-S", "/opt/box/agent", instance
        )
        return {"pid": self.agents[instance].pid}

    def begin(self, instance: str, log: str, *words: str, **more: str) -> subprocess.Popen:
        root = self.root(instance)
        with (root / "var/log" / log).open("ab") as file:
            return subprocess.Popen(
                [*life.inside(root.parent), *words],
                env=self.inside(instance) | more,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def inmates(self, instance: str) -> list[psutil.Process]:
        return life.inmates(self.root(instance).parent)

    def inside(self, instance: str) -> dict[str, str]:
        own = {"TMPDIR": "/tmp", "PATH": ground.SYSTEM_PATH, "BOX_ROOT": ""}
        own |= {"BASH_ENV": "/opt/box/trace.sh"} if "BASH_ENV" in self.environment else {}
        own["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = self.metadata_address(instance)
        return self.environment | own

    def shut_down(self, instance: str) -> None:
        with self.lock:
            self.doors.close(instance)
            box = self.root(instance).parent
            self.shutdowns.pop(instance, None)
            self.sleeping.pop(instance, None)
            life.end(box)
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


def sshd(box: Path, environment: dict[str, str]) -> doors.Serve:
    """Serves a connection by the box's own sshd, in the box."""
    own = " ".join(f'"{name}={value}"' for name, value in environment.items())
    words = [*life.inside(box), "/usr/sbin/sshd", "-i", "-f", "/opt/box/sshd_config", "-E", "/var/log/sshd.log", "-o", f"SetEnv={own}"]

    def serve(connection: socket.socket) -> subprocess.Popen:
        return subprocess.Popen(words, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, env={"PATH": ground.SYSTEM_PATH})

    return serve


def stand_ins(state: Path) -> Path:
    """What every box has over its Debian: the agent, its first process, and what stands for hardware."""
    folder = state / "stand-ins"
    if not folder.exists():
        (folder / "opt/box").mkdir(parents=True)
        shutil.copytree(HERE.parent / "agent", folder / "opt/box/agent", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (HERE / "init.sh", HERE / "sshd_config", HERE.parent / "trace.sh"):
            shutil.copy(path, folder / "opt/box")
        shutil.copytree(HERE / "bin", folder / "usr/local/sbin")
        for name in ("reboot", "poweroff", "halt"):
            (folder / "usr/local/sbin" / name).symlink_to("shutdown")
    return folder
