"""Virtual environments that have packages of their own, in versions of their own, before the packages of this one."""

import subprocess
import sys
import sysconfig
from pathlib import Path


class NotInstalled(Exception):
    """Why the packages of an environment cannot be had."""


def make(place: Path, packages: Path, *options: str) -> Path:
    """The Python of the environment in `place`, made once of a list of requirements."""
    python, made = place / "bin/python", place / "made"
    if made.exists() and made.read_text() == packages.read_text():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    (installed,) = place.glob("lib/python*/site-packages")
    (installed / "project.pth").write_text(str(Path(sysconfig.get_path("purelib")).resolve()) + "\n")
    words = ["install", "--quiet", *options, "-r", packages]
    done = subprocess.run([python, "-m", "pip", *words], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.splitlines() or ["pip says nothing"])[-1]
        raise NotInstalled(f"the packages of {packages.parent.name}/{packages.name} cannot be installed: {last}")
    made.write_text(packages.read_text())
    return python


def python_with(place: Path, packages: Path, *options: str) -> Path:
    """The same for a test, which is skipped where the packages cannot be had."""
    from machine import lacking

    try:
        return make(place, packages, *options)
    except NotInstalled as reason:
        lacking(str(reason))
        raise
