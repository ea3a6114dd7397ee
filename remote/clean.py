"""Removing runs that came to nothing, or are old: listed first, never a running one."""

import sys
from datetime import UTC, datetime, timedelta

from conf.problem import Problem
from remote import ask, box, runs, volume
from remote.aws import Aws
from remote.store import Store


def choose(aws: Aws, days: int | None, yes: bool) -> dict:
    """List the runs that are not finished, or older than `--older-than` days; ask before they are removed."""
    store = Store(aws)
    found = [line for run_id, files in runs.listing(store).items() if (line := _reason(store, run_id, files, days))]
    for run_id, why in found:
        size = sum(store.names(f"runs/{run_id}/").values())
        print(f"  {run_id}  {why}  {size / 1e6:.1f} MB", file=sys.stderr, flush=True)
    if found:
        ask.sure(yes, f"remove {len(found)} runs for good?")
    removed = [run_id for run_id, _ in found]
    return {"removed": " ".join(removed), "kept": " ".join(set(runs.listing(store)) - set(removed)), "count": len(found)}


def remove(aws: Aws, removed: str) -> dict:
    """Remove the runs from S3."""
    store = Store(aws)
    for run_id in removed.split():
        if runs.state(store, run_id).active:
            raise Problem(f"run `{run_id}` has started again meanwhile", "`inv status` shows it", reason="refused")
        # The config goes last: what is left of a run when this is cut short is still found, and removed the next time.
        names = sorted(store.names(f"runs/{run_id}/"), key=lambda name: name.endswith("/config.yaml"))
        store.remove_all(names)
    return {}


def sure_to_purge(aws: Aws, name: str, yes: bool, snapshot: bool = False) -> dict:
    """List what goes with the box, and ask."""
    store, found, disk = Store(aws), box.find(aws, name), volume.zone(aws, name)
    if found is None and disk is None:
        raise Problem(f"there is neither a box nor a volume named `{name}`", "`inv status` shows what there is", reason="refused")
    open_runs = [run_id for run_id, files in runs.listing(store).items() if "manifest.json" not in files]
    parts = [f"the box `{name}` ({found.id}) with its root disk"] if found else []
    parts += [f"its {volume.describe(aws, name)}, with all that is on it"] if disk else []
    print(f"  {', and '.join(parts)}", file=sys.stderr)
    if open_runs:
        print(f"  not finished, and only their synced checkpoints would be left: {', '.join(open_runs)}", file=sys.stderr)
    copy = "a copy of the volume, " if snapshot and disk else ""
    print(f"  what stays: {copy}{store.url('')} and what is on the Hub", file=sys.stderr, flush=True)
    ask.sure(yes, "remove them for good?")
    return {}


def _reason(store: Store, run_id: str, files: set[str], days: int | None) -> tuple[str, str] | None:
    state = runs.state(store, run_id)
    if "manifest.json" not in files:
        return None if state.active else (run_id, f"{state.phase}, never finished")
    if days is not None and _made(run_id) < datetime.now(UTC) - timedelta(days=days):
        return run_id, f"finished, older than {days} days" + (", published" if "published.json" in files else ", never published")
    return None


def _made(run_id: str) -> datetime:
    try:
        return datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise Problem(f"`{run_id}` is no run of ours", "look at it in S3 yourself", reason="refused") from error
