"""One script on its way through the box: its files, its process group, its end."""

import os
import shlex
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pace
from document import AND_REBOOT
from worker import PLATFORM

STREAMS = ("stdout", "stderr")
LIMIT = 24_000  # bytes of each that the agent sends back
CUT = b"--output truncated--"
STOPPED, REBOOT, ENOUGH = 137, 194, 168  # exit codes that say more than that it failed
SIGNALS = {signal.SIGKILL: "killed", signal.SIGTERM: "terminated", signal.SIGSEGV: "segmentation fault", signal.SIGABRT: "aborted"}


class Command:
    """One script on its way through the box, in a process that knows no other."""

    def __init__(self, content: dict, instance: str, root: Path):
        self.id = content["CommandId"]
        parameters = content["Parameters"]
        self.script = "\n".join(parameters["commands"])
        # A relative one is looked for below what a document has downloaded, and AWS-RunShellScript downloads nothing (runscript.go).
        wanted = parameters["workingDirectory"]
        self.directory = wanted if os.path.isabs(wanted) else str(root / "usr/bin")  # the real unit's WorkingDirectory
        timeout = int(parameters["executionTimeout"])
        self.timeout = timeout if 5 <= timeout <= 172_800 else 3600  # the agent resets what it does not accept, silently
        self.folder = root / f"var/lib/amazon/ssm/{instance}/document/orchestration/{self.id}/awsrunShellScript/0.awsrunShellScript"
        self.instance = instance
        self.process: subprocess.Popen | None = None
        self.ended_early: str | None = None  # the status that a timeout or a cancel gives
        self.over = threading.Event()
        self.lock = threading.Lock()

    def run(self) -> dict:
        started = stamp()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "_script.sh"
        path.write_text(self.script, encoding="utf-8")
        path.chmod(0o700)
        code, problem = self.ended(path)
        status = self.status(code)
        if problem and status not in ("Cancelled", "TimedOut", AND_REBOOT):
            status = "Success" if code == ENOUGH else "Failed"
            with (self.folder / "stderr").open("ab") as file:
                file.write(f"failed to run commands: {problem}".encode())
        output = {"standardOutput": self.output("stdout"), "standardError": self.output("stderr")}
        return {"status": status, "code": code} | output | {"startDateTime": started, "endDateTime": stamp()}

    def ended(self, path: Path) -> tuple[int, str]:
        """The exit code, and what Go would call the error; an end by a signal has the code -1 (executers.go)."""
        try:
            with self.lock:
                if not self.ended_early:
                    self.process = self.start(path)
        except OSError as error:  # a working directory that does not exist, for one
            return 1, f"chdir {self.directory}: {error.strerror.lower()}"
        if self.process:
            self.wait()
        if self.ended_early:
            return STOPPED, ""
        code = self.process.returncode
        if code < 0:
            return -1, f"signal: {SIGNALS.get(signal.Signals(-code), signal.strsignal(-code).lower())}"
        return code, f"exit status {code}" if code else ""

    def status(self, code: int) -> str:
        """The agent goes by the code alone: a script that ends with 137 by itself has timed out for it (pluginutil_unix.go)."""
        if code == STOPPED:
            return self.ended_early or "TimedOut"
        return {0: "Success", REBOOT: AND_REBOOT}.get(code, "Failed")

    def start(self, path: Path) -> subprocess.Popen:
        names = {"SSM_COMMAND_ID": self.id, "AWS_SSM_INSTANCE_ID": self.instance, "AWS_SSM_REGION_NAME": os.environ["AWS_DEFAULT_REGION"]}
        names |= {"AWS_SSM_PLATFORM_NAME": PLATFORM[0], "AWS_SSM_PLATFORM_VERSION": PLATFORM[1]}
        pipe = subprocess.PIPE
        # `sh -c PATH` lets the kernel honour a first line such as #!/bin/bash
        return subprocess.Popen(
            ["sh", "-c", shlex.quote(str(path))],
            cwd=self.directory,
            env=os.environ | names,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            process_group=0,
        )

    def wait(self) -> None:
        """Until every process that holds the script's output has closed it, as a background child does late; or it is ended."""
        threading.Thread(target=self.follow, daemon=True).start()
        if not self.over.wait(self.timeout):
            self.end_early("TimedOut")

    def follow(self) -> None:
        pipes = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        readers = [threading.Thread(target=self.save_stream, args=item, daemon=True) for item in pipes.items()]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self.process.wait()
        self.over.set()

    def save_stream(self, name: str, pipe) -> None:
        with (self.folder / name).open("ab", buffering=0) as file:  # behind the output of an attempt before a reboot
            while (piece := pipe.read1(65_536)) and not self.ended_early:
                file.write(piece)
                pace.pause(len(piece) / pace.OUTPUT)

    def end_early(self, status: str) -> None:
        """SIGKILL to the process group, with no SIGTERM before: traps never run, and what `setsid` moved away lives on, not waited for."""
        with self.lock:
            if self.over.is_set():
                return
            self.ended_early = status
            if self.process:
                with suppress(ProcessLookupError):  # the group has ended by itself, but for what moved away
                    os.killpg(self.process.pid, signal.SIGKILL)
            self.over.set()

    def output(self, name: str) -> str:
        """What goes back of a stream: bytes are counted, and the last one that is left may be in the middle of a character."""
        with (self.folder / name).open("rb") as file:
            content = file.read(LIMIT)
        return (content if len(content) < LIMIT else content[: LIMIT - len(CUT)] + CUT).decode(errors="replace")


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
