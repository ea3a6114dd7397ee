"""What moto knows about instances and volumes, read in its own process: the emulated hardware follows it."""

import base64
import email
import json
import re
from functools import cache

from twin.aws import wire
from twin.aws.iam import policy

SCRIPT = "text/x-shellscript"


@cache
def backend(region: str):
    from moto.ec2.models import ec2_backends  # costs a second, and a world without instances never needs it

    return ec2_backends[wire.ACCOUNT][region]


def find(region: str, instance: str):
    """Moto's record of an instance, or None."""
    return backend(region).get_instance_by_id(instance)


def volume(region: str, volume_id: str):
    return backend(region).volumes.get(volume_id)


def running(region: str, instance: str) -> bool:
    record = find(region, instance)
    return bool(record and record._state.name == "running")


def every(region: str) -> list:
    return [one for reservation in backend(region).reservations.values() for one in reservation.instances]


def all_running(region: str) -> list:
    """Every instance that is paid for."""
    return [one for one in every(region) if one._state.name in ("pending", "running")]


def named(response: wire.Response) -> list[str]:
    """The instances that an answer of RunInstances names; none when it is a refusal."""
    return re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", response.get_data(as_text=True)) if response.status_code == 200 else []


def user_data(region: str, instance: str) -> bytes:
    """What the launch gave the instance to run; empty when it gave nothing."""
    encoded = find(region, instance).user_data
    return base64.b64decode(str(encoded)) if encoded else b""


def scripts(content: bytes) -> list[bytes]:
    """Those that cloud-init finds in user data: itself, or the parts of a MIME archive."""
    if content.startswith(b"#!"):
        return [content]
    return [part.get_payload(decode=True) for part in email.message_from_bytes(content).walk() if part.get_content_type() == SCRIPT]


def has_ecs_agent(region: str, instance: str) -> bool:
    """Whether its image is one of ECS's."""
    image = backend(region).amis.get(find(region, instance).image_id)
    return bool(image) and "-ecs-" in image.name


def zone_id(region: str, zone: str) -> str:
    """The name that a zone has for every account, use1-az6 for one."""
    return next(one.zone_id for one in backend(region).describe_availability_zones() if one.name == zone)


def tags(region: str, instance: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in find(region, instance).get_tags()}


def hops(region: str, instance: str) -> int:
    """How far the tokens of its metadata service travel."""
    return int(find(region, instance).metadata_options.http_put_response_hop_limit or 1)


def set_state(region: str, instance: str, name: str) -> None:
    """Moto changes states at once; a real instance passes through `stopping` and `shutting-down`."""
    state = find(region, instance)._state
    state.name = name
    state.code = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}[name]


def profile(region: str, instance: str):
    """The instance profile of an instance, or None."""
    from moto.iam.models import iam_backends

    association = backend(region).iam_instance_profile_associations.get(instance)
    if not association:
        return None
    profiles = iam_backends[wire.ACCOUNT]["aws"].instance_profiles.values()
    return next((one for one in profiles if one.arn == association.iam_instance_profile.arn), None)


def role(region: str, instance: str):
    """The role that an instance acts by, or None; an instance profile holds one."""
    instance_profile = profile(region, instance)
    return instance_profile.roles[0] if instance_profile and instance_profile.roles else None


def may_register(region: str, instance: str) -> bool:
    """Whether the instance's role lets its agent talk to SSM."""
    instance_role = role(region, instance)
    itself = f"arn:aws:ec2:{region}:{wire.ACCOUNT}:instance/{instance}"
    return bool(instance_role) and policy.decide(documents(instance_role), "ssm:UpdateInstanceInformation", itself, {}) == policy.ALLOWED


def documents(role) -> list[dict]:
    attached = [version.document for policy in role.managed_policies.values() for version in policy.versions if version.is_default]
    return [json.loads(document) for document in [*attached, *role.policies.values()]]
