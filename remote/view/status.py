"""The box and the runs as AWS and S3 know them now, asked side by side.

What depends on an answer (the schedule of this box, the state of that run) is asked about in the same round where the last answer tells
what it will be about; where that has changed, it is asked again. Only names are taken from then, never a state.
"""

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.table import Table

from conf import schema
from conf.text import visible
from remote.aws import auto_stop, instance, s3, volume
from remote.aws.s3 import Store
from remote.aws.session import MAX_CONNECTIONS, Aws
from remote.runs import fleet, lock, runs

SHOWN = 10  # newest runs


@dataclass
class Prefetch:
    """Answers about things by their names, some of them asked for before anybody knows that they will be wanted."""

    pool: ThreadPoolExecutor
    ask: Callable[[str], Any]
    names: list[str]
    asked: dict[str, Future] = field(init=False)

    def __post_init__(self):
        self.asked = {name: self.pool.submit(self.ask, name) for name in self.names}

    def about(self, names: list[str]) -> list:
        for name in names:
            if name not in self.asked:
                self.asked[name] = self.pool.submit(self.ask, name)
        return [self.asked[name].result() for name in names]


def text(aws: Aws, run: schema.Run, last: dict) -> tuple[str, dict]:
    """Box, switches, volume, lock and the newest runs; and what that was about, which makes the `last` of the next time."""
    store, name = Store(aws), run.box.name
    with ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        pool.submit(lambda: aws.caller)
        box_lookup, disk = pool.submit(instance.find, aws, name), pool.submit(volume.describe, aws, name)
        holder, listing = pool.submit(lock.holder, aws, name), pool.submit(runs.listing, store)
        reported = pool.submit(lambda: sorted(store.names("boxes/")))
        dues = Prefetch(pool, lambda instance: auto_stop.stop_time(aws, instance), last.get("boxes", []))
        reports = Prefetch(pool, lambda place: _report(store, place), last.get("reports", []))
        states = Prefetch(pool, lambda run_id: runs.state(store, run_id), last.get("runs", []))
        shown = runs.with_settings(listing.result())[-SHOWN:]
        box = box_lookup.result()
        boxes = [box.id] if box else []
        newest = [place for place in reported.result() if boxes and place.startswith(f"boxes/{boxes[0]}/")][-1:]
        lines = [_box(name, box, dues.about(boxes), reports.about(newest)), disk.result()]
        about = states.about(shown)
        lines += [f"locked by {holder.result()}" if holder.result() else "", _runs(about, listing.result())]
        lines += fleet.waiting(aws, run, about, store) if run.fleet.engine is schema.Engine.batch else []
    return "\n".join(line for line in lines if line), {"boxes": boxes, "reports": newest, "runs": shown}


def _report(store: Store, place: str) -> dict | None:
    """What the box's supervisor has said of itself; None where it cannot be read."""
    with runs.skip_unreadable(store.url(place)):
        report = store.json(place) or {}
        s3.parse_time(report["seen"]), report["idle"] / 60, report["idle_limit"] / 60, report["life_left"] / 3600, report["run"]
        return report
    return None


def _box(name: str, box: instance.Instance | None, dues: list[datetime | None], reports: list[dict]) -> str:
    if box is None:
        return f"box {name}: none; `inv up` starts one"
    lines = [f"box {name}: {box.id} {box.instance_type} {box.zone} {box.state}"]
    if box.state == "running":
        (due,) = dues
        lines.append(_own_switch(reports[0] if reports else None, box.launched))
        lines.append(
            f"  from outside AWS stops it at {due:%Y-%m-%dT%H:%M:%SZ}" if due else "  nothing stops it from outside; `inv up` arms that"
        )
    elif box.stopped_because:
        lines.append(f"  it stopped itself: {box.stopped_because}")
    return "\n".join(lines)


def _own_switch(report: dict | None, launched: datetime) -> str:
    """What the box's supervisor last said of itself; it says so once a minute."""
    if report is None or datetime.fromisoformat(report["seen"]) < launched:
        return "  its supervisor has not reported yet; `inv up` starts it"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(report["seen"])).total_seconds()
    doing = (
        f"busy with {report['run']}, stops when it is idle"
        if report["run"]
        else f"idle; stops after {report['idle_limit'] / 60:.0f} idle minutes"
    )
    latest = datetime.fromisoformat(report["seen"]) + timedelta(seconds=report["life_left"])
    quiet = f"; it has said nothing for {seconds / 60:.0f} min: `inv up` looks after it" if seconds > 300 else ""
    return f"  {doing}, at the latest {_clock(latest)}{quiet}"


def _clock(moment: datetime) -> str:
    """A time as one reads it, with its day where that is not today."""
    return f"{moment:%H:%M} UTC" if moment.date() == datetime.now(UTC).date() else f"{moment:%Y-%m-%d %H:%M} UTC"


def _runs(states: list[runs.State], listing: dict[str, set[str]]) -> str:
    if not states:
        return "runs: none; `inv train` starts one"
    table = Table("run", "phase", "since", "last sign of life", "published", box=None, pad_edge=False)
    for state in states:
        reason = f" ({state.reason})" if state.reason else ""
        published = "yes" if "published.json" in listing[state.run_id] else ""
        table.add_row(state.run_id, state.phase + reason, state.since, state.heartbeat, published)
    page = io.StringIO()
    visible.console(file=page, width=140).print(table)
    return page.getvalue().rstrip()
