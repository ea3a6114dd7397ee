"""A small Debian, made by debootstrap once and kept: the root of a box, and the base that an image is built on."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from twin.machine import ground

SUITE = "bookworm"  # its Python is 3.11
MIRROR = "http://deb.debian.org/debian"

# What an AMI for training has, beside a GPU driver.
PACKAGES = [
    *("ca-certificates", "curl", "docker.io", "e2fsprogs", "fdisk", "gawk", "iproute2", "jq", "kmod", "lvm2", "openssh-server", "procps"),
    *("psmisc", "python3", "udev", "util-linux", "xfsprogs", "xz-utils"),
]


def box(cache: Path) -> list[Path]:
    """The folders that lie over one another below a box's root: the AWS command line, and Debian."""
    return [command_line(cache), tree(cache, PACKAGES)]


def tree(cache: Path, packages: list[str]) -> Path:
    """The folder of a Debian with these packages beside the essential ones; a minute the first time."""
    name = hashlib.sha256(" ".join([SUITE, *packages]).encode()).hexdigest()[:12]
    folder = cache / f"debian-{name}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            bootstrap(folder, packages)
    return folder


def bootstrap(folder: Path, packages: list[str]) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(part), MIRROR]
    done = subprocess.run(command, env=os.environ | {"PATH": ground.SYSTEM_PATH}, stdin=subprocess.DEVNULL, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr[-500:]}")
    for downloaded in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(part / downloaded)
        (part / downloaded).mkdir()
    part.rename(folder)


def command_line(cache: Path) -> Path:
    """A folder with the AWS command line for the Python of a box."""
    folder = cache / f"awscli-{version('awscli')}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        wanted = ["--python-version", "3.11", "--only-binary=:all:", "--platform", "manylinux2014_x86_64", "--platform", "any"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--target",
            str(part / "opt/aws"),
            *wanted,
            f"awscli=={version('awscli')}",
        ]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"pip cannot install awscli for a box:\n{done.stderr[-2000:]}")
        os.rename(part, folder)
    return folder
