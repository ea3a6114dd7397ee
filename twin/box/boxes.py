"""The machines behind EC2's answers, in the process grade: folders and processes, no root needed.

A box is an SSM agent in its own root folder with small stand-ins for hardware and daemons first on its PATH.
Moto answers first, then the hardware follows.
"""

import base64
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil

from twin.aws import wire
from twin.aws.ec2 import instance_connect, instances
from twin.box import gpus, processes, ssh
from twin.box.disks import Disks
from twin.box.real_agent import RealAgent

HERE = Path(__file__).parent
STAND_INS = HERE / "bin"
AGENT = (sys.executable, "-E", "-s", "-S", str(HERE / "agent"))
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the PATH of the agent's own service
# A script of a box must never meet the real ones of the machine that emulates it.
AWS = "run/aws"  # where a box's own AWS CLI waits for calls
USER_DATA = "var/lib/cloud/instance/scripts"  # where cloud-init keeps and runs scripts that came as user data
GMT = "%Y-%m-%d %H:%M:%S GMT"
REFUSED_FOR = 26 * 60  # seconds until an agent that AWS has refused asks again: 25m42s in a log of aws-cloud9-bootstrapping-example#7
PER_BOOT = "var/lib/cloud/scripts/per-boot"  # and scripts that it runs at each boot
AGENT_PROGRAMS = ("amazon-ssm-agent", "ssm-agent-worker")
REFUSED = ("systemd-run", "mkfs", "mkfs.xfs", "losetup")


class Boxes:
    POWER = "power"  # beside a box's root: what it asked of its own power
    IS_SYSTEM = False  # whether a box has files and a network of its own

    def __init__(self, state: Path, region: str, disks: Disks, today: Callable[[], datetime]):
        self.state, self.region = state, region
        self.disks = disks
        self.today = today  # the world's clock
        self.ssh_server = ssh.SshServer(state, region)
        self.console_from = 0.0  # when consoles show something again
        self.without_agent = 0  # of the next boxes to start
        self.refused = 0  # agents of the next boxes, at their first try
        self.sleeping: dict[str, object] = {}  # boxes whose agent was, until it asks again
        self.systemd = False  # whether boxes that start have it
        self.cold: list[float] = []  # seconds that docker and the driver need on the next new boxes, for their first use
        self.pending = 0.0  # seconds until a box that starts is shown as running
        self.skews: dict[str, float] = {}  # seconds that a box's own clock is wrong
        self.offset = 0.0  # seconds that it is ahead of the machine's own
        self.environment: dict[str, str] = {}  # of every box; known once the servers have ports
        self.agents: dict[str, subprocess.Popen] = {}
        self.real_agent = RealAgent.named(state)  # in the place of the one of this folder
        self.metadata_address: Callable[[str], str] = lambda instance: ""  # where a box finds out who it is, and acts by its role
        self.close_metadata: Callable[[str], None] = lambda instance: None
        self.agent_key: Callable[[str], str] = lambda instance: ""  # by which the agent of a box signs
        self.power_off: Callable[[str], None] = lambda instance: None  # what EC2 makes of a box that shut itself down
        self.later: Callable[[float, Callable[[], None]], None] = lambda seconds, action: None  # on the world's clock
        self.state_changed: Callable[[str, str], None] = lambda instance, state: None  # what EventBridge hears of
        self.shutdowns: dict[str, object] = {}  # the one that each box has planned
        self.lock = threading.RLock()
        threading.Thread(target=self.watch, daemon=True).start()
        self.operations: dict[str, wire.Handler] = {
            "ec2.RunInstances": self.run,
            "ec2.StartInstances": self.start,
            "ec2.StopInstances": self.stop,
            "ec2.RebootInstances": self.reboot,
            "ec2.TerminateInstances": self.terminate,
        }

    # What follows EC2's answers

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if request.by != wire.BATCH:  # whose user data is for the ECS agent
            check_user_data(request.parameters.get("UserData", ""))
        response = forward(request)
        for instance in instances.named(response):
            self.begin_life(instance)
        return response

    def start(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            for instance in request.listed("InstanceId"):
                self.begin_life(instance)
        return response

    def stop(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        return self.power_down(request, forward, "stopping", "stopped")

    def terminate(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        return self.power_down(request, forward, "shutting-down", "terminated")

    def power_down(self, request: wire.Request, forward: wire.Forward, passing: str, final: str) -> wire.Response:
        """Answers at once, as AWS does: the caller may be a process of the very box that goes down."""
        response = forward(request)
        if response.status_code == 200:
            for instance in request.listed("InstanceId"):
                self.become(instance, passing)
                instances.find(self.region, instance)._reason = "" if request.by == "SHUTDOWN" else f"User initiated ({self.today():{GMT}})"
                threading.Thread(target=self.switch_off, args=(instance, passing, final)).start()
        return response

    def reboot(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            for instance in request.listed("InstanceId"):
                threading.Thread(target=self.restart, args=(instance,)).start()
        return response

    # Hardware

    def root(self, instance: str) -> Path:
        return self.state / "boxes" / instance / "root"

    def begin_life(self, instance: str) -> None:
        instances.find(self.region, instance).launch_time = self.today()
        self.become(instance, "pending")
        if self.pending:
            threading.Timer(self.pending, self.become, (instance, "running")).start()
        else:
            self.become(instance, "running")
        self.switch_on(instance)

    def become(self, instance: str, state: str) -> None:
        instances.set_state(self.region, instance, state)
        self.state_changed(instance, state)

    def switch_on(self, instance: str, cold: bool = True) -> None:
        with self.lock:
            root = self.root(instance)
            if processes.of(root):
                return
            install_tools(root)
            gpus.install(root, instances.find(self.region, instance).instance_type)
            self.note_boot(instance, cold)
            self.warm_up(instance)
            instance_connect.host_key(root)
            self.disks.boot(instance, cold)
            self.skews.pop(instance, None)  # a boot asks the time server
            self.set_clock(root)
            self.ssh_server.open(instance, ssh.current_user(), ssh.sshd(root, self.box_environment(instance)))
            self.start_agent_at_boot(instance)
            self.load_aws(instance)
            self.start_services(instance)
            self.cloud_init(instance)

    def load_aws(self, instance: str) -> None:
        """From now on, or in a second, the AWS CLI of the box only has to be forked."""
        place = self.root(instance) / AWS
        if kept := os.environ.get("TWIN_AWS"):  # where somebody who needs many boxes keeps it loaded
            place.unlink(missing_ok=True)
            place.symlink_to(kept)
        else:
            self.spawn(instance, "aws.log", sys.executable, "-I", str(HERE / "aws.py"), "--serve", str(place))

    def warm_up(self, instance: str) -> None:
        """On a new instance's disk nothing has been read yet."""
        if self.cold and self.boots(instance) == 1:
            folder = self.root(instance).parent / "faults"
            folder.mkdir(exist_ok=True)
            (folder / "disk-cold").write_text(f"{time.time() + self.cold.pop(0):.0f}\n", encoding="utf-8")

    def start_services(self, instance: str) -> None:
        """What systemd starts at each boot: docker is up by itself here, our own units are those that are enabled."""
        root = self.root(instance)
        for folder in ("run/systemd/system", "etc/systemd/system") if self.systemd else ():
            (root / folder).mkdir(parents=True, exist_ok=True)
        for path in root.glob("etc/systemd/system/multi-user.target.wants/*.service") if self.systemd else []:
            self.spawn(instance, "systemd.log", str(root / "usr/bin/systemctl"), "start", path.name)

    def cloud_init(self, instance: str) -> None:
        """The scripts of each boot, then those of user data, once in its life. All beside whatever else the box does by then."""
        root, due = self.root(instance), []
        if not (root / USER_DATA).exists():
            (root / USER_DATA).mkdir(parents=True)
            for number, script in enumerate(self.user_scripts(instance), 1):
                path = root / USER_DATA / f"part-{number:03}"
                path.write_bytes(script)
                path.chmod(0o700)
                due.append(path)
        every = [*sorted(root.glob(f"{PER_BOOT}/*")), *due]
        self.run_at_boot(instance, [f"{self.box_environment(instance)['BOX_ROOT']}/{path.relative_to(root)}" for path in every])

    def user_scripts(self, instance: str) -> list[bytes]:
        """A script; those of a MIME archive are written for another system's root folder, and not run."""
        content = instances.user_data(self.region, instance)
        return [content] if content.startswith(b"#!") else []

    def run_at_boot(self, instance: str, scripts: list[str]) -> None:
        for script in scripts:
            self.spawn(instance, "cloud-init-output.log", script)

    def start_agent_at_boot(self, instance: str) -> None:
        """An agent that was refused asks again after half an hour, or when it is started anew."""
        self.sleeping.pop(instance, None)
        if self.without_agent:
            self.without_agent -= 1
        elif self.refused:
            self.refused -= 1
            asleep = self.sleeping[instance] = object()
            self.later(REFUSED_FOR, lambda: self.start_agent(instance) if self.sleeping.pop(instance, None) is asleep else None)
        else:
            self.start_agent(instance)

    def start_agent(self, instance: str) -> dict:
        """As systemd does for an agent that ended; what its predecessor started runs on."""
        root, own = self.root(instance), [*AGENT, instance]
        words = self.real_agent.words(root, self.box_environment(instance)) if self.real_agent else own
        key = {} if self.real_agent else {"TWIN_AGENT_KEY": self.agent_key(instance)}
        self.agents[instance] = self.spawn(instance, "amazon-ssm-agent.log", *words, **key)
        return {"pid": self.agents[instance].pid}

    def spawn(self, instance: str, log: str, *words: str, **more: str) -> subprocess.Popen:
        """A program that runs as a process of the box, with `more` in its environment."""
        root = self.root(instance)
        with (root / "var/log" / log).open("ab") as file:
            return subprocess.Popen(
                words,
                env=self.box_environment(instance) | more,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def box_environment(self, instance: str) -> dict[str, str]:
        """The environment of whatever runs in the box; HOME is not in it, as in that of a service."""
        root = self.root(instance)
        own = {"BOX_ROOT": str(root), "TMPDIR": str(root / "tmp"), "PATH": f"{root}/usr/bin:{SYSTEM_PATH}"}
        own["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = self.metadata_address(instance)
        return self.environment | own

    def boots(self, instance: str) -> int:
        """How often the box has been switched on."""
        path = self.root(instance).parent / "boots"
        return int(path.read_text(encoding="utf-8")) if path.exists() else 0

    def note_boot(self, instance: str, cold: bool) -> None:
        """A reboot counts as the same: the console goes on."""
        if cold:
            (self.root(instance).parent / "boots").write_text(str(self.boots(instance) + 1), encoding="utf-8")

    def move_clocks(self, offset: float) -> None:
        """Every box's `date` goes with the world's clock."""
        self.offset = offset
        for root in self.state.glob("boxes/*/root"):
            self.set_clock(root)

    def living_agents(self) -> list[str]:
        """The instances whose agent runs, and is not held."""
        return [one for one, agent in list(self.agents.items()) if agent.poll() is None and processes.runs(agent.pid)]

    def agent_processes(self, instance: str) -> list[psutil.Process]:
        """The agent's core and its worker, not what they have begun."""
        return [one for one in self.processes_of(instance) if is_agent(one)]

    def processes_of(self, instance: str) -> list[psutil.Process]:
        """Every process of the box."""
        return processes.of(self.root(instance))

    def set_clock(self, root: Path) -> None:
        path = root.parent / "clock"
        temporary = path.with_suffix(".new")
        temporary.write_text(f"{self.offset + self.skews.get(root.parent.name, 0):.0f}\n", encoding="utf-8")
        temporary.rename(path)

    def shut_down(self, instance: str) -> None:
        with self.lock:
            root = self.root(instance)
            self.shutdowns.pop(instance, None)
            self.sleeping.pop(instance, None)
            self.ssh_server.close(instance)
            processes.end(root)
            self.close_metadata(instance)
            remove(root.parent / "faults")  # the box's own faults end with its power
            if agent := self.agents.pop(instance, None):
                agent.wait()
            self.disks.unmount_all(instance)
            for volatile in ("run", "tmp", "etc/mtab"):
                remove(root / volatile)

    def switch_off(self, instance: str, passing: str, final: str) -> None:
        with self.lock:
            self.shut_down(instance)
            if instances.find(self.region, instance)._state.name != passing:
                return  # stopped first and terminated meanwhile
            self.become(instance, final)
        if final == "terminated":  # gigabytes on the machine grade: nobody waits for that
            shutil.rmtree(self.root(instance).parent, ignore_errors=True)

    def watch(self) -> None:
        """Does what a box asked of its own power: `shutdown` and its like leave a word beside its root."""
        while True:
            for path in self.state.glob(f"boxes/*/{self.POWER}"):
                instance, (word, *minutes) = path.relative_to(self.state / "boxes").parts[0], path.read_text(encoding="utf-8").split()
                path.unlink()
                self.shutdowns.pop(instance, None)  # a new word takes the place of the one before
                if word == "reboot":
                    self.restart(instance)
                elif word == "off" and minutes:
                    self.plan_shutdown(instance, int(minutes[0]) * 60)
                elif word == "off":
                    self.power_off(instance)
            time.sleep(0.1)

    def plan_shutdown(self, instance: str, seconds: float) -> None:
        planned = self.shutdowns[instance] = object()
        self.later(seconds, lambda: self.power_off(instance) if self.shutdowns.get(instance) is planned else None)

    def restart(self, instance: str) -> None:
        self.shut_down(instance)
        self.switch_on(instance, cold=False)


def is_agent(process: psutil.Process) -> bool:
    """Whether it is the core or the worker of an agent: of the one of this folder, or of amazon-ssm-agent."""
    words = processes.words(process)
    return bool(words) and (Path(words[0]).name in AGENT_PROGRAMS or (words[-2].endswith("/agent") if len(words) > 1 else False))


def check_user_data(encoded: str) -> None:
    """Nothing, or a refusal of what a real box may well make something of, and these do not."""
    if encoded and not base64.b64decode(encoded).startswith(b"#!"):
        raise wire.Refusal("InvalidParameterValue", "this emulation knows user data that is a script and begins with #!")


def install_tools(root: Path) -> None:
    """The root folder with its tools: launchers with absolute names, because a box knows no virtual environment."""
    for folder in ("dev/disk/by-id", "dev/shm", "etc", "mnt", "root", "run", "tmp", "usr/bin", "var/lib/docker", "var/log"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    gpu = root / "dev/nvidia0"
    if not gpu.is_symlink():
        gpu.symlink_to("/dev/null")  # only its being there is of use
    python = shlex.quote(sys.executable)
    launchers = {path.stem: f"sh {shlex.quote(str(path))}" for path in STAND_INS.glob("*.sh")}
    launchers |= {name: f"{launchers['refused']} {name}" for name in REFUSED}
    launchers |= {name: f"{launchers['shutdown']} --as {name}" for name in ("reboot", "poweroff", "halt")}
    launchers["docker"] = f"{python} -E -s -S {shlex.quote(str(HERE / 'docker'))}"
    launchers["aws"] = f"{python} -I -S {shlex.quote(str(HERE / 'aws.py'))} {shlex.quote(str(root / AWS))}"
    for name, command in launchers.items():
        path = root / "usr/bin" / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        path.chmod(0o755)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
