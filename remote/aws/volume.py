"""The box's data volume: runs and the model cache. It outlives the box. The only file with boto3's ec2 volumes."""

import hashlib
import time
from dataclasses import dataclass
from typing import Literal, cast

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.instance_history import last_start
from remote.aws.session import Aws, pauses
from remote.aws.tags import BOX, OWNER, STACK, listed, tags_of

OURS = "fine-tune-slm:created"
BLANK, FORMATTED = "blank", "formatted"  # what that tag says: only what it calls blank may ever be formatted


Change = Literal["created", "attached", "grown"]


@dataclass(frozen=True)
class Disk:
    """The box's volume."""

    volume_id: str
    created_blank: bool  # we have created it blank, and have not formatted it yet
    size_gb: int


@dataclass(frozen=True)
class Attached(Disk):
    changed: Change | None


@dataclass(frozen=True)
class VolumeZone:
    zone: str | None  # None: there is no volume


@dataclass(frozen=True)
class Snapshot:
    snapshot_id: str | None  # None: there was nothing to copy
    copied: str  # in words


def ensure(aws: Aws, box: schema.Box, instance_id: str, zone: str) -> Attached:
    """Find the volume by its tag, or create it; attach it to the box."""
    ec2 = aws.client("ec2")
    volume, changed = _find(aws, box.name), cast(Change | None, None)
    attached = [attachment["InstanceId"] for attachment in _attachments(volume) if attachment["State"] in ("attaching", "attached")]
    if volume is None:
        volume, changed = _create(aws, box, zone), "created"  # an answer that says nothing of attachments
    if instance_id not in attached:
        _wait(aws, "volume_available", volume["VolumeId"])
        ec2.attach_volume(VolumeId=volume["VolumeId"], InstanceId=instance_id, Device="/dev/sdf")
        changed = changed or "attached"
    _wait(aws, "volume_in_use", volume["VolumeId"])
    if volume["Size"] < box.disk_gb:
        volume, changed = _grow(aws, volume, box.disk_gb), "grown"
    return Attached(*_fields(volume), changed)


def require(aws: Aws, name: str) -> Disk:
    """Find the box's volume by its tag."""
    volume = _find(aws, name)
    if volume is None:
        raise Problem(f"box `{name}` has no volume", "`inv up` creates and attaches it", reason="refused")
    return Disk(*_fields(volume))


def describe(aws: Aws, name: str) -> str:
    """The box's volume in words."""
    volume = _find(aws, name)
    return f"volume {volume['VolumeId']}: {volume['Size']} GB, {volume['State']}" if volume else "volume: none; `inv up` creates it"


def zone(aws: Aws, name: str) -> str | None:
    """Where the box's volume is, or None when there is none."""
    volume = _find(aws, name)
    return volume["AvailabilityZone"] if volume else None


def id_and_tags(aws: Aws, name: str) -> tuple[str, dict[str, str]]:
    """The id of the box's volume and its tags."""
    volume = _find(aws, name) or {"VolumeId": "none", "Tags": []}
    return volume["VolumeId"], tags_of(volume)


def locate(aws: Aws, name: str) -> VolumeZone:
    """See in which zone the box's volume is, if there is one: a box elsewhere could not use it."""
    return VolumeZone(zone(aws, name))


def snapshot(aws: Aws, name: str) -> Snapshot:
    """Keep a copy of the volume, which nothing writes to now: AWS copies it in the background."""
    volume = _find(aws, name)
    if volume is None:
        screen.note(f"  box `{name}` has no volume: there is nothing to copy")
        return Snapshot(None, "no copy of the volume was made")
    if existing := _current_snapshot(aws, volume, name):
        return Snapshot(existing, f"{existing} is a copy of the volume already")
    tags = listed({STACK: aws.cloud.own, OWNER: aws.owner, BOX: name})
    answer = aws.client("ec2").create_snapshot(
        VolumeId=volume["VolumeId"],
        Description=f"fine-tune-slm {name}",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}],
    )
    aws.client("ec2").describe_snapshots(SnapshotIds=[answer["SnapshotId"]])  # AWS shows it: deleting the volume waits for it
    return Snapshot(answer["SnapshotId"], f"{answer['SnapshotId']} is a copy of the volume")


def _current_snapshot(aws: Aws, volume: dict, name: str) -> str | None:
    """A snapshot that was begun after the box last stopped, if there is one: CreateSnapshot takes no client token."""
    since = [last_start(aws, name), *(attachment["AttachTime"] for attachment in _attachments(volume))]
    if since[0] is None:
        return None
    mine = [{"Name": "volume-id", "Values": [volume["VolumeId"]]}, {"Name": f"tag:{BOX}", "Values": [name]}]
    mine += [{"Name": f"tag:{OWNER}", "Values": [aws.owner, aws.caller]}, {"Name": "status", "Values": ["pending", "completed"]}]
    snapshots = aws.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]
    # AWS gives a box's start in whole seconds.
    return next((snapshot["SnapshotId"] for snapshot in snapshots if snapshot["StartTime"].replace(microsecond=0) > max(since)), None)


def delete(aws: Aws, name: str) -> None:
    """Delete the volume, with all that is on it, once every copy of it is whole."""
    volume = _find(aws, name)
    if volume is None:
        return
    ec2, volume_id = aws.client("ec2"), volume["VolumeId"]
    _wait_for_snapshots(aws, volume_id)
    _wait(aws, "volume_available", volume_id)
    try:
        ec2.delete_volume(VolumeId=volume_id)
    except ec2.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "InvalidVolume.NotFound":  # the first answer was lost, and botocore has asked twice
            raise


def _wait_for_snapshots(aws: Aws, volume_id: str, seconds: int = 3000) -> None:
    mine = [{"Name": "volume-id", "Values": [volume_id]}, {"Name": "status", "Values": ["pending"]}]
    for _ in pauses(seconds, first=2):
        pending = aws.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]
        if not pending:
            return
    progress = ", ".join(f"{snapshot['SnapshotId']} ({snapshot.get('Progress', '?')})" for snapshot in pending)
    raise Problem(f"{volume_id} stays until its copy is whole: {progress}", "`inv down --purge` again, later", reason="unreachable")


def _fields(volume: dict) -> tuple[str, bool, int]:
    return volume["VolumeId"], {"Key": OURS, "Value": BLANK} in volume.get("Tags", []), volume["Size"]


def note_format(aws: Aws, volume_id: str) -> None:
    """Note that the volume holds data from now on: should it ever look blank again, it is not formatted again."""
    aws.client("ec2").create_tags(Resources=[volume_id], Tags=[{"Key": OURS, "Value": FORMATTED}])


def _grow(aws: Aws, volume: dict, size: int) -> dict:
    """The volume with `size` GB; the file system follows when it is mounted. AWS takes four changes in 24 hours."""
    aws.client("ec2").modify_volume(VolumeId=volume["VolumeId"], Size=size)
    for _ in pauses(300):
        change = _modification(aws, volume["VolumeId"])
        if change["ModificationState"] in ("optimizing", "completed"):  # it has its new size, at a lower speed at first
            return volume | {"Size": size}
        if change["ModificationState"] == "failed":
            break
    raise Problem(
        f"AWS did not make {volume['VolumeId']} {size} GB large: {change.get('StatusMessage') or change['ModificationState']}",
        f"`aws ec2 describe-volumes-modifications --volume-ids {volume['VolumeId']}`",
        reason="refused",
    )


def _modification(aws: Aws, volume_id: str) -> dict:
    """The newest change of the volume; AWS may not show yet that there is one."""
    ec2 = aws.client("ec2")
    try:
        changes = ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
    except ec2.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "InvalidVolumeModification.NotFound":
            raise
        changes = []
    return changes[-1] if changes else {"ModificationState": "not shown yet"}


def _wait(aws: Aws, state: str, volume_id: str) -> None:
    """Until AWS says so; two minutes at most."""
    from botocore.exceptions import WaiterError

    ec2 = aws.client("ec2")
    try:
        ec2.get_waiter(state).wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    except WaiterError as error:
        volumes = (error.last_response or {}).get("Volumes") or [{}]
        holders = ", ".join(attachment["InstanceId"] for attachment in _attachments(volumes[0]))
        now = volumes[0].get("State", "unknown to AWS") + (f" by {holders}" if holders else "")
        hint = f"`aws ec2 describe-volumes --volume-ids {volume_id}` shows it; then the same command again"
        wanted = state.removeprefix("volume_").replace("_", "-")
        raise Problem(f"{volume_id} does not become {wanted}: it is {now}", hint, reason="unreachable") from error


def _find(aws: Aws, name: str) -> dict | None:
    volumes = aws.client("ec2").describe_volumes(Filters=[{"Name": f"tag:{BOX}", "Values": [name]}])["Volumes"]
    # Not a filter: who asks may still be asked for meanwhile.
    return next((volume for volume in volumes if aws.is_mine(tags_of(volume).get(OWNER))), None)


def _attachments(volume: dict | None) -> list[dict]:
    return (volume or {}).get("Attachments", [])


def _create(aws: Aws, box: schema.Box, zone: str) -> dict:
    # OURS says that this volume began blank, from no snapshot: without it nothing is ever formatted.
    tags = {STACK: aws.cloud.own, OWNER: aws.owner, BOX: box.name, OURS: BLANK, "Name": f"fine-tune-slm {box.name}"}
    return aws.client("ec2").create_volume(
        AvailabilityZone=zone,
        Size=box.disk_gb,
        VolumeType=box.disk_type,
        Encrypted=True,
        # A lost answer, and botocore asks again: still one volume. By its hash: a token has 64 characters at most.
        ClientToken=hashlib.sha256(f"{box.name}-{int(time.time() // 60)}".encode()).hexdigest(),
        TagSpecifications=[{"ResourceType": "volume", "Tags": listed(tags)}],
    )
