"""The seam between a plan and a box: one method, and nothing above it can tell one transport from another."""

import subprocess
from dataclasses import dataclass
from typing import Protocol

MARK = "@@ "


@dataclass(frozen=True)
class Result:
    """What a script left: its exit code and all that it wrote."""

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """The `@@ key=value` lines of stdout."""
        lines = [line.removeprefix(MARK) for line in self.stdout.splitlines() if line.startswith(MARK)]
        return dict(line.split("=", 1) for line in lines)


class Transport(Protocol):
    def run(self, script: str, timeout: int, title: str = "") -> Result:
        """Run a bash text on the box as root, for at most `timeout` seconds."""
        ...


class Local:
    """Runs scripts on this machine, in a box's root folder: what the tests of the scripts use."""

    def __init__(self, environment: dict[str, str]):
        self.environment = environment

    def run(self, script: str, timeout: int, title: str = "") -> Result:
        done = subprocess.run(["bash"], input=script, text=True, capture_output=True, timeout=timeout, env=self.environment)
        return Result(done.returncode, done.stdout, done.stderr)
