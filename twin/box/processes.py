"""Which processes run in a box, and how to end them: a process belongs to the box whose root its environment names."""

import os
import signal
import time
from pathlib import Path

import psutil


def of(root: Path) -> list[psutil.Process]:
    """Every live process of the box, however it was started; a process that `setsid` moved away still counts."""
    matching = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("BOX_ROOT") == str(root):
                matching.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, is a zombie, or belongs to somebody else
    return matching


def called(root: Path, word: str) -> list[psutil.Process]:
    """The processes of the box with that word in their command line."""
    return [process for process in of(root) if word in " ".join(words(process))]


def words(process: psutil.Process) -> list[str]:
    """The command line; none when the process has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def end(root: Path, patience: float = 2.0) -> None:
    """No process of the box is left: SIGTERM as at a shutdown, then SIGKILL."""
    deadline = time.monotonic() + patience
    send(of(root), signal.SIGTERM)
    while of(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(root)


def kill(root: Path) -> None:
    """As when the power goes: no process of the box is left, and none has heard of it."""
    while left := of(root):
        send(left, signal.SIGKILL)
        time.sleep(0.02)


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # psutil refuses when the pid was reused
        except psutil.NoSuchProcess:
            continue


def alive(pid: int, started: float) -> bool:
    """Whether that very process still runs; a later one that got the same pid started at another time."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def started(pid: int) -> float | None:
    """When a process started, or None when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def runs(pid: int) -> bool:
    """Whether the process is there and nobody holds it with SIGSTOP."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
