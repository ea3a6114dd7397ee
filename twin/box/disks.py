"""Volumes, snapshots and the disks that a box sees, in the process grade: a disk is a folder, a device node a link to it.

Like on the real machines, node names follow the order in which disks are found, which may change from boot to boot, and only
the links in /dev/disk/by-id tell which is which. A blank disk of the instance itself lies among them and is lost at each stop.
"""

import os
import re
import shutil
import threading
import time
from pathlib import Path

from twin.aws import wire
from twin.aws.ec2 import instances

BY_ID = "dev/disk/by-id"
STORE_GB = 450  # of a g6.2xlarge's own disk
BUSY = (
    '<DetachVolumeResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><volumeId>{VolumeId}</volumeId>'
    "<instanceId>{InstanceId}</instanceId><device>{device}</device><status>busy</status></DetachVolumeResponse>"
)


class Disks:
    def __init__(self, state: Path, region: str):
        self.state, self.region = state, region
        # Faults: seconds until the box sees its next new disks, what stands on the next new volumes, boxes that count the other way
        self.late: list[float] = []
        self.foreign: list[str] = []
        self.swapped: set[str] = set()
        self.operations: dict[str, wire.Handler] = {
            "ec2.CreateVolume": self.create,
            "ec2.DeleteVolume": self.delete,
            "ec2.AttachVolume": self.attach,
            "ec2.DetachVolume": self.detach,
            "ec2.ModifyVolume": self.modify,
            "ec2.CreateSnapshot": self.snapshot,
            "ec2.DeleteSnapshot": self.forget,
        }

    # What follows EC2's answers

    def create(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            volume = re.search(r"<volumeId>(vol-[0-9a-f]+)</volumeId>", response.get_data(as_text=True))[1]
            source = request.parameters.get("SnapshotId")
            if source:
                self.copy(self.state / "snapshots" / source, self.volume(volume))
            else:
                self.volume(volume).mkdir(parents=True)
            self.resize(volume)
            if self.foreign and not source:
                self.write_foreign(self.volume(volume), self.foreign.pop(0))
        return response

    def delete(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200 and self.has(request.parameters["VolumeId"]):
            shutil.rmtree(self.volume(request.parameters["VolumeId"]))
        return response

    def attach(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            instance, delay = request.parameters["InstanceId"], self.late.pop(0) if self.late else 0.0
            if delay:
                threading.Thread(target=lambda: (time.sleep(delay), self.show(instance)), daemon=True).start()
            else:
                self.show(instance)
        return response

    def detach(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """A mounted volume stays: AWS shows it as `busy` until it is unmounted, and then detaches it."""
        instance, volume = request.parameters["InstanceId"], request.parameters["VolumeId"]
        if self.volume(volume) in self.mounted(instance):
            attachment = instances.volume(self.region, volume).attachment
            attachment.status = "busy"
            threading.Thread(target=self.detach_later, args=(instance, volume), daemon=True).start()
            return wire.Response(BUSY.format(**request.parameters, device=attachment.device), content_type="text/xml")
        response = forward(request)
        if response.status_code == 200:
            self.unplug(instance, volume)
        return response

    def detach_later(self, instance: str, volume: str) -> None:
        while self.volume(volume) in self.mounted(instance):
            time.sleep(0.2)
        record = instances.volume(self.region, volume)
        if record and record.attachment and record.attachment.status == "busy":
            instances.backend(self.region).detach_volume(volume, instance, record.attachment.device)
            self.unplug(instance, volume)

    def modify(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200 and self.has(request.parameters["VolumeId"]):
            self.resize(request.parameters["VolumeId"])
        return response

    def snapshot(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200 and self.has(request.parameters["VolumeId"]):
            snapshot = re.search(r"<snapshotId>(snap-[0-9a-f]+)</snapshotId>", response.get_data(as_text=True))[1]
            self.copy(self.volume(request.parameters["VolumeId"]), self.state / "snapshots" / snapshot)
        return response

    def forget(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            shutil.rmtree(self.state / "snapshots" / request.parameters["SnapshotId"], ignore_errors=True)
        return response

    # Hardware

    def root(self, instance: str) -> Path:
        return self.state / "boxes" / instance / "root"

    def volume(self, volume: str) -> Path:
        return self.state / "volumes" / volume

    def has(self, volume: str) -> bool:
        """Whether there is a disk: a box's root volume is the folder of the box."""
        return self.volume(volume).is_dir()

    def resize(self, volume: str) -> None:
        """The disk has the size that EC2 says; a file system on it grows only by a command."""
        self.set_size(self.volume(volume), instances.volume(self.region, volume).size)
        (self.volume(volume) / "full").unlink(missing_ok=True)  # the fault of that name ends where there is room again

    def attached_disks(self, instance: str) -> list[tuple[str, Path]]:
        """The box's disks in the order in which its kernel finds them, each with its serial: its own first, or last."""
        store = self.root(instance).parent / "instance-store"
        own = (f"nvme-Amazon_EC2_NVMe_Instance_Storage_AWS{instance.removeprefix('i-').upper()}", store)
        volumes = sorted(instances.backend(self.region).volumes.values(), key=lambda one: one.id)
        attached = [one.id for one in volumes if one.attachment and one.attachment.instance.id == instance and self.has(one.id)]
        ours = [(f"nvme-Amazon_Elastic_Block_Store_{one.replace('-', '')}", self.volume(one)) for one in attached]
        return [*ours, own] if instance in self.swapped else [own, *ours]

    def show(self, instance: str) -> None:
        """Device nodes and links for all disks that the box has now; those that are there keep their names."""
        root = self.root(instance)
        if not root.exists():
            return
        known = {self.disk_of(name) for name in self.names(instance)}
        taken = {name.name for name in (root / "dev").glob("nvme*n1")}
        free = (f"nvme{number}n1" for number in range(1, 100) if f"nvme{number}n1" not in taken)
        for serial, folder in self.attached_disks(instance):
            if folder not in known:
                node = root / "dev" / next(free)
                self.connect(node, folder)
                link = root / BY_ID / serial
                link.unlink(missing_ok=True)
                link.symlink_to(Path("../..") / node.name)

    def unplug(self, instance: str, volume: str) -> None:
        """The box has this disk no more."""
        for name in [name for name in self.names(instance) if self.disk_of(name) == self.volume(volume)]:
            name.unlink()
        self.disconnect(self.volume(volume))

    def boot(self, instance: str, cold: bool) -> None:
        """All disks are looked for again; the instance's own outlives a reboot, but no stop."""
        store = self.root(instance).parent / "instance-store"
        if cold:
            shutil.rmtree(store, ignore_errors=True)
            store.mkdir(parents=True)
        self.set_size(store, STORE_GB)
        for name in self.names(instance):
            name.unlink()
        self.show(instance)

    def names(self, instance: str) -> list[Path]:
        """Links first: once its node is gone, a link resolves to nothing."""
        root = self.root(instance)
        return [*(root / BY_ID).glob("nvme-*"), *(root / "dev").glob("nvme*n1")]

    # What another grade's disks do in their own way

    def set_size(self, folder: Path, gigabytes: int) -> None:
        (folder / "size").write_text(f"{gigabytes}\n", encoding="utf-8")

    def copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target, symlinks=True)

    def write_foreign(self, folder: Path, kind: str) -> None:
        """A new disk comes with this on it."""
        (folder / "filesystem").write_text(f"{kind}\n", encoding="utf-8")

    def connect(self, node: Path, folder: Path) -> None:
        """From now on this device node is this disk."""
        node.symlink_to(folder)

    def disconnect(self, folder: Path) -> None:
        """The disk's nodes are gone."""

    def disk_of(self, name: Path) -> Path | None:
        """The folder of the disk that a node or a link in a box's /dev names."""
        return name.resolve()

    def mounted(self, instance: str) -> list[Path]:
        """The folders of the disks that the box has mounted."""
        return [disk for disk, _ in mounts(self.root(instance))]

    def unmount_all(self, instance: str) -> None:
        for _, directory in mounts(self.root(instance)):
            directory.unlink()
            directory.with_name(f".below-{directory.name}").rename(directory)  # as `mount` has hidden it


def mounts(root: Path) -> list[tuple[Path, Path]]:
    """Volume folder and directory of every mount, as the stand-in `mount` writes them down."""
    table = root / "etc/mtab"
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    rows = [line.split("\t") for line in lines]
    return [(Path(os.path.realpath(device)), Path(directory)) for device, directory in rows]
