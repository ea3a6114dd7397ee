"""Runs a script of remote/scripts here, in the root folder of a box; its lines are traced where `make script-coverage` asks for it."""

import os
import subprocess
from pathlib import Path

from conftest import ROOT

from remote.transport.transport import Result

TRACE = {"BASH_ENV": str(ROOT / "twin/box/trace.sh")} if "TWIN_TRACE" in os.environ else {}


def run(text: str, root: Path, timeout: int = 900, **environment: str) -> Result:
    path = root / "tmp/_script.sh"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return run_file(path, root, timeout, **environment)


def run_file(path: Path, root: Path, timeout: int = 900, **environment: str) -> Result:
    """The root's own `bin` comes first."""
    variables = os.environ | {"BOX_ROOT": str(root), "PATH": f"{root}/bin:{os.environ['PATH']}", "HOME": str(root)} | TRACE | environment
    done = subprocess.run(["bash", str(path)], stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=timeout, env=variables)
    return Result(done.returncode, done.stdout, done.stderr)
