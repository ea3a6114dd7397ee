"""A program of the trainer on this machine, where no box answers. What it says is shown as what a box says is."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from conf.problem import Problem
from conf.process.screen import screen

ON_THE_BOX = "`inv up deploy` starts the box"  # which does it, too


def run(what: str, words: list[str], root: Path, given: bytes = b"", out: IO[bytes] | None = None, instead: str = ON_THE_BOX) -> None:
    """The program has done its work; what it prints is in `out`, or is shown where there is none. A Problem where it failed,
    with what to do `instead`."""
    with tempfile.TemporaryFile() as questions:
        questions.write(given)
        questions.seek(0)
        streams = {"stdout": out, "stderr": subprocess.PIPE} if out else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", *words]
        with subprocess.Popen(command, stdin=questions, cwd=root, encoding="utf-8", errors="surrogateescape", **streams) as process:
            try:
                for line in process.stderr or process.stdout or ():
                    screen.relay(line.rstrip("\n"))
            except BaseException:  # a signal may have reached this process alone
                process.terminate()
                raise
    if process.returncode:
        raise Problem(f"the trainer could not {what} here", f"its own words are above; {instead}", "crashed")
