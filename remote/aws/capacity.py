"""Where a box can be launched: each zone in turn, spot first if wanted, and what to do when no zone has capacity."""

import functools
from collections.abc import Callable, Iterator

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import describe
from remote.aws.session import Aws, retry_until_visible, with_region

# Another zone or market may have it.
NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "Unsupported",
    "InsufficientHostCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
)
# In messages: the codes are those of any wrong parameter.
NO_SUBNET = "No default subnet"
NOT_FREE_TIER = "not eligible for Free Tier"
NEW_PROFILE = "Invalid IAM Instance Profile"
UPGRADE = "`aws freetier upgrade-account-plan --account-plan-type PAID`"
# A spot box that `down` stops must be able to start again: a one-time request cannot.
SPOT = {
    "MarketType": "spot",
    "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
}


def launch_in_any_zone(aws: Aws, box: schema.Box, zone: str | None, launch: Callable[[str, dict], str]) -> str:
    """The id that `launch(zone, market)` answers at the first place that has room; `zone` is where the volume is."""
    from botocore.exceptions import ClientError

    refused = []
    for where, market in _zones_and_markets(aws, box, zone):
        try:
            return retry_until_visible(functools.partial(launch, where, market), NEW_PROFILE, "the box's new role")
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code == "VcpuLimitExceeded":
                raise _quota(aws, box, error) from error
            if code == "PendingVerification":
                hint = "wait for AWS's mail, four hours at most, then `inv up`; after that, write to aws-verification@amazon.com"
                raise Problem(
                    f"AWS is still verifying this account and launches nothing for it in {aws.cloud.region}", hint, "refused"
                ) from error
            if NOT_FREE_TIER in message:
                raise _free_plan(aws, box) from error
            if code not in NO_CAPACITY and NO_SUBNET not in message:
                raise
            refused.append(f"{where}{', spot' if market else ''}: {NO_SUBNET.lower() if NO_SUBNET in message else code}")
            screen.note(f"  no {box.instance_type} in {refused[-1]}")
    raise _no_capacity(aws, box, zone, refused)


def _free_plan(aws: Aws, box: schema.Box) -> Problem:
    """Accounts made since July 2025 may be on AWS's Free plan."""
    hint = f"{UPGRADE}: your remaining credits stay, and AWS charges what goes beyond them; then `inv up`"
    what = f"this account is on AWS's Free plan, which launches no {box.instance_type}"
    return Problem(what, with_region(hint, aws.cloud.region), reason="refused")


def start(aws: Aws, box: schema.Box, instance_id: str, zone: str) -> None:
    """The stopped box starts again; where its zone has no room for it, a Problem with the way out."""
    from botocore.exceptions import ClientError

    try:
        aws.client("ec2").start_instances(InstanceIds=[instance_id])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "VcpuLimitExceeded":
            raise _quota(aws, box, error) from error
        if NOT_FREE_TIER in error.response["Error"].get("Message", ""):
            raise _free_plan(aws, box) from error
        if code == "IncorrectSpotRequestState":
            raise _spot_reclaimed(aws, instance_id) from error
        if code not in NO_CAPACITY:
            raise
        raise Problem(
            f"{zone} has no {box.instance_type} for {instance_id} now, and its volume is there",
            f"try again later, or move the volume to another zone:\n{_relocation_commands(aws, box, zone, instance_id)}",
            reason="refused",
        ) from error


def _spot_reclaimed(aws: Aws, instance_id: str) -> Problem:
    commands = "\n".join(f"`{line}`" for line in [*_termination_commands(aws, instance_id), "inv up -- box.spot=false"])
    return Problem(
        f"AWS has reclaimed the spot box {instance_id}; only AWS starts it again, when it has capacity",
        f"wait until `inv status` shows it running, then `inv up`; or continue now with an on-demand box on the same volume:\n{commands}",
        reason="refused",
    )


def release(aws: Aws, instance_id: str) -> None:
    """Give up the spot request of a box, if it has one: a persistent one would launch another box in its place."""
    if request := describe.instance(aws, instance_id).get("SpotInstanceRequestId"):
        aws.client("ec2").cancel_spot_instance_requests(SpotInstanceRequestIds=[request])


def _zones_and_markets(aws: Aws, box: schema.Box, zone: str | None) -> Iterator[tuple[str, dict]]:
    """Every zone that offers the type, or the volume's; spot everywhere before anything else."""
    zones = _zones(aws, box)
    if not zones:
        raise Problem(
            f"{aws.cloud.region} has no {box.instance_type}", "another `box=...` or `cloud.region=...`; `inv doctor` looks", "refused"
        )
    for market in [SPOT, {}] if box.spot else [{}]:
        yield from ((one, market) for one in ([zone] if zone else zones))


def _zones(aws: Aws, box: schema.Box) -> list[str]:
    request = {"LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": [box.instance_type]}]}
    pages = aws.client("ec2").get_paginator("describe_instance_type_offerings").paginate(**request)
    return sorted(offering["Location"] for page in pages for offering in page["InstanceTypeOfferings"])


def _no_capacity(aws: Aws, box: schema.Box, zone: str | None, refused: list[str]) -> Problem:
    what = f"no {box.instance_type} is available now ({'; '.join(refused)})"
    if zone:
        way_out = _relocation_commands(aws, box, zone)
        return Problem(what, f"try again later, or move the volume out of {zone}:\n{way_out}", reason="refused")
    return Problem(what, "try again later, or take another type: `box.instance_type=g5.2xlarge`", reason="refused")


def _quota(aws: Aws, box: schema.Box, error: Exception) -> Problem:
    hint = "`inv doctor` prints the command that asks AWS for more; `aws ec2 describe-instances` shows what else runs"
    return Problem(f"the account's vCPU quota leaves no room for a {box.instance_type}: {error}", hint, reason="refused")


def _relocation_commands(aws: Aws, box: schema.Box, zone: str, instance_id: str = "") -> str:
    """The commands, one a line, that take the volume to another zone by a copy: a volume itself can leave none."""
    from remote.aws import volume  # which knows boxes, which know capacity

    old, tags = volume.id_and_tags(aws, box.name)
    other = next((candidate for candidate in _zones(aws, box) if candidate != zone), zone)
    mine = f"--owner-ids self --filters Name=tag:{volume.BOX},Values={box.name}"
    newest = f"aws ec2 describe-snapshots {mine} --query 'max_by(Snapshots, &StartTime).SnapshotId' --output text"
    words = ",".join(f"{{Key={key},Value='{value}'}}" for key, value in tags.items())
    tagged = f'--tag-specifications "ResourceType=%s,Tags=[{words}]"'
    options = f"--availability-zone {other} --volume-type {box.disk_type} --encrypted --snapshot-id $({newest})"
    lines = [
        f"aws ec2 create-snapshot --volume-id {old} {tagged % 'snapshot'}",
        f"aws ec2 wait snapshot-completed {mine}",
        f"aws ec2 create-volume {options} {tagged % 'volume'}",
        *_termination_commands(aws, instance_id),
        f"aws ec2 wait volume-available --volume-ids {old}",
        f"aws ec2 delete-volume --volume-id {old}",
        "inv up",
    ]
    return with_region("\n".join(f"`{line}`" for line in lines), aws.cloud.region)


def _termination_commands(aws: Aws, instance_id: str) -> list[str]:
    if not instance_id:
        return []
    request = describe.instance(aws, instance_id).get("SpotInstanceRequestId")
    spot = [f"aws ec2 cancel-spot-instance-requests --spot-instance-request-ids {request}"] if request else []
    return [*spot, f"aws ec2 terminate-instances --instance-ids {instance_id}"]
