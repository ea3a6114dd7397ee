"""A command as the agent keeps it on the disk: a process of its own carries it out, and outlives the agent as its script does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pace
from service import KEY

RETRIES = 15  # CommandRetryLimit of the agent's own configuration
OLDEST = 48 * 3600  # seconds
AND_REBOOT = "SuccessAndReboot"  # of a script that asked for a reboot, after which it runs again
NOTHING = {"standardOutput": "", "standardError": ""}
LOST = NOTHING | {"status": "Failed", "code": 1}


class Document:
    def __init__(self, path: Path, root: Path):
        self.path, self.root = path, root
        self.state = json.loads(path.read_text(encoding="utf-8"))
        self.message = self.state["message"]
        self.process: subprocess.Popen | None = None
        self.cancelled = False

    @classmethod
    def create(cls, folder: Path, message: str, content: dict, root: Path) -> "Document":
        path = folder / f"{content['CommandId']}.json"
        write(path, {"message": message, "content": content, "created": time.time(), "resumed": 0, "worker": 0, "rebooted": False})
        return cls(path, root)

    @property
    def result_path(self) -> Path:
        return self.path.with_suffix(".result")

    def move(self, folder: Path) -> None:
        self.path = self.path.rename(folder / self.path.name)

    def resume(self) -> bool:
        """Whether another agent may take it up once more (processor.go); what it may not is never answered."""
        self.state["resumed"] += 1
        write(self.path, self.state)
        return self.state["resumed"] <= RETRIES and time.time() - self.state["created"] < OLDEST

    def finish(self) -> dict:
        """Its result. A script is begun once: what was cut off in the middle, by a reboot or its worker's end, has failed (master.go)."""
        if not self.state["worker"] or self.state["rebooted"]:
            self.start()
        while self.alive():
            self.join()
        if self.result_path.exists():
            return json.loads(self.result_path.read_text(encoding="utf-8"))
        if self.cancelled:
            return NOTHING | {"status": "Cancelled", "code": 137}
        pace.pause(pace.LOST)
        return LOST

    def start(self) -> None:
        self.result_path.unlink(missing_ok=True)
        worker = [sys.executable, "-E", "-s", "-S", str(Path(__file__).parent), "--document", str(self.path)]
        with (self.root / "var/log/amazon-ssm-agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                worker, env=os.environ | {"TWIN_AGENT_KEY": KEY}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.state |= {"worker": self.process.pid, "rebooted": False}
        write(self.path, self.state)

    def join(self) -> None:
        """Until its process has ended, or for a while where that is the child of an agent that is no more."""
        if self.process:
            self.process.wait()
        else:
            time.sleep(0.2)

    def alive(self) -> bool:
        """Whether its process runs: the one with that number, and on this very document."""
        if self.process:
            return self.process.poll() is None
        return bool(self.state["worker"]) and str(self.path) in arguments(self.state["worker"])

    def cancel(self) -> None:
        self.cancelled = True
        if self.alive():
            os.kill(self.state["worker"], signal.SIGUSR1)

    def asks_for_reboot(self) -> None:
        self.state["rebooted"] = True
        write(self.path, self.state)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.result_path.unlink(missing_ok=True)


def arguments(pid: int) -> str:
    """The command line of a living process; nothing of one that has ended."""
    ask = ["ps", "-o", "stat=,args=", "-ww", "-p", str(pid)]
    # In plain C it would print ? for every byte of an ü.
    shown = os.fsdecode(subprocess.run(ask, env=os.environ | {"LC_ALL": "C.UTF-8"}, capture_output=True).stdout)
    return "" if shown.startswith("Z") else shown


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.rename(path)
