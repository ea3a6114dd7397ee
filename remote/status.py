"""The box and the runs as AWS and S3 know them now, asked side by side."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from conf import schema
from remote import box, lock, runs, switch, volume
from remote.aws import Aws
from remote.store import Store

SHOWN = 10  # newest runs


def text(aws: Aws, run: schema.Run) -> str:
    """Box, switches, volume, lock and the newest runs."""
    store, name = Store(aws), run.box.name
    with ThreadPoolExecutor(8) as pool:
        about_box = pool.submit(_box, aws, store, name)
        disk = pool.submit(volume.describe, aws, name)
        holder = pool.submit(lock.holder, aws, name)
        listing = pool.submit(runs.listing, store).result()
        states = list(pool.map(lambda run_id: runs.state(store, run_id), list(listing)[-SHOWN:]))
        parts = [about_box.result(), disk.result(), holder.result() and f"locked by {holder.result()}", _runs(states, listing)]
    return "\n".join(part for part in parts if part)


def _box(aws: Aws, store: Store, name: str) -> str:
    found = box.find(aws, name)
    if found is None:
        return f"box {name}: none; `inv up` starts one"
    lines = [f"box {name}: {found.id} {found.instance_type} {found.zone} {found.state}"]
    due, report = switch.look(aws, found.id), last_report(store, found.id)
    if found.state == "running":
        lines.append(_own_switch(report, found.launched))
        lines.append(
            f"  from outside AWS stops it at {due:%Y-%m-%dT%H:%M:%SZ}" if due else "  nothing stops it from outside; `inv up` arms that"
        )
    elif found.stopped_because:
        lines.append(f"  it stopped itself: {found.stopped_because}")
    return "\n".join(lines)


def _own_switch(report: dict | None, launched: datetime) -> str:
    """What the box's supervisor last said of itself; it says so once a minute."""
    if report is None or datetime.fromisoformat(report["seen"]) < launched:
        return "  its supervisor has not reported yet; `inv up` starts it"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(report["seen"])).total_seconds()
    doing = f"busy with {report['run']}" if report["run"] else f"idle for {report['idle'] / 60:.0f} of {report['idle_limit'] / 60:.0f} min"
    quiet = "; that is long: `inv up` looks after it" if seconds > 300 else ""
    return f"  {doing}, stops itself in {report['life_left'] / 3600:.1f} h at the latest, as it said {seconds:.0f} s ago{quiet}"


def last_report(store: Store, instance_id: str) -> dict | None:
    """The newest report of the box's supervisor."""
    names = sorted(store.names(f"boxes/{instance_id}/"))
    return json.loads(store.get(names[-1])) if names else None


def _runs(states: list[runs.State], listing: dict[str, set[str]]) -> str:
    if not states:
        return "runs: none; `inv train` starts one"
    table = Table("run", "phase", "since", "last sign of life", "published", box=None, pad_edge=False)
    for state in states:
        reason = f" ({state.reason})" if state.reason else ""
        published = "yes" if "published.json" in listing[state.run_id] else ""
        table.add_row(state.run_id, state.phase + reason, state.since, state.heartbeat, published)
    page = io.StringIO()
    Console(file=page, width=140, highlight=False).print(table)
    return page.getvalue().rstrip()
