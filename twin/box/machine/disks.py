"""Volumes of the machine grade: a sparse file behind a loop device, which the box has as an NVMe disk.

As on the real machines, only the links in /dev/disk/by-id tell which disk is which.
"""

import json
import os
import stat
import subprocess
from pathlib import Path

from twin.box.disks import BY_ID, Disks
from twin.box.machine import prerequisites
from twin.box.machine.loops import attached, detach, loops

GIB = 1 << 30
# What makes a new disk foreign, and the package that has it.
FOREIGN = {
    "xfs": (["mkfs.xfs", "-q"], "xfsprogs"),
    "ext4": (["mkfs.ext4", "-q"], "e2fsprogs"),
    "LVM2_member": (["pvcreate", "--quiet", "--quiet"], "lvm2"),
    "dos": (["sfdisk", "--quiet", "--label", "dos"], "fdisk"),
    "gpt": (["sfdisk", "--quiet", "--label", "gpt"], "fdisk"),
}


class MachineDisks(Disks):
    """A disk's folder holds its file; device nodes in the box's /dev name the loop devices on these files."""

    def copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--archive", "--sparse=always", "--reflink=auto", str(source), str(target)], check=True)

    def set_size(self, folder: Path, gigabytes: int) -> None:
        file = folder / "disk"
        with file.open("ab"):
            os.truncate(file, gigabytes * GIB)
        for loop in loops(file):
            subprocess.run(["losetup", "--set-capacity", loop], check=True)

    def write_foreign(self, folder: Path, kind: str) -> None:
        """A real file system, volume group's member or partition table, as an earlier user of the disk would make it."""
        command, _ = FOREIGN[kind]
        self.plug(folder)
        table = ",,\n" if command[0] == "sfdisk" else ""
        try:
            subprocess.run(
                [prerequisites.program(command[0]), *command[1:], loops(folder / "disk")[0]], input=table, encoding="utf-8", check=True
            )
        finally:
            detach(folder / "disk")

    def damage(self, folder: Path) -> None:
        """Every read of the disk fails from now on, and every write; what stood on it lies beside it."""
        subprocess.run(["cp", "--sparse=always", str(folder / "disk"), str(folder / "kept")], check=True)
        os.truncate(folder / "disk", 0)

    def connect(self, node: Path, folder: Path) -> None:
        self.plug(folder)
        os.mknod(node, stat.S_IFBLK | 0o660, os.stat(loops(folder / "disk")[0]).st_rdev)

    def plug(self, folder: Path) -> None:
        """There is a loop device on the disk's file."""
        if not loops(folder / "disk"):
            subprocess.run(["losetup", "--find", str(folder / "disk")], check=True)

    def disk_of(self, name: Path) -> Path | None:
        """The folder of the disk that a node or a link names."""
        number = os.stat(name).st_rdev
        return next((Path(file).parent for loop, file in attached().items() if os.stat(loop).st_rdev == number), None)

    def mounted(self, instance: str) -> list[Path]:
        box = self.root(instance).parent
        if not (box / "first.json").exists():
            return []
        first = json.loads((box / "first.json").read_text(encoding="utf-8"))["pid"]
        numbers = {line.split()[2] for line in Path(f"/proc/{first}/mountinfo").read_text(encoding="utf-8").splitlines()}
        names = [name for name in (self.root(instance) / BY_ID).glob("nvme-*") if number(name) in numbers]
        return [folder for name in names if (folder := self.disk_of(name))]

    def disconnect(self, folder: Path) -> None:
        detach(folder / "disk")

    def unmount_all(self, instance: str) -> None:
        """The mounts went with the box; its loop devices are given back."""
        for _, folder in self.attached_disks(instance):
            detach(folder / "disk")


def number(device: Path) -> str:
    device_id = os.stat(device).st_rdev
    return f"{os.major(device_id)}:{os.minor(device_id)}"
