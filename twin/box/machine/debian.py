"""A small Debian, made once and kept: the base that an image is built on, and with a layer over it the root of a box."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from twin.box.machine import prerequisites

SUITE = "bookworm"  # its Python is 3.11
MIRROR = "http://deb.debian.org/debian"

# Python because image and box both want it: it is unpacked once.
BASE = ["ca-certificates", "python3"]
# What the scripts use of an AMI for training, beside a GPU driver and the AWS command line.
PACKAGES = ["curl", "docker.io", "e2fsprogs", "kmod", "openssh-server", "procps", "psmisc", "udev", "util-linux", "xfsprogs"]

# In a mount namespace of its own, so that nothing stays mounted: the base below, what is installed above it.
INSTALL = """
mount -t overlay box -o "lowerdir=$BASE,upperdir=$PART/layer,workdir=$PART/work" "$PART/root"
mount -t proc proc "$PART/root/proc"
mount --rbind /dev "$PART/root/dev"
cp /etc/resolv.conf "$PART/root/etc/resolv.conf"
printf '#!/bin/sh\\nexit 101\\n' >"$PART/root/usr/sbin/policy-rc.d"
chmod 755 "$PART/root/usr/sbin/policy-rc.d"
tries=0
until chroot "$PART/root" apt-get -qq -o Acquire::Retries=3 update; do
  tries=$((tries + 1)); [ "$tries" -lt 4 ]; sleep 5 # a mirror answers 404 while it is renewed, which apt takes for final
done
chroot "$PART/root" apt-get -qq -o Acquire::Retries=3 install --no-install-recommends -o Dpkg::Options::=--force-unsafe-io $PACKAGES
rm "$PART/root/usr/sbin/policy-rc.d"
rm -rf "$PART/root"/var/cache/apt/* "$PART/root"/var/lib/apt/lists/*
"""


def box_layers(cache: Path) -> list[Path]:
    """The folders that lie over one another below a box's root: the AWS command line, what a box has, and the base."""
    return [command_line(cache), layer(cache), base(cache)]


def base(cache: Path) -> Path:
    """The folder of a Debian with Python beside the essential packages; half a minute the first time."""
    return made_once(cache / f"debian-{name_of(BASE)}", bootstrap)


def layer(cache: Path) -> Path:
    """The folder of what a box has more than the base."""
    below = base(cache)
    return made_once(cache / f"box-{name_of([*BASE, '+', *PACKAGES])}", lambda part: install(below, part))


def name_of(packages: list[str]) -> str:
    return hashlib.sha256(" ".join([SUITE, *packages]).encode()).hexdigest()[:12]


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made by the first caller; it is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(folder)
        os.utime(folder)  # `tidy.prune` keeps what was used last
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time does something about a folder."""
    with folder.with_name(f"{folder.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bootstrap(part: Path) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", SUITE, str(part), MIRROR]
    run(command, "debootstrap failed")
    for downloaded in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(part / downloaded)
        (part / downloaded).mkdir()


def install(below: Path, part: Path) -> None:
    work = part.with_name(f"{part.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("layer", "work", "root"):
        (work / folder).mkdir(parents=True)
    variables = {"BASE": str(below), "PART": str(work), "PACKAGES": " ".join(PACKAGES), "DEBIAN_FRONTEND": "noninteractive"}
    run(["unshare", "--mount", "bash", "-euc", INSTALL], "apt-get in a new box failed", **variables)
    (work / "layer").rename(part)
    shutil.rmtree(work)


class InstallError(RuntimeError):
    """A Debian could not be made."""

    hint = "check the network and the room on the disk, then the same command again: what was finished is kept"


def run(command: list[str], failed: str, **more: str) -> None:
    environment = os.environ | {"PATH": prerequisites.SYSTEM_PATH} | more
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace", capture_output=True)
    if done.returncode:
        raise InstallError(f"{failed}:\n{done.stdout[-2000:]}{done.stderr[-1000:]}".rstrip())


def command_line(cache: Path) -> Path:
    """A folder with the AWS command line: the packages that this Python has of it, which are Python and no more."""
    return made_once(cache / f"awscli-{version('awscli').replace('.', '-')}", lambda part: copy_packages("awscli", part / "opt/aws"))


def copy_packages(name: str, into: Path) -> None:
    for package in implied(name).values():
        for file in package.files or []:
            if ".." not in file.parts:  # its commands lie elsewhere
                target = into / file
                target.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # compiled files need not be there
                    shutil.copy(file.locate(), target)


def implied(name: str) -> dict[str, Distribution]:
    """A package of this Python and all that it requires."""
    packages, wanted = {}, [name]
    while wanted:
        name = wanted.pop()
        with suppress(PackageNotFoundError):  # it is for another Python or another system
            if name not in packages:
                packages[name] = distribution(name)
                needs = [one for one in packages[name].requires or [] if "extra ==" not in one]
                wanted += [re.match(r"[\w.-]+", one)[0].lower() for one in needs]
    return packages
