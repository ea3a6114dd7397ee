"""What was paid for, from what is on record: each start of a box by the second, disks since they were made, S3 as it is now.

A price comes from AWS's Price List or is unknown; a sum with an unknown part is unknown, too.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from rich.table import Table

from conf import schema
from conf.process.screen import screen
from remote.aws import instance, instance_history, launch, pricing, s3
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.cost import fleet_usage
from remote.runs import manifest, runs

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MINIMUM_BILLED = 60  # seconds: what starts costs a minute at least
UNATTENDED = timedelta(minutes=launch.UNATTENDED)
FOREVER = datetime.max.replace(tzinfo=UTC)
MONTH = 730 * 3600  # seconds; AWS bills disks by the second of a month


Record = TypeVar("Record")


@dataclass(frozen=True)
class Line:
    what: str
    amount: str
    rate: str
    dollars: float | None


def show(aws: Aws, run: schema.Run) -> None:
    """Print the ledger."""
    store = Store(aws)
    box = instance.find(aws, run.box.name)
    boxes, source = _boxes(aws, store, box, run.box.instance_types[0])
    lines = [*boxes, *_disks(aws, run), *_fleet(aws)]
    table = Table("what", "how much", "rate", "USD", box=None, pad_edge=False)
    for line in lines:
        table.add_row(line.what, line.amount, line.rate, _money(line.dollars))
    known = [line.dollars for line in lines if line.dollars is not None]
    table.add_row("until now", "", "", _money(sum(known) if len(known) == len(lines) else None))
    bucket = _bucket(aws, store)
    table.add_row(bucket.what, bucket.amount, bucket.rate, _money(bucket.dollars))
    screen.print(table)
    screen.print(_runs(store))
    screen.print(f"prices: {source or 'unknown'}; on demand, before tax and discounts. Traffic, requests and snapshots are not in it.")


@dataclass(frozen=True)
class BoxUsage:
    """A box from one of its starts to the stop after it, or to now."""

    instance: str
    started: str
    seconds: float
    run: str  # what it was last about, if anything
    running: bool
    instance_type: str  # empty: nobody knows


@dataclass(frozen=True)
class SupervisorReport:
    """A supervisor's report: when the box started, and when it last reported."""

    instance: str
    begun: datetime
    seen: datetime
    ran: str


def box_usage(store: Store, box: instance.Instance | None) -> list[BoxUsage]:
    """Every start of every box of this prefix, oldest first; what runs now runs until now."""
    starts, reports = _starts(store, box), _reports(store)
    usage = []
    for uptime in starts:
        later = [each.launched for each in starts if each.instance == uptime.instance and each.launched > uptime.launched]
        own_reports = [
            each for each in reports if each.instance == uptime.instance and uptime.launched <= each.begun < min(later, default=FOREVER)
        ]
        reports = [each for each in reports if each not in own_reports]
        usage.append(_usage(uptime, own_reports, box))
    types = {uptime.instance: uptime.instance_type for uptime in starts}
    usage += [_usage_of_report(each, types.get(each.instance, "")) for each in reports]  # of a box that an older `up` has started
    return sorted(usage, key=lambda one: one.started)


def _usage(uptime: instance_history.Uptime, reports: list[SupervisorReport], box: instance.Instance | None) -> BoxUsage:
    running = box is not None and box.state == "running" and (box.id, box.launched) == (uptime.instance, uptime.launched)
    now = datetime.now(UTC)
    # AWS names no moment where a box turned itself off: a new one does that before it has a supervisor that reports.
    ended = uptime.stopped or max((each.seen for each in reports), default=min(uptime.launched + UNATTENDED, now))
    seconds = ((now if running else ended) - uptime.launched).total_seconds()
    ran = reports[-1].ran if reports else ""
    return BoxUsage(
        uptime.instance, uptime.launched.strftime(TIME_FORMAT), max(seconds, MINIMUM_BILLED), ran, running, uptime.instance_type
    )


def _usage_of_report(report: SupervisorReport, kind: str) -> BoxUsage:
    return BoxUsage(
        report.instance,
        report.begun.strftime(TIME_FORMAT),
        max((report.seen - report.begun).total_seconds(), MINIMUM_BILLED),
        report.ran,
        False,
        kind,
    )


def _starts(store: Store, box: instance.Instance | None) -> list[instance_history.Uptime]:
    """Every start that was written down; of the box that is there now, AWS says it itself."""
    uptimes = {(uptime.instance, uptime.launched): uptime for uptime in _records(store, "lives/", instance_history.read)}
    if box:
        uptimes[box.id, box.launched] = box.uptime
    return sorted(uptimes.values(), key=lambda one: one.launched)


def _reports(store: Store) -> list[SupervisorReport]:
    def read(record: dict) -> SupervisorReport:
        return SupervisorReport(
            s3.check_text(record["instance"]), s3.parse_time(record["started"]), s3.parse_time(record["seen"]), s3.check_text(record["ran"])
        )

    return sorted(_records(store, "boxes/", read), key=lambda one: one.begun)


def _records(store: Store, under: str, read: Callable[[dict], Record]) -> list[Record]:
    """What is on record there, without what cannot be read."""

    def one(name: str) -> Record | None:
        with runs.skip_unreadable(store.url(name)):
            return read(store.json(name) or {})
        return None

    with ThreadPoolExecutor(8) as pool:
        return [record for record in pool.map(one, list(store.names(under))) if record]


def _boxes(aws: Aws, store: Store, box: instance.Instance | None, otherwise: str) -> tuple[list[Line], str | None]:
    """A line for each start, at the price of the type that the box had; and where the prices are from."""
    rates: dict[str, tuple[float | None, str | None]] = {}
    lines = []
    for usage in box_usage(store, box):
        kind = usage.instance_type or otherwise
        rates[kind] = hourly, _ = rates.get(kind) or pricing.per_hour(aws, kind)
        what = f"{usage.instance} {kind} from {usage.started}" + (", running" if usage.running else "")
        lines.append(Line(what, f"{usage.seconds:.0f} s", _rate(hourly, "hour"), None if hourly is None else usage.seconds / 3600 * hourly))
    return lines, next((source for _, source in rates.values() if source), None) or pricing.per_hour(aws, otherwise)[1]


def _disks(aws: Aws, run: schema.Run) -> list[Line]:
    """Each disk of the box since it was made: it is paid for with the box off, too."""
    mine = [{"Name": f"tag:{instance.BOX}", "Values": [run.box.name]}]
    ec2 = aws.client("ec2")
    disks = {disk["VolumeId"]: disk for disk in ec2.describe_volumes(Filters=mine)["Volumes"]}
    if box := instance.find(aws, run.box.name):
        attached = [{"Name": "attachment.instance-id", "Values": [box.id]}]
        disks |= {disk["VolumeId"]: disk for disk in ec2.describe_volumes(Filters=attached)["Volumes"]}
    return [_disk(aws, disk) for disk in disks.values()]


def _disk(aws: Aws, disk: dict) -> Line:
    monthly, _ = pricing.disk_month(aws, disk["VolumeType"])
    seconds = (datetime.now(UTC) - disk["CreateTime"]).total_seconds()
    what = f"{disk['VolumeId']}, {disk['Size']} GB {disk['VolumeType']}"
    dollars = None if monthly is None else seconds / MONTH * disk["Size"] * monthly
    return Line(what, f"{seconds:.0f} s", _rate(monthly, "GB and month"), dollars)


def _fleet(aws: Aws) -> list[Line]:
    """A line for each instance that the fleet has had, and one for their root disks, which live as long."""
    instances = fleet_usage.usage(aws)
    lines = []
    for one in instances:
        dollars, hourly = fleet_usage.cost(aws, one)
        lines.append(Line(one.words, "unknown" if one.seconds is None else f"{one.seconds:.0f} s", _rate(hourly, "hour"), dollars))
    if instances and (disk := fleet_usage.root_disk(aws)):
        size, kind = disk
        monthly, _ = pricing.disk_month(aws, kind)
        seconds = sum(one.seconds or 0 for one in instances)
        known = monthly is not None and all(one.seconds is not None for one in instances)
        what = f"root disks of the fleet's instances, {size} GB {kind} each"
        lines.append(
            Line(what, f"{seconds:.0f} s", _rate(monthly, "GB and month"), seconds / MONTH * size * (monthly or 0) if known else None)
        )
    return lines


def _bucket(aws: Aws, store: Store) -> Line:
    monthly, _ = pricing.bucket_month(aws)
    size = sum(store.names("").values()) / 1e9
    return Line(
        f"{store.url('')} as it is now",
        f"{size:.3f} GB, a month",
        _rate(monthly, "GB and month"),
        None if monthly is None else size * monthly,
    )


def _runs(store: Store) -> Table:
    table = Table("run", "seconds", "USD while it was made", box=None, pad_edge=False)
    for run_id, files in runs.listing(store).items():
        if "manifest.json" in files:
            with runs.skip_unreadable(f"run `{run_id}`"):
                cost = (manifest.read(store, run_id) or {}).get("price") or {}
                table.add_row(run_id, f"{cost.get('seconds') or 0:.0f}", _money(cost.get("total")))
    return table


def _rate(dollars: float | None, unit: str) -> str:
    return "unknown" if dollars is None else f"{dollars:.4f} a {unit}"


def _money(dollars: float | None) -> str:
    return "unknown" if dollars is None else f"{dollars:.4f}"
