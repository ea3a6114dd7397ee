"""Whether a box of the machine grade lives, how to get into it, and how it ends."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from twin.box import processes
from twin.box.machine import loops

SHUTDOWN = 10.0  # seconds that a box's processes have to end in


def enter_command(box: Path) -> list[str]:
    """The command that runs another one in a box that is on, with as few rights as its first process has."""
    first = json.loads((box / "first.json").read_text(encoding="utf-8"))["pid"]
    enter = ["nsenter", f"--target={first}", "--mount", "--uts", "--ipc", "--net", "--pid", f"--root=/proc/{first}/root", "--wd=/"]
    return [*enter, "setpriv", "--bounding-set", "-sys_boot", "--inh-caps", "-sys_boot", "--pdeathsig", "KILL", "--"]


def alive(box: Path) -> bool:
    with suppress(FileNotFoundError):
        return processes.alive(**json.loads((box / "first.json").read_text(encoding="utf-8")))
    return False


def child(outer: subprocess.Popen) -> int | None:
    with suppress(psutil.NoSuchProcess):
        return next((one.pid for one in psutil.Process(outer.pid).children()), None)
    return None


def processes_of(box: Path) -> list[psutil.Process]:
    """Every process in the box's namespace of processes."""
    if not alive(box):
        return []
    space = os.readlink(f"/proc/{json.loads((box / 'first.json').read_text(encoding='utf-8'))['pid']}/ns/pid")
    members = []
    for process in psutil.process_iter():
        with suppress(OSError):  # it has ended meanwhile
            members += [process] if os.readlink(f"/proc/{process.pid}/ns/pid") == space else []
    return members


def kill(box: Path) -> None:
    """As when the power goes."""
    if alive(box):
        first = psutil.Process(json.loads((box / "first.json").read_text(encoding="utf-8"))["pid"])
        # A namespace ends when each of its processes has been waited for, which a stopped nsenter outside does not do.
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[:2] == ["nsenter", f"--target={first.pid}"]:
                processes.send([process], signal.SIGKILL)
        first.kill()  # and with it whatever else is in its namespace
        first.wait()


def end(box: Path) -> None:
    """No process of the box is left; its mounts went with them."""
    if alive(box):
        first = psutil.Process(json.loads((box / "first.json").read_text(encoding="utf-8"))["pid"])
        first.send_signal(signal.SIGTERM)
        try:
            first.wait(SHUTDOWN)
        except psutil.TimeoutExpired:
            kill(box)
    (box / "first.json").unlink(missing_ok=True)
    for container in (box / "docker/containers").glob("*"):
        for group in Path("/sys/fs/cgroup").glob(f"**/docker/{container.name}"):
            with suppress(OSError):
                group.rmdir()


def clear(state: Path) -> None:
    """Every box of a world has ended, and no disk of it is attached to this machine any more."""
    for box in (state / "boxes").glob("*"):
        if (box / "first.json").exists():
            end(box)
    loops.detach_all(state)
