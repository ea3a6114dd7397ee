"""Real disks: what is mounted is the volume, and nothing but a volume of ours that was never formatted is ever formatted.

Loop devices stand for disks; blkid, wipefs, mkfs, mount and resize2fs are the real ones. Needs root.
"""

import os
import shutil
import struct
import subprocess
import uuid
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import scripts
from machine import may_resize, needed, written

from remote.plan.script import compose
from remote.transport.transport import Result

pytestmark = pytest.mark.system
LINK = "nvme-Amazon_Elastic_Block_Store_{}"
VOLUME = "vol-0123456789abcdef0"
GB = 1 << 30


class Machine:
    """A root folder with disks: each a sparse file behind a loop device."""

    def __init__(self, folder: Path):
        self.folder, self.root = folder, folder / "root"
        self.mount = self.root / "mnt/training"
        self.loops: list[str] = []
        self.held: list[int] = []
        for name in ("dev/disk/by-id", "etc", "mnt", "run", "bin"):
            (self.root / name).mkdir(parents=True)

    def disk(self, name: str = "disk", size: int = GB, volume: str | None = VOLUME) -> Path:
        """A blank disk; the file behind it."""
        file = self.folder / name
        with file.open("wb") as out:
            out.truncate(size)
        loop = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True, text=True).stdout.strip()
        self.loops.append(loop)
        # Held open and let go of at once: it is gone with this process, however that ends.
        self.held.append(os.open(loop, os.O_RDONLY))
        subprocess.run(["losetup", "--detach", loop], check=True)
        if volume:
            (self.root / "dev/disk/by-id" / LINK.format(volume.replace("-", ""))).symlink_to(loop)
        return file

    def prepare(self, ours: str = "yes", size: int = 1) -> Result:
        settings = {"REGION": "r", "MOUNT_PATH": "/mnt/training", "VOLUME": VOLUME, "OURS": ours, "SIZE_GB": size, "PATIENCE": 1}
        return scripts.run(compose("volume", settings), self.root)

    def shadow(self, tool: str, before: str) -> None:
        """Something happens each time just before `tool` runs."""
        path = self.root / "bin" / tool
        path.write_text(f'#!/bin/sh\n{before}\nexec {shutil.which(tool)} "$@"\n')
        path.chmod(0o755)

    def unmount(self) -> None:
        subprocess.run(["umount", self.mount], check=True)

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.unmount()
        for held in self.held:
            os.close(held)


@pytest.fixture
def machine(tmp_path):
    needed("losetup", "mkfs.ext4")
    made = Machine(tmp_path)
    yield made
    made.close()


def refused(machine: Machine, file: Path, words: str, **settings) -> None:
    """The script ends in a sentence, and not a byte of the disk has changed."""
    before = written(file)
    result = machine.prepare(**settings)
    assert result.code == 1, result.stderr
    assert words in result.facts["problem"], result.facts
    assert result.facts["hint"]
    assert written(file) == before
    assert not machine.mount.exists() or not os.path.ismount(machine.mount)


def test_a_blank_volume_of_ours_is_formatted_mounted_and_noted_for_the_next_boot(machine):
    machine.disk()
    result = machine.prepare()
    assert (result.code, result.facts["formatted"], result.facts["changed"]) == (0, "yes", "yes"), result.stderr
    assert os.path.ismount(machine.mount)
    assert (machine.mount / "runs").is_dir()
    (line,) = (machine.root / "etc/fstab").read_text().splitlines()
    assert "nofail" in line and "/mnt/training ext4" in line


def test_the_second_time_nothing_changes_and_what_was_written_stays(machine):
    machine.disk()
    machine.prepare()
    (machine.mount / "runs/kept").write_text("kept")
    assert machine.prepare().facts["changed"] == "no"
    machine.unmount()
    result = machine.prepare(ours="no")
    assert (result.facts["formatted"], result.facts["changed"]) == ("no", "yes")
    assert (machine.mount / "runs/kept").read_text() == "kept"
    assert len((machine.root / "etc/fstab").read_text().splitlines()) == 1


@pytest.mark.skipif(not may_resize(), reason="growing a mounted file system needs CAP_SYS_RESOURCE")
def test_a_volume_that_has_grown_is_used_to_its_end(machine):
    file = machine.disk()
    machine.prepare()
    free = int(machine.prepare().facts["free_gb"])
    os.truncate(file, 4 * GB)
    subprocess.run(["losetup", "--set-capacity", machine.loops[0]], check=True)
    result = machine.prepare(ours="no", size=4)
    assert result.code == 0, result.stderr
    assert result.facts["changed"] == "yes"
    assert int(result.facts["free_gb"]) >= free + 2


def test_another_file_system_is_never_formatted(machine):
    file = machine.disk()
    with file.open("r+b") as out:  # a FAT boot sector, as mkfs.fat begins it
        out.write(b"\xeb\x3c\x90mkfs.fat" + struct.pack("<HBHBHHBHHHII", 512, 4, 4, 2, 512, 0, 0xF8, 64, 32, 2, 0, 131072))
        out.seek(36)
        out.write(b"\x80\x00\x29\x01\x02\x03\x04NO NAME    FAT16   ")
        out.seek(510)
        out.write(b"\x55\xaa")
    refused(machine, file, "it holds vfat, which is not ours")


def test_a_partition_table_is_never_formatted_over(machine):
    file = machine.disk()
    with file.open("r+b") as out:
        out.seek(446)
        out.write(struct.pack("<B3sB3sII", 0, b"\0\x02\0", 0x83, b"\0\0\0", 2048, 100_000))
        out.seek(510)
        out.write(b"\x55\xaa")
    refused(machine, file, "it has a partition table")


def test_an_lvm_disk_is_never_formatted(machine):
    file = machine.disk()
    rest = (struct.pack("<I", 32) + b"LVM2 001" + uuid.uuid4().hex.encode()).ljust(492, b"\0")
    check = zlib.crc32(rest, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    with file.open("r+b") as out:
        out.seek(512)
        out.write(b"LABELONE" + struct.pack("<QI", 1, check) + rest)
    refused(machine, file, "it holds LVM2_member, which is not ours")


def test_the_instance_store_is_never_taken_for_the_volume(machine):
    file = machine.disk("store", volume=None)
    (machine.root / "dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS1").symlink_to(machine.loops[0])
    refused(machine, file, "its device did not appear")


def test_a_disk_of_the_same_size_is_never_taken_for_the_volume(machine):
    file = machine.disk("other", volume="vol-0fedcba9876543210")
    refused(machine, file, "its device did not appear")


def test_a_volume_that_is_not_ours_or_was_formatted_before_is_never_formatted(machine):
    refused(machine, machine.disk(), "either we did not create it or it was formatted before", ours="no")


def test_a_disk_that_is_swapped_while_we_look_is_never_formatted(machine):
    first, second = machine.disk(), machine.disk("second", volume=None)
    link = machine.root / "dev/disk/by-id" / LINK.format(VOLUME.replace("-", ""))
    machine.shadow("wipefs", f"ln -sfn {machine.loops[1]} '{link}'")
    before = written(second)
    refused(machine, first, "another disk was attached in its place meanwhile")
    assert written(second) == before


def test_a_disk_that_cannot_be_read_is_never_formatted(machine):
    """blkid and wipefs call it blank: every read of a loop device whose file was cut off fails."""
    file = machine.disk()
    os.truncate(file, 0)
    refused(machine, file, "it cannot be read")


def test_a_disk_of_another_size_is_never_formatted(machine):
    refused(machine, machine.disk(size=2 * GB), "another size than its 1 GB")


def test_data_without_a_signature_is_never_formatted_over(machine):
    file = machine.disk()
    with file.open("r+b") as out:
        out.seek(3_000_000)
        out.write(b"rows of somebody")
    refused(machine, file, "its first megabytes are not empty")


def test_a_link_that_the_kernel_contradicts_is_not_followed(machine):
    file = machine.disk()
    serial = machine.root / "sys/class/block" / Path(machine.loops[0]).name / "device/serial"
    serial.parent.mkdir(parents=True)
    serial.write_text("vol0fedcba9876543210   \n")
    refused(machine, file, "says that it is vol0fedcba9876543210")


def test_another_disk_on_the_mount_point_is_refused(machine):
    machine.disk()
    machine.disk("second", volume=None)
    subprocess.run(["mkfs.ext4", "-q", machine.loops[1]], check=True)
    machine.mount.mkdir(parents=True)
    subprocess.run(["mount", machine.loops[1], machine.mount], check=True)
    result = machine.prepare()
    assert result.code == 1
    assert f"not {VOLUME}" in result.facts["problem"]


def test_a_disk_of_which_blkid_cannot_say_anything_is_never_formatted(machine):
    file = machine.disk()
    (machine.root / "bin/blkid").write_text("#!/bin/sh\nexit 4\n")
    (machine.root / "bin/blkid").chmod(0o755)
    refused(machine, file, "blkid cannot say what is on it (exit code 4)")


def test_xfs_is_mounted_as_it_is_and_grows_too(machine):
    needed("mkfs.xfs")
    machine.disk()
    subprocess.run(["mkfs.xfs", "-q", machine.loops[0]], check=True)
    result = machine.prepare(ours="no")
    assert (result.code, result.facts["formatted"]) == (0, "no"), result.stderr
    assert os.path.ismount(machine.mount)
