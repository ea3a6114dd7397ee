"""The box: one EC2 instance, found by its tag."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import auto_stop, capacity, describe, instance_history
from remote.aws.launch import ALIVE, UNATTENDED, adopt, launch
from remote.aws.session import Aws, is_access_denied, pauses
from remote.aws.tags import BOX, HOST_KEY, OWNER, RUN, STOPPED, tags_of

STOP_TIME = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)")  # in the reason for a stop: "User initiated (2026-11-22 10:00:00 GMT)"
# The metadata service gives the box's role away by a token alone, and its token travels one hop: to the box, not into a container on it.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
METADATA = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}


@dataclass(frozen=True)
class Instance:
    id: str
    state: str
    zone: str
    instance_type: str
    launched: datetime  # its latest start
    owner: str
    stopped_because: str  # what its supervisor said when it stopped the box
    stopped_at: datetime | None = None  # as AWS says; it does not where the box turned itself off
    metadata_closed: bool = False  # whether its metadata service answers as METADATA says

    @property
    def uptime(self) -> instance_history.Uptime:
        return instance_history.Uptime(self.id, self.instance_type, self.launched, self.stopped_at, self.owner or None)


@dataclass(frozen=True)
class SshEndpoint:
    """Where one comes to the box from outside."""

    address: str  # empty: it has none
    group: str  # the security group that says who may
    host_key: str  # empty: not known yet


StartKind = Literal["launched", "started"]


@dataclass(frozen=True)
class Ensured:
    """The box, and what had to be done for it."""

    instance_id: str
    changed: StartKind | None


@dataclass(frozen=True)
class Running:
    zone: str
    instance_type: str


@dataclass(frozen=True)
class Existing:
    instance_id: str
    running: bool


@dataclass(frozen=True)
class Presence:
    """The box, if there is one."""

    instance_id: str | None = None
    exists: bool = False
    running: bool = False


@dataclass(frozen=True)
class Required:
    """The box, which runs."""

    instance_id: str


@dataclass(frozen=True)
class Stopped:
    state: str


def find(aws: Aws, name: str) -> Instance | None:
    """The box of this name, or None; a Problem when it belongs to somebody else."""
    instances = [_parse(each) for each in describe.instances(aws, {f"tag:{BOX}": [name], "instance-state-name": ALIVE})]
    if len(instances) > 1:
        ids = ", ".join(box.id for box in instances)
        raise Problem(
            f"{len(instances)} boxes are named `{name}`: {ids}",
            f"terminate all but one: `aws ec2 terminate-instances --instance-ids {instances[-1].id}`",
            reason="refused",
        )
    if instances and not aws.is_mine(instances[0].owner):
        owner = instances[0].owner or "nobody we know"
        raise Problem(f"box `{name}` ({instances[0].id}) belongs to {owner}", "use a name of your own: `box.name=...`", reason="refused")
    return instances[0] if instances else None


def _parse(description: dict) -> Instance:
    tags = tags_of(description)
    return Instance(
        description["InstanceId"],
        description["State"]["Name"],
        description["Placement"]["AvailabilityZone"],
        description["InstanceType"],
        description["LaunchTime"],
        tags.get(OWNER, ""),
        tags.get(STOPPED, ""),
        _stopped_at(description),
        _metadata_is_closed(description),
    )


def _metadata_is_closed(description: dict) -> bool:
    options = description.get("MetadataOptions", {})
    return all(options.get(name) == value for name, value in METADATA.items()) and options.get("State") != "pending"


def _stopped_at(description: dict) -> datetime | None:
    match = (
        STOP_TIME.search(description.get("StateTransitionReason", ""))
        if description["State"]["Name"] not in ("pending", "running")
        else None
    )
    return datetime.fromisoformat(f"{match[1]}+00:00") if match else None


def _describe(aws: Aws, instance_id: str) -> Instance:
    return _parse(describe.instance(aws, instance_id))


def ssh_endpoint(aws: Aws, instance_id: str) -> SshEndpoint:
    description = describe.instance(aws, instance_id)
    group = description["SecurityGroups"][0]["GroupId"]
    return SshEndpoint(description.get("PublicIpAddress", ""), group, tags_of(description).get(HOST_KEY, ""))


def type_of(aws: Aws, box: schema.Box) -> str:
    """The type of the box, whatever the settings say; where there is none, the first that `up` would launch."""
    instance = find(aws, box.name)
    if instance:
        return instance.instance_type
    reserved = describe.capacity_reservation(aws, box.reservation) if box.reservation else None
    return reserved["InstanceType"] if reserved else box.instance_types[0]


def ensure(aws: Aws, box: schema.Box, volume_zone: str | None = None) -> Ensured:
    """Find the box by its tag; start it when it is stopped, launch it when there is none."""
    instance = find(aws, box.name)
    if box.adopt:
        instance = _adopted(aws, box.adopt, box.name, instance)
    if instance and instance.state == "stopping":
        _wait(aws, "instance_stopped", instance.id)
    if instance is None:
        return Ensured(launch(aws, box, volume_zone), "launched")
    if instance.instance_type not in box.instance_types and not (box.adopt or box.reservation):
        wanted = " or ".join(box.instance_types)
        screen.note(
            f"  box `{box.name}` is a {instance.instance_type} and no {wanted}; for one on the same volume: "
            f"`aws ec2 terminate-instances --region {aws.cloud.region} --instance-ids {instance.id}`, then `inv up`"
        )
    if instance.state in ("stopped", "stopping"):
        instance_history.write(aws, _describe(aws, instance.id).uptime)
        _cancel_commands(aws, instance.id)
        auto_stop.disarm(aws, instance.id)  # of its life before, which has ended: it would stop this one too early
        aws.client("ec2").delete_tags(Resources=[instance.id], Tags=[{"Key": STOPPED}, {"Key": RUN}])
        capacity.start(aws, box, instance.id, instance.instance_type, instance.zone)
        return Ensured(instance.id, "started")
    return Ensured(instance.id, None)


def still_on_notice(instance_id: str | None, changed: StartKind | None, stops_at: str | None) -> str:
    """What a failed `up` must say: the box is on and costs money, and what stops it."""
    if instance_id is None:
        return ""
    alone = f"{UNATTENDED} min after its start, unless an `inv up` sets it up"
    by_itself = {"launched": f"stops itself {alone}", "started": f"stops itself when it is idle; where it was never set up, {alone}"}
    outside = f"is stopped by AWS at {stops_at}" if stops_at else ""
    ends = ", and ".join(part for part in (by_itself[changed] if changed else "", outside) if part) or "is not stopped from outside"
    return f"{instance_id} is still on: it {ends}; `inv down` stops it now"


def _cancel_commands(aws: Aws, instance_id: str) -> None:
    """Cancel commands that wait for the box's next start: their senders are gone, or they would have cancelled them."""
    ssm = aws.client("ssm")
    for command in ssm.list_commands(InstanceId=instance_id, MaxResults=20)["Commands"]:
        if command["Status"] in ("Pending", "InProgress"):
            ssm.cancel_command(CommandId=command["CommandId"], InstanceIds=[instance_id])


def wait(aws: Aws, instance_id: str) -> Running:
    """Wait until AWS says that the box runs."""
    _wait(aws, "instance_running", instance_id)
    instance = _describe(aws, instance_id)
    instance_history.write(aws, instance.uptime)
    return Running(instance.zone, instance.instance_type)


def close_metadata(aws: Aws, instance_id: str, seconds: float = 60) -> None:
    """Keep the box's role from what runs in its containers."""
    from botocore.exceptions import ClientError

    if _describe(aws, instance_id).metadata_closed:
        return
    try:
        aws.client("ec2").modify_instance_metadata_options(InstanceId=instance_id, **METADATA)
    except ClientError as error:
        if not is_access_denied(error):
            raise
        words = "--http-tokens required --http-put-response-hop-limit 1"
        hint = (
            f"somebody with that right runs `aws ec2 modify-instance-metadata-options --instance-id {instance_id} {words}`; then `inv up`"
        )
        what = f"a container on {instance_id} could act by the box's role, and your policy has no ec2:ModifyInstanceMetadataOptions"
        raise Problem(what, hint, reason="refused") from error
    for _ in pauses(seconds):
        if _describe(aws, instance_id).metadata_closed:
            return
    raise Problem(f"AWS has not closed the metadata service of {instance_id} to containers yet", "`inv up` again", "unreachable")


def get(aws: Aws, name: str) -> Existing:
    """Find the box by its tag, running or not."""
    instance = find(aws, name)
    if instance is None:
        raise Problem(f"there is no box named `{name}`", "start one with `inv up`", reason="refused")
    return Existing(instance.id, instance.state == "running")


def find_optional(aws: Aws, name: str) -> Presence:
    """Find the box by its tag, if there is one."""
    instance = find(aws, name)
    return Presence(instance.id, True, instance.state == "running") if instance else Presence()


def require(aws: Aws, name: str, metadata_closed: bool = True) -> Required:
    """Find the running box by its tag."""
    instance = find(aws, name)
    if instance is None:
        raise Problem(f"there is no box named `{name}`", "start one with `inv up`", reason="refused")
    if instance.state != "running":
        raise Problem(f"box `{name}` is {instance.state}", "start it with `inv up`", reason="refused")
    if metadata_closed and not instance.metadata_closed:
        raise Problem(f"a container on {instance.id} could act by the box's role", "`inv up` closes its metadata service to it", "refused")
    return Required(instance.id)


def _adopted(aws: Aws, id: str, name: str, current: Instance | None) -> Instance:
    """The instance of this id, which is the box of this name or becomes it."""
    if current and current.id != id:
        hint = "`inv down --purge` removes it; or give the other a name: `box.name=...`"
        raise Problem(f"box `{name}` is {current.id}", hint, reason="refused")
    return current or replace(_parse(adopt(aws, id, name)), owner=aws.owner)  # a search by the new tag may not find it yet


def stop(aws: Aws, instance_id: str) -> Stopped:
    """Stop the box and wait until AWS says that it is stopped."""
    if _describe(aws, instance_id).state == "pending":  # AWS stops only what runs
        _wait(aws, "instance_running", instance_id)
    aws.client("ec2").stop_instances(InstanceIds=[instance_id])
    _wait(aws, "instance_stopped", instance_id)
    return Stopped("stopped")


def terminate(aws: Aws, instance_id: str) -> None:
    """Terminate the box and wait until it is gone, its root disk with it."""
    instance_history.write(aws, _describe(aws, instance_id).uptime)
    capacity.release(aws, instance_id)
    aws.client("ec2").terminate_instances(InstanceIds=[instance_id])
    _wait(aws, "instance_terminated", instance_id)


def _wait(aws: Aws, state: str, instance_id: str) -> None:
    from botocore.exceptions import WaiterError

    try:
        aws.client("ec2").get_waiter(state).wait(InstanceIds=[instance_id], WaiterConfig={"Delay": 1, "MaxAttempts": 900})
    except WaiterError as error:
        now = _describe(aws, instance_id).state
        if state == "instance_running" and now in ("stopping", "stopped"):  # an idle box stops itself, at any moment
            raise Problem(f"{instance_id} is {now}: somebody or the box itself has stopped it just now", "`inv up`", "stopped") from error
        raise Problem(
            f"{instance_id}: {error}", f"`aws ec2 describe-instances --instance-ids {instance_id}`", reason="unreachable"
        ) from error
