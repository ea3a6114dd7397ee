"""How long each start of a box is paid for, from what is on record of it in S3: `up` and `down` write it down, its supervisor reports."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from remote.aws import instance, instance_history, launch, s3
from remote.aws.s3 import Store
from remote.runs import runs

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MINIMUM_BILLED = 60  # seconds: what starts costs a minute at least
UNATTENDED = timedelta(minutes=launch.UNATTENDED)
FOREVER = datetime.max.replace(tzinfo=UTC)

Record = TypeVar("Record")


@dataclass(frozen=True)
class BoxUsage:
    """A box from one of its starts to the stop after it, or to now."""

    instance: str
    started: str
    seconds: float
    run: str  # what it was last about, if anything
    running: bool
    instance_type: str  # empty: nobody knows
    owner: str | None = None  # None: it was started before starts had owners


@dataclass(frozen=True)
class SupervisorReport:
    """A supervisor's report: when the box started, and when it last reported."""

    instance: str
    begun: datetime
    seen: datetime
    ran: str


def usage(store: Store, box: instance.Instance | None) -> list[BoxUsage]:
    """Every start of every box of this prefix, oldest first; what runs now runs until now."""
    starts, reports = _starts(store, box), _reports(store)
    stretches = []
    for uptime in starts:
        later = [each.launched for each in starts if each.instance == uptime.instance and each.launched > uptime.launched]
        own_reports = [
            each for each in reports if each.instance == uptime.instance and uptime.launched <= each.begun < min(later, default=FOREVER)
        ]
        reports = [each for each in reports if each not in own_reports]
        stretches.append(_usage(uptime, own_reports, box))
    types = {uptime.instance: uptime.instance_type for uptime in starts}
    stretches += [_usage_of_report(each, types.get(each.instance, "")) for each in reports]  # of a box that an older `up` has started
    return sorted(stretches, key=lambda one: one.started)


def _usage(uptime: instance_history.Uptime, reports: list[SupervisorReport], box: instance.Instance | None) -> BoxUsage:
    running = box is not None and box.state == "running" and (box.id, box.launched) == (uptime.instance, uptime.launched)
    now = datetime.now(UTC)
    # AWS names no moment where a box turned itself off: a new one does that before it has a supervisor that reports.
    ended = uptime.stopped or max((each.seen for each in reports), default=min(uptime.launched + UNATTENDED, now))
    seconds = ((now if running else ended) - uptime.launched).total_seconds()
    ran = reports[-1].ran if reports else ""
    return BoxUsage(
        uptime.instance,
        uptime.launched.strftime(TIME_FORMAT),
        max(seconds, MINIMUM_BILLED),
        ran,
        running,
        uptime.instance_type,
        uptime.owner,
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
