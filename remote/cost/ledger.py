"""What was paid for, from what is on record: each start of a box by the second, disks since they were made, S3 as it is now.

A price comes from AWS's Price List or is unknown; a sum with an unknown part is unknown, too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table

from conf import schema
from conf.process.screen import screen
from remote.aws import instance, pricing, s3
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.aws.tags import OWNER, tags_of
from remote.cost import box_usage, fleet_usage, shares
from remote.cost.shares import Use
from remote.runs import manifest, runs

MONTH = 730 * 3600  # seconds; AWS bills disks by the second of a month


@dataclass(frozen=True)
class Line:
    what: str
    amount: str
    rate: str
    uses: tuple[Use, ...]  # what was paid for

    @property
    def dollars(self) -> float | None:
        known = [use.dollars for use in self.uses if use.dollars is not None]
        return sum(known) if len(known) == len(self.uses) else None


def show(aws: Aws, run: schema.Run, by: str | None = None) -> None:
    """Print the ledger; `by` person, run or day its sums alone."""
    store = Store(aws)
    box = instance.find(aws, run.box.name)
    boxes, source = _boxes(aws, store, box, run.box.instance_types[0])
    lines = [*boxes, *_disks(aws, run), *_fleet(aws)]
    known = [line.dollars for line in lines if line.dollars is not None]
    total = _money(sum(known) if len(known) == len(lines) else None)
    prices = f"prices: {source or 'unknown'}; on demand, before tax and discounts. Traffic, requests and snapshots are not in it."
    if run.box.reservation:
        prices += " A capacity reservation costs the same whether it is used or not: its hours without a box are not in it."
    if by:
        screen.print(_sums(store, lines, by, total))
        screen.print(f"{prices} Nor is S3. Days are UTC's.")
        return
    table = Table("what", "how much", "rate", "USD", box=None, pad_edge=False)
    for line in lines:
        table.add_row(line.what, line.amount, line.rate, _money(line.dollars))
    table.add_row("until now", "", "", total)
    bucket = _bucket(aws, store)
    table.add_row(bucket.what, bucket.amount, bucket.rate, _money(bucket.dollars))
    screen.print(table)
    screen.print(_runs(store))
    screen.print(prices)


def _sums(store: Store, lines: list[Line], by: str, total: str) -> Table:
    table = Table(by, "USD", box=None, pad_edge=False)
    works = [] if by == "day" else shares.works(store)
    for name, each in shares.sums((use for line in lines for use in line.uses), works, by).items():
        table.add_row(name, _money(each.dollars))
    table.add_row("until now", total)
    return table


def _boxes(aws: Aws, store: Store, box: instance.Instance | None, otherwise: str) -> tuple[list[Line], str | None]:
    """A line for each start, at the price of the type that the box had; and where the prices are from."""
    rates: dict[str, tuple[float | None, str | None]] = {}
    lines = []
    for usage in box_usage.usage(store, box):
        kind = usage.instance_type or otherwise
        rates[kind] = hourly, _ = rates.get(kind) or pricing.per_hour(aws, kind)
        what = f"{usage.instance} {kind} from {usage.started}" + (", running" if usage.running else "")
        dollars = None if hourly is None else usage.seconds / 3600 * hourly
        use = Use(s3.parse_time(usage.started), usage.seconds, dollars, usage.instance, usage.owner, usage.run)
        lines.append(Line(what, f"{usage.seconds:.0f} s", _rate(hourly, "hour"), (use,)))
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
    use = Use(disk["CreateTime"], seconds, dollars, owner=tags_of(disk).get(OWNER))
    return Line(what, f"{seconds:.0f} s", _rate(monthly, "GB and month"), (use,))


def _fleet(aws: Aws) -> list[Line]:
    """A line for each instance that the fleet has had, and one for their root disks, which live as long."""
    instances = fleet_usage.usage(aws)
    lines = []
    for one in instances:
        dollars, hourly = fleet_usage.cost(aws, one)
        use = Use(s3.parse_time(one.launched), one.seconds or 0, dollars, one.instance)
        lines.append(Line(one.words, "unknown" if one.seconds is None else f"{one.seconds:.0f} s", _rate(hourly, "hour"), (use,)))
    if instances and (disk := fleet_usage.root_disk(aws)):
        size, kind = disk
        monthly, _ = pricing.disk_month(aws, kind)

        def use_of(one: fleet_usage.FleetInstance) -> Use:
            dollars = None if monthly is None or one.seconds is None else one.seconds / MONTH * size * monthly
            return Use(s3.parse_time(one.launched), one.seconds or 0, dollars, one.instance)

        uses = tuple(map(use_of, instances))
        what = f"root disks of the fleet's instances, {size} GB {kind} each"
        lines.append(Line(what, f"{sum(use.seconds for use in uses):.0f} s", _rate(monthly, "GB and month"), uses))
    return lines


def _bucket(aws: Aws, store: Store) -> Line:
    monthly, _ = pricing.bucket_month(aws)
    size = sum(store.names("").values()) / 1e9
    month = Use(datetime.now(UTC), MONTH, None if monthly is None else size * monthly)
    return Line(f"{store.url('')} as it is now", f"{size:.3f} GB, a month", _rate(monthly, "GB and month"), (month,))


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
