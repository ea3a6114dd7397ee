"""A command as the agent keeps it on the disk: a worker process runs it, and outlives the agent as its script does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RETRIES = 15  # CommandRetryLimit of the agent's own configuration
REBOOT = 194  # the exit code that asks for a reboot, after which the script runs again
NOTHING = {"standardOutput": "", "standardError": ""}


class Document:
    """A command as the agent keeps it on the disk, so that neither its own end nor the box's loses it."""

    def __init__(self, path: Path, root: Path):
        self.path, self.root = path, root
        self.state = json.loads(path.read_text(encoding="utf-8"))
        self.message = self.state["message"]
        self.result_path = path.with_suffix(".result")
        self.process: subprocess.Popen | None = None
        self.cancelled = False

    @classmethod
    def kept(cls, folder: Path, message: str, content: dict, root: Path) -> "Document":
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{content['CommandId']}.json"
        write(path, {"message": message, "content": content, "attempts": 0, "worker": 0})
        return cls(path, root)

    def finish(self) -> dict:
        """The result of its worker, which is started unless one has ended or still runs."""
        while not self.result_path.exists():
            if self.alive():
                self.join()
            elif self.cancelled:
                return NOTHING | {"status": "Cancelled", "code": -1}
            elif self.state["attempts"] >= RETRIES:
                return NOTHING | {"status": "Failed", "code": 1, "standardError": f"failed to run commands: {RETRIES} attempts"}
            else:
                self.start()
        result = json.loads(self.result_path.read_text(encoding="utf-8"))
        if wants_reboot(result):
            self.result_path.unlink()
        return result

    def start(self) -> None:
        self.state["attempts"] += 1
        worker = [sys.executable, "-E", "-s", "-S", str(Path(__file__).parent), "--worker", str(self.path)]
        with (self.root / "var/log/amazon-ssm-agent.log").open("ab") as log:
            self.process = subprocess.Popen(worker, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.state["worker"] = self.process.pid
        write(self.path, self.state)

    def join(self) -> None:
        """Until the worker has ended, or for a while where it is the child of an agent that is no more."""
        if self.process:
            self.process.wait()
        else:
            time.sleep(0.2)

    def alive(self) -> bool:
        """Whether its worker runs: the process with that number, and on this very document."""
        if self.process:
            return self.process.poll() is None
        if not self.state["worker"]:
            return False
        ask = ["ps", "-o", "stat=,args=", "-ww", "-p", str(self.state["worker"])]
        shown = subprocess.run(ask, env=os.environ | {"LC_ALL": "C.UTF-8"}, capture_output=True).stdout  # in plain C it prints ? for ü
        return os.fsencode(self.path) in shown and not shown.startswith(b"Z")

    def cancel(self) -> None:
        self.cancelled = True
        if self.alive():
            os.kill(self.state["worker"], signal.SIGUSR1)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.result_path.unlink(missing_ok=True)


def wants_reboot(result: dict) -> bool:
    return result["status"] == "Failed" and result["code"] == REBOOT


def write(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.rename(path)
