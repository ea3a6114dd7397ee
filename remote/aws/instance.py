"""The box: one EC2 instance, found by its tag. The only file with boto3's ec2 instances."""

import hashlib
import math
import re
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import confirm
from remote.aws import auto_stop, capacity, instance_history
from remote.aws.session import DENIED, Aws
from remote.aws.tags import BOX, HOST_KEY, OWNER, STOPPED

STOP_TIME = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)")  # in the reason for a stop: "User initiated (2026-11-22 10:00:00 GMT)"
AGENT_TIMEOUT = 600  # seconds until an agent must have registered
REBOOT_AFTER = 240  # seconds after which a new box whose agent has not is rebooted, once
UNATTENDED = 30  # minutes that a new box runs though nobody has come to set it up
# cloud-init runs it at the first boot, and its copy at each later one: until setup.sh has its supervisor running, nothing else on the
# box would stop it. What setup.sh calls off may come before this or after it, for the agent takes commands while the box still boots.
USER_DATA = f"""#!/bin/sh
[ ! -e "${{BOX_ROOT:-}}/opt/fine-tune-slm/supervise.sh" ] || exit 0
boots="${{BOX_ROOT:-}}/var/lib/cloud/scripts/per-boot"
mkdir -p "$boots"
[ "$0" = "$boots/fine-tune-slm" ] || cp -p "$0" "$boots/fine-tune-slm"
shutdown -h +{UNATTENDED}
[ ! -e "${{BOX_ROOT:-}}/run/fine-tune-slm/supervised" ] || shutdown -c
"""
ALIVE = ["pending", "running", "stopping", "stopped"]
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
        return instance_history.Uptime(self.id, self.instance_type, self.launched, self.stopped_at)


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
class Agent:
    version: str


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
    filters = [{"Name": f"tag:{BOX}", "Values": [name]}, {"Name": "instance-state-name", "Values": ALIVE}]
    pages = aws.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    instances = [_parse(description) for page in pages for reservation in page["Reservations"] for description in reservation["Instances"]]
    if len(instances) > 1:
        ids = ", ".join(box.id for box in instances)
        raise Problem(
            f"{len(instances)} boxes are named `{name}`: {ids}",
            f"terminate all but one: `aws ec2 terminate-instances --instance-ids {instances[-1].id}`",
            reason="refused",
        )
    if instances and instances[0].owner != aws.caller:
        owner = instances[0].owner or "nobody we know"
        raise Problem(f"box `{name}` ({instances[0].id}) belongs to {owner}", "use a name of your own: `box.name=...`", reason="refused")
    return instances[0] if instances else None


def _parse(description: dict) -> Instance:
    tags = {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}
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
    return _parse(aws.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0])


def ssh_endpoint(aws: Aws, instance_id: str) -> SshEndpoint:
    description = aws.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    tags = {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}
    return SshEndpoint(description.get("PublicIpAddress", ""), description["SecurityGroups"][0]["GroupId"], tags.get(HOST_KEY, ""))


def ensure(aws: Aws, box: schema.Box, volume_zone: str | None = None) -> Ensured:
    """Find the box by its tag; start it when it is stopped, launch it when there is none."""
    instance = find(aws, box.name)
    if box.adopt:
        instance = _adopt(aws, box, instance)
    if instance and instance.state == "stopping":
        _wait(aws, "instance_stopped", instance.id)
    if instance is None:
        return Ensured(_launch(aws, box, volume_zone), "launched")
    if instance.state in ("stopped", "stopping"):
        instance_history.write(aws, _describe(aws, instance.id).uptime)
        _cancel_commands(aws, instance.id)
        auto_stop.disarm(aws, instance.id)  # of its life before, which has ended: it would stop this one too early
        aws.client("ec2").delete_tags(Resources=[instance.id], Tags=[{"Key": STOPPED}])
        capacity.start(aws, box, instance.id, instance.zone)
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
        if error.response["Error"]["Code"] not in DENIED:
            raise
        words = "--http-tokens required --http-put-response-hop-limit 1"
        hint = (
            f"somebody with that right runs `aws ec2 modify-instance-metadata-options --instance-id {instance_id} {words}`; then `inv up`"
        )
        what = f"a container on {instance_id} could act by the box's role, and your policy has no ec2:ModifyInstanceMetadataOptions"
        raise Problem(what, hint, reason="refused") from error
    until = time.monotonic() + seconds
    while not _describe(aws, instance_id).metadata_closed:
        if time.monotonic() > until:
            raise Problem(f"AWS has not closed the metadata service of {instance_id} to containers yet", "`inv up` again", "unreachable")
        time.sleep(1)


def _adopt(aws: Aws, box: schema.Box, current: Instance | None) -> Instance:
    """The instance that the user has named, tagged as the box from now on, once he has seen what it is and agreed."""
    ec2, id, name = aws.client("ec2"), box.adopt, box.name
    if current and current.id == id:
        return current
    if current:
        raise Problem(
            f"box `{name}` is {current.id}", "`inv down --purge` removes it; or give the other a name: `box.name=...`", reason="refused"
        )
    try:
        description = ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]
    except ec2.exceptions.ClientError as error:
        if error.response["Error"]["Code"].startswith("InvalidInstanceID"):
            raise Problem(f"there is no instance {id}", "name one of this region: `box.adopt=i-...`", reason="refused") from error
        raise
    tags = {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}
    if description["State"]["Name"] not in ALIVE or BOX in tags:
        what = f"the box `{tags[BOX]}` of {tags.get(OWNER, 'somebody')}" if BOX in tags else description["State"]["Name"]
        raise Problem(f"{id} is {what}", "name an instance that is nobody's box: `box.adopt=i-...`", reason="refused")
    profile = description.get("IamInstanceProfile", {}).get("Arn", "no role").rpartition("/")[2]
    about = f"{description['InstanceType']}, {description['State']['Name']}, "
    about += f"launched {description['LaunchTime']:%Y-%m-%d} from {description['ImageId']}"
    about += f" with {profile}; tags: {', '.join(f'{key}={value}' for key, value in sorted(tags.items())) or 'none'}"
    confirm.ask(
        False,
        f"{id} is {about}.\nTake it as the box `{name}`, run scripts on it as root and stop it when it is idle?",
        "it stays as it is",
        "run it at a terminal",
    )
    try:
        ec2.create_tags(Resources=[id], Tags=[{"Key": BOX, "Value": name}, {"Key": OWNER, "Value": aws.caller}])
    except ec2.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in DENIED:
            raise
        # Who may tag any instance as a box may stop any instance: no policy of ours allows it.
        tag_arguments = f"Key={BOX},Value={name} Key={OWNER},Value={aws.caller}"
        hint = f"somebody with that right runs `aws ec2 create-tags --resources {id} --tags {tag_arguments}`; then `inv up`"
        raise Problem(f"your policy does not let you take {id}", hint, reason="refused") from error
    return replace(_parse(description), owner=aws.caller)  # a search by the new tag may not find it yet


def _launch(aws: Aws, box: schema.Box, volume_zone: str | None) -> str:
    ec2 = aws.client("ec2")
    tags = [{"Key": BOX, "Value": box.name}, {"Key": OWNER, "Value": aws.caller}, {"Key": "Name", "Value": f"fine-tune-slm {box.name}"}]
    image = aws.client("ssm").get_parameter(Name=box.ami)["Parameter"]["Value"]
    root = ec2.describe_images(ImageIds=[image])["Images"][0]["RootDeviceName"]
    disk = {"VolumeSize": box.root_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    # A lost answer and a second try within a minute are one launch; but a box that has ended meanwhile is not launched by its old token.
    moment = f"{int(time.time() // 60)}-{_recently_terminated(aws, box.name)}"

    def launch(zone: str, market: dict) -> str:
        answer = ec2.run_instances(
            ImageId=image,
            InstanceType=box.instance_type,
            MinCount=1,
            MaxCount=1,
            # Its role, its closed network and its metadata service stand there (stack.yaml). A stack's change is a new version of it.
            LaunchTemplate={"LaunchTemplateName": aws.cloud.launch_template, "Version": "$Latest"},
            BlockDeviceMappings=[{"DeviceName": root, "Ebs": disk}],
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            UserData=USER_DATA,
            # By its hash: a token has 64 characters at most.
            ClientToken=hashlib.sha256(f"{box.name}-{moment}-{zone}-{market}-{box.instance_type}".encode()).hexdigest(),
            **({"SubnetId": box.subnet} if box.subnet else {"Placement": {"AvailabilityZone": zone}}),
            **({"InstanceMarketOptions": market} if market else {}),
        )
        return answer["Instances"][0]["InstanceId"]

    return capacity.launch_in_any_zone(aws, box, _zone(aws, box, volume_zone), launch)


def _zone(aws: Aws, box: schema.Box, volume_zone: str | None) -> str | None:
    """The only zone in which the box can be: the volume's, or that of the subnet that the user has named."""
    if not box.subnet:
        return volume_zone
    zone = aws.client("ec2").describe_subnets(SubnetIds=[box.subnet])["Subnets"][0]["AvailabilityZone"]
    if volume_zone not in (None, zone):
        what = f"{box.subnet} is in {zone}, but the volume is in {volume_zone}"
        raise Problem(what, f"name a subnet of {volume_zone}: `box.subnet=...`", reason="refused")
    return zone


def _recently_terminated(aws: Aws, name: str) -> int:
    """How many boxes of this name have ended lately: AWS shows them for an hour."""
    filters = [{"Name": f"tag:{BOX}", "Values": [name]}, {"Name": "instance-state-name", "Values": ["shutting-down", "terminated"]}]
    pages = aws.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    return sum(len(reservation["Instances"]) for page in pages for reservation in page["Reservations"])


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


def wait_for_agent(
    aws: Aws, instance_id: str, seconds: float = AGENT_TIMEOUT, changed: StartKind | None = None, reboot_after: float = REBOOT_AFTER
) -> Agent:
    """Wait until the box's agent takes commands."""
    agents, ec2 = aws.client("ssm"), aws.client("ec2")
    instance = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    started, pause = time.monotonic(), 0.1
    # Nothing can be at work on a box that this very command has launched.
    reboot_at = started + reboot_after if changed == "launched" else math.inf
    while time.monotonic() < started + seconds:
        registered = agents.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [instance_id]}])[
            "InstanceInformationList"
        ]
        # After a stop and a start the record can still say Online from before.
        if registered and registered[0]["PingStatus"] == "Online" and registered[0]["LastPingDateTime"] > instance["LaunchTime"]:
            return Agent(registered[0].get("AgentVersion", "?"))
        if time.monotonic() > reboot_at:
            _reboot_once(aws, instance_id, reboot_after)
            reboot_at = math.inf
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
    raise Problem(
        f"the agent on {instance_id} did not register within {seconds:.0f} s",
        "`inv up -- box.ssh=true` takes SSH in its place, and so do the verbs after it; or repair the agent: `inv doctor` "
        "looks at its role and at its subnet's way to the ssm endpoints; "
        f"`aws ec2 get-console-output --latest --instance-id {instance_id}` shows its boot, "
        f"`aws ec2 reboot-instances --instance-ids {instance_id}` makes the agent try again",
        reason="unreachable",
    )


def _reboot_once(aws: Aws, instance_id: str, reboot_after: float) -> None:
    """Reboot a new box whose agent is silent.

    An agent that AWS has refused once, because its role was new, sleeps for about 26 minutes ("Sleeping for 25m42s before retrying
    retrieve credentials": https://github.com/aws-samples/aws-cloud9-bootstrapping-example/pull/7, hashicorp/packer-plugin-amazon#503);
    a new one asks at once. The shutdown that the box has planned for itself is planned again at each boot (USER_DATA).
    """
    ec2 = aws.client("ec2")
    silent = f"  the agent on {instance_id} has been silent for {reboot_after:.0f} s"
    try:
        ec2.reboot_instances(InstanceIds=[instance_id])
    except ec2.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in DENIED:
            raise
        screen.note(f"{silent}; a reboot would let it try again, and your policy has no ec2:RebootInstances (`inv policy`): waiting on")
        return
    screen.note(
        f"{silent}: one that was refused once, as while its role was new, sleeps for half an hour. The box is rebooted, once; waiting on"
    )


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
