"""What was paid for, from what is on record: each start of a box by the second, disks since they were made, S3 as it is now.

A price comes from AWS's Price List or is unknown; a sum with an unknown part is unknown, too.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from conf import schema
from remote import box, price, runs
from remote.aws import Aws
from remote.store import Store

MONTH = 730 * 3600  # seconds; AWS bills disks by the second of a month


@dataclass(frozen=True)
class Line:
    what: str
    amount: str
    rate: str
    dollars: float | None


def show(aws: Aws, run: schema.Run) -> None:
    """Print the ledger."""
    store = Store(aws)
    found = box.find(aws, run.box.name)
    hourly, source = price.per_hour(aws, found.instance_type if found else run.box.instance_type)
    lines = [*_boxes(store, found, hourly), *_disks(aws, run)]
    table = Table("what", "how much", "rate", "USD", box=None, pad_edge=False)
    for line in lines:
        table.add_row(line.what, line.amount, line.rate, _money(line.dollars))
    known = [line.dollars for line in lines]
    table.add_row("until now", "", "", _money(None if None in known else sum(known)))
    bucket = _bucket(aws, store)
    table.add_row(bucket.what, bucket.amount, bucket.rate, _money(bucket.dollars))
    console = Console(width=140, highlight=False)
    console.print(table)
    console.print(_runs(store))
    console.print(f"prices: {source or 'unknown'}; on demand, before tax and discounts. Traffic, requests and snapshots are not in it.")


@dataclass(frozen=True)
class Stretch:
    """A box from one of its starts to the stop after it, or to now."""

    instance: str
    started: str
    seconds: float
    run: str  # what it was last about, if anything
    running: bool


def stretches(store: Store, found: box.Found | None) -> list[Stretch]:
    """Every start of a box, from its first to its last report; what runs now runs until now."""
    names = list(store.names("boxes/"))
    with ThreadPoolExecutor(8) as pool:
        reports = sorted((json.loads(body) for body in pool.map(store.get, names)), key=lambda report: report["started"])
    made = []
    for report in reports:
        begun, seen = (datetime.fromisoformat(report[key]) for key in ("started", "seen"))
        runs_on = found is not None and found.state == "running" and found.id == report["instance"] and report is reports[-1]
        seconds = ((datetime.now(UTC) if runs_on else seen) - begun).total_seconds()
        made.append(Stretch(report["instance"], report["started"], seconds, report["ran"], runs_on))
    return made


def _boxes(store: Store, found: box.Found | None, hourly: float | None) -> list[Line]:
    lines = []
    for one in stretches(store, found):
        what = f"{one.instance} from {one.started}" + (", running" if one.running else "")
        lines.append(Line(what, f"{one.seconds:.0f} s", _rate(hourly, "hour"), None if hourly is None else one.seconds / 3600 * hourly))
    return lines


def _disks(aws: Aws, run: schema.Run) -> list[Line]:
    """Each disk of the box since it was made: it is paid for with the box off, too."""
    mine = [{"Name": f"tag:{box.BOX}", "Values": [run.box.name]}]
    ec2 = aws.client("ec2")
    disks = {disk["VolumeId"]: disk for disk in ec2.describe_volumes(Filters=mine)["Volumes"]}
    if found := box.find(aws, run.box.name):
        attached = [{"Name": "attachment.instance-id", "Values": [found.id]}]
        disks |= {disk["VolumeId"]: disk for disk in ec2.describe_volumes(Filters=attached)["Volumes"]}
    return [_disk(aws, disk) for disk in disks.values()]


def _disk(aws: Aws, disk: dict) -> Line:
    monthly, _ = price.disk_month(aws, disk["VolumeType"])
    seconds = (datetime.now(UTC) - disk["CreateTime"]).total_seconds()
    what = f"{disk['VolumeId']}, {disk['Size']} GB {disk['VolumeType']}"
    dollars = None if monthly is None else seconds / MONTH * disk["Size"] * monthly
    return Line(what, f"{seconds:.0f} s", _rate(monthly, "GB and month"), dollars)


def _bucket(aws: Aws, store: Store) -> Line:
    monthly, _ = price.bucket_month(aws)
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
            entry = runs.manifest(store, run_id)
            cost = entry.get("price") or {}
            table.add_row(run_id, f"{cost.get('seconds') or 0:.0f}", _money(cost.get("total")))
    return table


def _rate(dollars: float | None, unit: str) -> str:
    return "unknown" if dollars is None else f"{dollars:.4f} a {unit}"


def _money(dollars: float | None) -> str:
    return "unknown" if dollars is None else f"{dollars:.4f}"
