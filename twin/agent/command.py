"""One script on its way through the box: its files, its process group, its end."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

LIMITS = {"stdout": 24_000, "stderr": 8_000}  # characters that go back
CUT = "--output truncated--"


class Command:
    """One script on its way through the box, in a worker process."""

    def __init__(self, content: dict, instance: str, root: Path):
        self.id = content["CommandId"]
        parameters = content["Parameters"]
        self.script = "\n".join(parameters["commands"])
        self.directory = parameters["workingDirectory"] or str(root / "usr/bin")  # the real unit's WorkingDirectory
        timeout = int(parameters["executionTimeout"])
        self.timeout = timeout if 5 <= timeout <= 172_800 else 3600  # the agent resets what it does not accept, silently
        self.folder = root / f"var/lib/amazon/ssm/{instance}/document/orchestration/{self.id}/awsrunShellScript/0.awsrunShellScript"
        self.instance = instance
        self.process: subprocess.Popen | None = None
        self.ended_early: str | None = None  # the status that a timeout or a cancel gives
        self.lock = threading.Lock()

    def run(self) -> dict:
        started = stamp()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "_script.sh"
        path.write_text(self.script, encoding="utf-8")
        path.chmod(0o700)
        for name in LIMITS:
            (self.folder / name).write_bytes(b"")  # of an earlier attempt
        try:
            with self.lock:
                if not self.ended_early:
                    self.process = self.start(path)
        except OSError as error:  # a working directory that does not exist, for one
            failed = {"status": "Failed", "code": 1, "standardOutput": "", "standardError": f"failed to run commands: {error}"}
            return failed | {"startDateTime": started, "endDateTime": stamp()}
        if self.process:
            self.wait()
        return self.result() | {"startDateTime": started, "endDateTime": stamp()}

    def start(self, path: Path) -> subprocess.Popen:
        names = {"SSM_COMMAND_ID": self.id, "AWS_SSM_INSTANCE_ID": self.instance, "AWS_SSM_REGION_NAME": os.environ["AWS_DEFAULT_REGION"]}
        pipe = subprocess.PIPE
        # `sh -c PATH` lets the kernel honour a first line such as #!/bin/bash
        return subprocess.Popen(
            ["sh", "-c", f"'{path}'" if " " in str(path) else str(path)],
            cwd=self.directory,
            env=os.environ | names,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            process_group=0,
        )

    def wait(self) -> None:
        """Until every process that holds the script's output has closed it: a background child holds the command."""
        timer = threading.Timer(self.timeout, self.end_early, ["TimedOut"])
        timer.start()
        pipes = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        readers = [threading.Thread(target=self.keep, args=item, daemon=True) for item in pipes.items()]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self.process.wait()
        timer.cancel()

    def keep(self, name: str, pipe) -> None:
        with (self.folder / name).open("wb", buffering=0) as file:
            while piece := pipe.read1(65_536):
                file.write(piece)

    def end_early(self, status: str) -> None:
        """SIGKILL to the process group, with no SIGTERM before: traps never run, and what `setsid` moved away lives on."""
        with self.lock:
            self.ended_early = status
            if self.process:
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    return  # the group has ended by itself

    def result(self) -> dict:
        if not self.process:
            return {"status": self.ended_early, "code": -1, "standardOutput": "", "standardError": ""}
        code, error = self.process.returncode, self.output("stderr")
        if self.ended_early:
            status, code = self.ended_early, {"TimedOut": 137, "Cancelled": -1}[self.ended_early]
        else:
            status = "Failed" if code else "Success"
            if code:
                error += "failed to run commands: " + (f"exit status {code}" if code > 0 else f"signal: {signal.Signals(-code).name}")
            code = code if code >= 0 else 128 - code
        return {
            "status": status,
            "code": code,
            "standardOutput": shortened("stdout", self.output("stdout")),
            "standardError": shortened("stderr", error),
        }

    def output(self, name: str) -> str:
        with (self.folder / name).open("rb") as file:
            return file.read(4 * LIMITS[name]).decode(errors="replace")


def shortened(name: str, text: str) -> str:
    limit = LIMITS[name]
    return text if len(text) < limit else text[: limit - len(CUT)] + CUT


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
