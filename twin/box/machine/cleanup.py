"""What worlds leave behind: boxes and loop devices of one that was killed, and in the cache what no next run will use."""

import re
import shutil
import signal
from pathlib import Path

import psutil

from twin.box.machine import debian, loops

INIT = "twin/box/machine/init.sh"
DISK = re.compile(r"(.+)/(?:volumes/vol-\w+|boxes/i-\w+/instance-store)/disk(?: \(deleted\))?")
# How many of a kind are kept in the cache: those that were used last.
CACHED = {"awscli-*": 1, "box-*": 1, "debian-*": 1, "wheels-*": 1, "images/*": 2}


def states() -> set[Path]:
    """The state folders of all worlds, alive or not, that have a box or a disk on this machine."""
    disks = {Path(match[1]) for back in loops.attached().values() if (match := DISK.fullmatch(back))}
    return disks | {box.parents[1] for box in namespace_holders().values()}


def namespace_holders() -> dict[int, Path]:
    """The processes that hold the namespaces of boxes, each with its box's folder."""
    holders = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[:1] == ["unshare"] and (place := [number for number, word in enumerate(words) if word.endswith(INIT)]):
            holders[process.pid] = Path(words[place[0] + 2])
    return holders


def kill(state: Path) -> None:
    """No box of a world runs any more: each dies with the process that holds it."""
    for pid, box in namespace_holders().items():
        if box.parents[1] == state:
            process = psutil.Process(pid)
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def prune(cache: Path) -> None:
    """Of each kind only what was used last, and what a box stands on, is kept."""
    below = mounted()
    for pattern, count in CACHED.items():
        whole = [path for path in cache.glob(pattern) if path.is_dir() and path.suffix == ""]
        for folder in sorted(whole, key=lambda path: path.stat().st_mtime, reverse=True)[count:]:
            with debian.locked(folder):
                if not any(str(folder) in line for line in below):
                    shutil.rmtree(folder)


def mounted() -> set[str]:
    """What stands below any overlay of this machine, in whatever namespace."""
    overlays = set()
    for process in psutil.pids():
        try:
            lines = Path(f"/proc/{process}/mountinfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue  # it has ended meanwhile
        overlays |= {line for line in lines if "lowerdir=" in line}
    return overlays
