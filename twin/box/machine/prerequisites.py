"""What the machine under all this must have: Linux, root, and programs that Debian packages."""

import os
import shutil
import sys

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = {
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "slirp4netns": "slirp4netns",
}
# What the system tests want beside it.
TESTED = {
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "mkfs.xfs": "xfsprogs",
    "pvcreate": "lvm2",
    "sfdisk": "fdisk",
    "systemd-analyze": "systemd",
    "docker-compose": "docker-compose",
    "chromium": "chromium",
}


def missing(*programs: str) -> str:
    """Why the machine grade cannot be had here, with what helps; empty when it can. `programs` default to all that it needs."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "it needs Linux and root"
    lacking = sorted({(NEEDED | TESTED)[name] for name in programs or NEEDED if not program(name)})
    return f"it needs Debian's {', '.join(lacking)}: apt-get install --no-install-recommends {' '.join(lacking)}" if lacking else ""


def program(name: str) -> str | None:
    """Where a program is; Debian's own comes first, because another one of the same name may be of another version."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")


if __name__ == "__main__":  # the packages that `make test-system` installs
    print(*sorted({package for name, package in (NEEDED | TESTED).items() if not program(name)}))
