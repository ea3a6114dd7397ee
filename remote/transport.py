"""The seam between a plan and a box: one method, and nothing above it can tell one transport from another."""

import base64
import gzip
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


def packed(script: str) -> str:
    """`script` as a short bash text. Compressed and encoded: `{{ }}`, quotes, CR LF and non-ASCII survive the document's own syntax.

    The braces close behind the last byte: of a text that was cut on its way bash runs nothing.
    """
    body = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    return f"#!/bin/bash\nset -o pipefail\n{{\nbase64 -d <<'END' | gzip -dc | bash\n{body}\nEND\n}}\n"


class Local:
    """Runs scripts on this machine, in a box's root folder: what the tests of the scripts use."""

    def __init__(self, environment: dict[str, str]):
        self.environment = environment

    def run(self, script: str, timeout: int, title: str = "") -> Result:
        done = subprocess.run(["bash"], input=script, text=True, capture_output=True, timeout=timeout, env=self.environment)
        return Result(done.returncode, done.stdout, done.stderr)
