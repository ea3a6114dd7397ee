"""The seam between a plan and a box: one method, and nothing above it can tell one transport from another."""

import base64
import gzip
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
        """The `@@ key=value` lines of stdout. Only a line feed ends a line: within a value there may be what Python takes for one."""
        lines = [line.removeprefix(MARK) for line in self.stdout.split("\n") if line.startswith(MARK)]
        return {name: value for name, _, value in (line.partition("=") for line in lines)}


class Transport(Protocol):
    def run(self, script: str, timeout: int, title: str = "") -> Result:
        """Run a bash text on the box as root, for at most `timeout` seconds."""
        ...


def pack(script: str) -> str:
    """`script` as a short bash text. Compressed and encoded: `{{ }}`, quotes, CR LF and non-ASCII survive the document's own syntax.

    The braces close behind the last byte: of a text that was cut on its way bash runs nothing.
    """
    body = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    return f"#!/bin/bash\nset -o pipefail\n{{\nbase64 -d <<'END' | gzip -dc | bash\n{body}\nEND\n}}\n"
