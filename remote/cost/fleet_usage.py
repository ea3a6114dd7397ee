"""What a fleet's instances have cost, each by the second: its type, its start, its end, and the price of its zone in between.

EC2 shows an instance for about an hour after its end, and the log of ends keeps no type and no tag. So each instance is on record in S3,
`fleet/<instance>.json`: whoever runs on it writes that down at its start, and whoever asks for the costs adds its end.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from remote.aws import describe, pricing, s3
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.aws.tags import FLEET
from remote.runs import runs

UNDER = "fleet/"
FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MINIMUM_BILLED = 60  # seconds: what starts costs a minute at least
GONE = ("shutting-down", "terminated")


@dataclass(frozen=True)
class FleetInstance:
    instance: str
    instance_type: str
    zone: str
    spot: bool
    launched: str
    ended: str | None = None
    there: bool = False  # EC2 shows it, and it has not ended

    @property
    def seconds(self) -> float | None:
        """How long it is paid for; None where nobody knows when it ended."""
        end = datetime.now(UTC) if self.there else self.ended and s3.parse_time(self.ended)
        return max((end - s3.parse_time(self.launched)).total_seconds(), MINIMUM_BILLED) if end else None

    @property
    def words(self) -> str:
        market = f"spot in {self.zone}" if self.spot else "on demand"
        return f"{self.instance} {self.instance_type} {market} from {self.launched}{', running' if self.there else ''}"


def usage(aws: Aws) -> list[FleetInstance]:
    """Every instance that the stack's fleet has had, the oldest first."""
    store = Store(aws)
    recorded = {one.instance: one for one in _records(store)}
    known = recorded | {one.instance: one for one in _shown_by_ec2(aws, recorded)}
    open_ended = [one for one in known.values() if not one.ended and not one.there]
    ends = _ends(aws, min(s3.parse_time(one.launched) for one in open_ended)) if open_ended else {}
    known |= {one.instance: replace(one, ended=ends[one.instance]) for one in open_ended if one.instance in ends}
    for one in known.values():
        if (one.ended or one.instance not in recorded) and one != recorded.get(one.instance):
            _write(store, one)
    return sorted(known.values(), key=lambda one: one.launched)


def cost(aws: Aws, one: FleetInstance) -> tuple[float | None, float | None]:
    """USD of it until now and USD an hour; None where nobody says."""
    seconds = one.seconds
    if seconds is None:
        return None, None
    start = s3.parse_time(one.launched)
    end = start + timedelta(seconds=seconds)
    hourly = _spot_rate(aws, one, start, end) if one.spot else pricing.per_hour(aws, one.instance_type)[0]
    return None if hourly is None else seconds / 3600 * hourly, hourly


def root_disk(aws: Aws) -> tuple[int, str] | None:
    """Size and type of an instance's root disk, as the fleet's launch template has it; None where there is none."""
    ec2 = aws.client("ec2")
    try:
        answer = ec2.describe_launch_template_versions(LaunchTemplateName=f"{aws.cloud.own}-fleet", Versions=["$Latest"])
        disk = answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"]
    except (ec2.exceptions.ClientError, LookupError):
        return None
    return disk["VolumeSize"], disk["VolumeType"]


def _records(store: Store) -> Iterator[FleetInstance]:
    for name in store.names(UNDER):
        with runs.skip_unreadable(store.url(name)):
            yield _read(store.json(name) or {})


def _read(known: dict) -> FleetInstance:
    name, kind, zone, launched = (s3.check_text(known[key]) for key in ("instance", "instance_type", "zone", "launched"))
    ended = s3.check_text(known["ended"]) if known.get("ended") else None
    for when in filter(None, (launched, ended)):
        s3.parse_time(when)
    return FleetInstance(name, kind, zone, bool(known["spot"]), launched, ended)


def _write(store: Store, one: FleetInstance) -> None:
    body = {key: value for key, value in asdict(one).items() if key != "there" and value is not None}
    store.put(f"{UNDER}{one.instance}.json", json.dumps(body).encode())


def _shown_by_ec2(aws: Aws, recorded: dict[str, FleetInstance]) -> Iterator[FleetInstance]:
    for each in describe.instances(aws, {f"tag:{FLEET}": [aws.cloud.own]}):
        there = each["State"]["Name"] not in GONE
        spot, zone = each.get("InstanceLifecycle") == "spot", each["Placement"]["AvailabilityZone"]
        known = recorded.get(each["InstanceId"])
        yield replace(
            known or FleetInstance(each["InstanceId"], each["InstanceType"], zone, spot, each["LaunchTime"].strftime(FORMAT)), there=there
        )


def _ends(aws: Aws, since: datetime) -> dict[str, str]:
    """When each instance of the account ended, as EventBridge has written it down; the first word counts: from then on it costs nothing."""
    logs = aws.client("logs")
    group = f"/aws/events/{aws.cloud.own}/fleet-ends"
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=int(since.timestamp() * 1000))
    ends: dict[str, str] = {}
    try:
        for page in pages:
            for event in page["events"]:
                with runs.skip_unreadable(group):
                    known = json.loads(event["message"])
                    instance, when = known["detail"]["instance-id"], s3.check_text(known["time"])
                    ends[instance] = min(when, ends.get(instance, when))
    except logs.exceptions.ResourceNotFoundException:
        pass  # the stack has no fleet any more
    return ends


def _spot_rate(aws: Aws, one: FleetInstance, start: datetime, end: datetime) -> float | None:
    """USD an hour on the average, by the prices of its zone in that time. AWS tells those of 90 days."""
    from botocore.exceptions import BotoCoreError, ClientError

    request = {"InstanceTypes": [one.instance_type], "AvailabilityZone": one.zone, "ProductDescriptions": ["Linux/UNIX"]}
    try:
        pages = aws.client("ec2").get_paginator("describe_spot_price_history").paginate(**request, StartTime=start, EndTime=end)
        points = sorted((each["Timestamp"], float(each["SpotPrice"])) for page in pages for each in page["SpotPriceHistory"])
    except (ClientError, BotoCoreError):
        return None
    if not points:
        return None
    # The first price held before the instance began: AWS tells that one, too.
    moments = [start, *(max(when, start) for when, _ in points[1:]), end]
    paid = sum((moments[index + 1] - moments[index]).total_seconds() * usd for index, (_, usd) in enumerate(points))
    return paid / (end - start).total_seconds()
