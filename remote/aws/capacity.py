"""Where a box can be launched: each type and zone in turn, spot first if wanted, and what to do when nowhere has capacity."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import describe, gpu, pricing
from remote.aws.session import Aws, retry_until_visible, with_region

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

# Another zone or market may have it.
NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "Unsupported",
    "InsufficientHostCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "ReservationCapacityExceeded",
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


class NoCapacity(Problem):
    """AWS has no room now, which may change any minute."""


def launch_where_available(aws: Aws, box: schema.Box, zone: str | None, launch: Callable[[str, str, dict], str]) -> str:
    """The id that `launch(type, zone, market)` answers at the first place that has room; `zone` is where the volume is."""
    from botocore.exceptions import ClientError

    refused: list[str] = []
    closed: dict[tuple[str, bool], Problem] = {}  # types that the account may not have, on demand or as spot
    for kind, where, market in _places(aws, box, zone):
        if (kind, bool(market)) in closed:
            continue
        try:
            return retry_until_visible(functools.partial(launch, kind, where, market), NEW_PROFILE, "the box's new role")
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if problem := _refused_to_account(aws, kind, error):
                closed[kind, bool(market)] = problem
                reason = code
            elif code in NO_CAPACITY or NO_SUBNET in message:
                reason = NO_SUBNET.lower() if NO_SUBNET in message else code
            else:
                raise
            place = f"{where}{', spot' if market else ''}"
            screen.note(f"  no {kind} in {place}: {reason}")
            refused.append(f"{place}: {reason}" if len(box.instance_types) == 1 else f"{kind} in {place}: {reason}")
    if len(closed) == len(refused):
        raise next(iter(closed.values()))
    raise _no_capacity(aws, box, zone, refused)


def _refused_to_account(aws: Aws, kind: str, error: "ClientError") -> Problem | None:
    """Why this account may not have the type, wherever; None where it may. An account that may have nothing raises its Problem."""
    if error.response["Error"]["Code"] == "PendingVerification":
        hint = "wait for AWS's mail, four hours at most, then `inv up`; after that, write to aws-verification@amazon.com"
        what = f"AWS is still verifying this account and launches nothing for it in {aws.cloud.region}"
        raise Problem(what, hint, "refused") from error
    if error.response["Error"]["Code"] == "VcpuLimitExceeded":
        return _quota(kind, error)
    return _free_plan(aws, kind) if NOT_FREE_TIER in error.response["Error"].get("Message", "") else None


def _free_plan(aws: Aws, kind: str) -> Problem:
    """Accounts made since July 2025 may be on AWS's Free plan."""
    hint = f"{UPGRADE}: your remaining credits stay, and AWS charges what goes beyond them; then `inv up`"
    what = f"this account is on AWS's Free plan, which launches no {kind}"
    return Problem(what, with_region(hint, aws.cloud.region), reason="refused")


def start(aws: Aws, box: schema.Box, instance_id: str, kind: str, zone: str) -> None:
    """The stopped box, of the type `kind`, starts again; where its zone has no room for it, a Problem with the way out."""
    from botocore.exceptions import ClientError

    try:
        aws.client("ec2").start_instances(InstanceIds=[instance_id])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if problem := _refused_to_account(aws, kind, error):
            raise problem from error
        if code == "IncorrectSpotRequestState":
            raise _spot_reclaimed(aws, instance_id) from error
        if code not in NO_CAPACITY:
            raise
        if code == "ReservationCapacityExceeded":
            free = f"aws ec2 modify-instance-capacity-reservation-attributes --region {aws.cloud.region} --instance-id {instance_id} "
            free += "--capacity-reservation-specification CapacityReservationPreference=none"
            what = f"nothing of the capacity reservation that {instance_id} was launched into is free now"
            hint = f"`inv up --wait 2h` waits for it; or start it outside of it: `{free}`, then `inv up`"
            raise NoCapacity(what, hint, reason="refused") from error
        raise NoCapacity(
            f"{zone} has no {kind} for {instance_id} now, and its volume is there",
            f"try again later, `inv up --wait 2h` goes on trying, or move the volume to another zone:\n"
            f"{_relocation_commands(aws, box, kind, zone, instance_id)}",
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


def _places(aws: Aws, box: schema.Box, zone: str | None) -> Iterator[tuple[str, str, dict]]:
    """Every type and zone that offers it, or the volume's zone alone; spot everywhere before anything else. A reservation is one place."""
    if box.reservation:
        yield (*_reserved(aws, box, box.reservation, zone), {})
        return
    offered = {kind: zones(aws, kind) for kind in box.instance_types}
    if not any(offered.values()):
        what = f"{aws.cloud.region} has no {' and no '.join(box.instance_types)}"
        raise Problem(what, "another `box=...` or `cloud.region=...`; `inv doctor` looks", "refused")
    with_gpu = gpu.cards(aws, tuple(box.instance_types)) if box.gpu else offered
    if lacking := [kind for kind in box.instance_types if offered[kind] and kind not in with_gpu]:
        what = f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no GPU, says EC2"
        raise Problem(what, "`inv plan` lists types that have one; `box.gpu=false` trains on the CPU", "refused")
    for market in [SPOT, {}] if box.spot else [{}]:
        for kind in _ordered(aws, box, bool(market)):
            yield from ((kind, one, market) for one in ([zone] if zone and offered[kind] else offered[kind]))


def _reserved(aws: Aws, box: schema.Box, id: str, zone: str | None) -> tuple[str, str]:
    """Type and zone of the reservation; a Problem where nothing can be launched into it.

    EC2, User Guide, "Launch instances into an existing Capacity Reservation": an active one, of which some is left, in the volume's zone.
    """
    shown = f"`aws ec2 describe-capacity-reservations --region {aws.cloud.region} --capacity-reservation-ids {id}` shows it"
    without = "`inv up -- box.reservation=null` launches a box outside of it"
    one = describe.capacity_reservation(aws, id)
    if one is None:
        listed = f"`aws ec2 describe-capacity-reservations --region {aws.cloud.region}` lists those of this region"
        raise Problem(f"there is no capacity reservation {id} in {aws.cloud.region}", f"{listed}; {without}", "refused")
    kind, where, state = one["InstanceType"], one["AvailabilityZone"], one["State"]
    if one.get("ReservationType") == "capacity-block":
        what = f"{id} is a Capacity Block, and a box in one could not be stopped and started"
        raise Problem(what, f"name an On-Demand Capacity Reservation; {without}", "refused")
    if state not in ("active", "pending"):
        raise Problem(f"the capacity reservation {id} ({kind} in {where}) is {state}", f"{shown}; {without}", "refused")
    if one["InstancePlatform"] != "Linux/UNIX":
        raise Problem(f"{id} is for {one['InstancePlatform']}, and the box's image is Linux/UNIX", f"{shown}; {without}", "refused")
    if zone not in (None, where):
        what = f"{id} is in {where}, and the box's volume or subnet is in {zone}"
        raise Problem(what, f"reserve in {zone}; or move the volume:\n{_relocation_commands(aws, box, kind, zone, to=where)}", "refused")
    if box.gpu and not gpu.cards(aws, (kind,)):
        raise Problem(f"{id} is of {kind}, which has no GPU, says EC2", "`box.gpu=false` trains on the CPU", "refused")
    if state == "active" and not one["AvailableInstanceCount"]:
        used = f"all {one['TotalInstanceCount']} of {id} ({kind} in {where}) are in use"
        raise NoCapacity(used, f"{shown}; `inv up --wait 2h` waits for one; {without}", "refused")
    return kind, where


def _ordered(aws: Aws, box: schema.Box, spot: bool) -> list[str]:
    """The types in the order in which they are tried; one without a known price comes last."""
    if box.allocation_strategy is schema.AllocationStrategy.prioritized or len(box.instance_types) == 1:
        return box.instance_types
    prices = pricing.spot(aws, box.instance_types) if spot else {kind: pricing.per_hour(aws, kind)[0] for kind in box.instance_types}
    known = {kind: price for kind, price in prices.items() if price is not None}
    return sorted(box.instance_types, key=lambda kind: known.get(kind, math.inf))


def zones(aws: Aws, kind: str) -> list[str]:
    """Where the region offers the type."""
    request = {"LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": [kind]}]}
    pages = aws.client("ec2").get_paginator("describe_instance_type_offerings").paginate(**request)
    return sorted(offering["Location"] for page in pages for offering in page["InstanceTypeOfferings"])


def _no_capacity(aws: Aws, box: schema.Box, zone: str | None, refused: list[str]) -> NoCapacity:
    if box.reservation:
        what = f"nothing of the capacity reservation {box.reservation} is free now ({'; '.join(refused)})"
        return NoCapacity(what, "`inv up --wait 2h` waits for it; `inv up -- box.reservation=null` launches outside of it", "refused")
    types = box.instance_types
    what = f"no {' and no '.join(types)} is available now ({'; '.join(refused)})"
    wait = "`inv up --wait 2h` goes on trying"
    if zone:
        way_out = _relocation_commands(aws, box, types[0], zone)
        return NoCapacity(what, f"{wait}; or move the volume out of {zone}:\n{way_out}", reason="refused")
    more = f"`inv up -- 'box.instance_type=[{','.join(dict.fromkeys([*types, 'g5.2xlarge', 'g6e.2xlarge']))}]'`"
    return NoCapacity(what, f"{wait}; more types to choose from: {more}", reason="refused")


def _quota(kind: str, error: Exception) -> Problem:
    hint = "`inv doctor` prints the command that asks AWS for more; `aws ec2 describe-instances` shows what else runs"
    return Problem(f"the account's vCPU quota leaves no room for a {kind}: {error}", hint, reason="refused")


def _relocation_commands(aws: Aws, box: schema.Box, kind: str, zone: str, instance_id: str = "", to: str | None = None) -> str:
    """The commands, one a line, that take the volume to another zone by a copy: a volume itself can leave none."""
    from remote.aws import volume  # which knows boxes, which know capacity

    old, tags = volume.id_and_tags(aws, box.name)
    other = to or next((candidate for candidate in zones(aws, kind) if candidate != zone), zone)
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
