"""The SSM agent of a box: fetches commands over the `ec2messages` protocol, runs them as root would, sends back what came out.

Behaves as amazon-ssm-agent 3.3 was seen to and as its source says: a core that keeps a worker alive, and a process for each document.
Standard library only, so that a box is up in a moment; everything it knows of the world comes from its environment. The box
runs this folder by its path; its modules therefore import each other by plain names.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pace
from command import STREAMS, Command
from document import arguments, write
from output import Output
from service import Service
from worker import Worker


def core(instance: str, root: Path) -> None:
    """Keeps a worker alive. Where only the core is killed, its worker goes on taking commands, until the next core replaces it."""
    note = root / "run/amazon-ssm-agent.pids"
    end(note)
    while True:
        worker = os.fork()
        if not worker:
            Worker(instance, root, Service(os.environ["AWS_DEFAULT_REGION"])).serve()
        note.write_text(f"{os.getpid()} {worker}", encoding="utf-8")
        os.waitpid(worker, 0)
        pace.pause(pace.MONITOR)


def end(note: Path) -> None:
    """An earlier core and its worker, if they are left."""
    itself = str(Path(__file__).parent)
    for process in map(int, note.read_text(encoding="utf-8").split()) if note.exists() else ():
        while itself in arguments(process):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            time.sleep(0.02)


def carry_out(path: Path, root: Path) -> None:
    """A document process's whole life: one document, and its result beside it."""
    state = json.loads(path.read_text(encoding="utf-8"))
    content, instance = state["content"], state["message"].rpartition(".")[2]
    command = Command(content, instance, root)
    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=command.end_early, args=("Cancelled",)).start())
    output = Output(content, command, Service(os.environ["AWS_DEFAULT_REGION"]))
    command.folder.mkdir(parents=True, exist_ok=True)
    for name in STREAMS:
        (command.folder / name).touch()
    follower = threading.Thread(target=output.follow) if content["CloudWatchOutputEnabled"] == "true" else None
    if follower:
        follower.start()
    result = command.run()
    output.ended.set()
    if follower:
        follower.join()
    if content["OutputS3BucketName"]:
        output.upload()
    write(path.with_suffix(".result"), result)


def hold_session(instance: str, root: Path) -> None:
    """A session process's whole life; its content comes on standard input."""
    from session import Session

    session = Session(json.loads(sys.stdin.read()), instance, root, Service(os.environ["AWS_DEFAULT_REGION"]))
    signal.signal(signal.SIGTERM, session.end)
    os._exit(0 if session.run() else 1)


def main() -> None:
    root = Path(os.environ["BOX_ROOT"] or "/")
    if sys.argv[1] == "--document":
        carry_out(Path(sys.argv[2]), root)
        os._exit(0)  # a child that holds the script's output may hold the thread that reads it
    if sys.argv[1] == "--session":
        hold_session(sys.argv[2], root)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # threads wait on pipes; the box's shutdown does not wait for them
    core(sys.argv[1], root)


if __name__ == "__main__":
    main()
