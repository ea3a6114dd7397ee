"""Removing runs that came to nothing, or are old: listed first, never a running one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf.fleet_job import HOLDER
from conf.problem import Problem
from conf.process.screen import screen
from conf.text import quoting
from remote import confirm
from remote.aws import batch, instance, volume
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import runs


@dataclass(frozen=True)
class BoxAndVolume(instance.Presence):
    """The box, and what is known of its volume where it cannot be asked."""

    mounted: bool = False
    going: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    removed: tuple[str, ...]  # ids of runs
    count: int


@dataclass(frozen=True)
class Remaining:
    retained: tuple[str, ...]  # ids of runs


def find_box(aws: Aws, name: str) -> BoxAndVolume:
    """Find the box by its tag, if there is one: it knows best which runs go on, and which are whole on its volume only."""
    seen = instance.find_optional(aws, name)
    return BoxAndVolume(seen.instance_id, seen.exists, seen.running)


def choose(aws: Aws, name: str, days: int | None, yes: bool, mounted: bool, going: tuple[str, ...], whole: tuple[str, ...]) -> Chosen:
    """List the runs that are not finished, or older than `--older-than` days; ask before they are removed."""
    store = Store(aws)
    report = VolumeReport(name, going, whole, sure=mounted or volume.zone(aws, name) is None)
    removable = []
    for run_id, files in runs.listing(store).items():
        why, goes = _verdict(aws, store, run_id, files, days, report)
        size = sum(store.names(f"runs/{run_id}/").values()) if goes else 0
        if why:
            screen.note(f"  {run_id}  {why}" + (f"  {size / 1e6:.1f} MB" if goes else "; it stays"))
        removable += [run_id] if goes else []
    if removable:
        confirm.ask(yes, f"remove {len(removable)} runs for good?")
    return Chosen(tuple(removable), len(removable))


def remove(aws: Aws, removed: tuple[str, ...], going: tuple[str, ...]) -> Remaining:
    """Remove the runs from S3."""
    store = Store(aws)
    for run_id in removed:
        if runs.state(store, run_id).active or run_id in going:
            raise Problem(f"run `{run_id}` has started again meanwhile", "`inv status` shows it", reason="refused")
        # The config goes last: what is left of a run when this is cut short is still found, and removed the next time.
        names = sorted(store.names(f"runs/{run_id}/"), key=lambda name: name.endswith("/config.yaml"))
        store.remove_all(names)
    return Remaining(tuple(sorted({*runs.listing(store), *going} - set(removed))))


def confirm_purge(aws: Aws, name: str, yes: bool, snapshot: bool = False) -> None:
    """List what goes with the box, and ask."""
    store, box, disk = Store(aws), instance.find(aws, name), volume.zone(aws, name)
    if box is None and disk is None:  # an earlier purge has removed both
        screen.note(f"  there is neither a box nor a volume named `{name}`; `inv status` shows what there is")
        return
    open_runs = [run_id for run_id, files in runs.listing(store).items() if "manifest.json" not in files]
    parts = [f"the box `{name}` ({box.id}) with its root disk"] if box else []
    parts += [f"its {volume.describe(aws, name)}, with all that is on it"] if disk else []
    screen.note(f"  {', and '.join(parts)}")
    if open_runs:
        screen.note(f"  not finished, and only their synced checkpoints would be left: {', '.join(open_runs)}")
    copy = "a copy of the volume, " if snapshot and disk else ""
    screen.note(f"  what stays: {copy}{store.url('')} and what is on the Hub")
    confirm.ask(yes, "remove them for good?")


@dataclass(frozen=True)
class VolumeReport:
    """What the box says of the runs on its volume."""

    name: str  # of the box
    going: tuple[str, ...]
    whole: tuple[str, ...]  # these have ended well; S3 may not have all of it
    sure: bool  # the volume was looked at, or there is none


def _verdict(aws: Aws, store: Store, run_id: str, files: set[str], days: int | None, report: VolumeReport) -> tuple[str, bool]:
    """What there is to say of a run, if anything, and whether it goes."""
    details = runs.about(store, run_id) if "config.yaml" in files else None
    if details and details.owner and details.owner != aws.owner:
        return "" if "manifest.json" in files else details.whose, False
    state = runs.state(store, run_id)
    if "manifest.json" in files:
        created_at = _created_at(run_id)
        old = days is not None and created_at is not None and created_at < datetime.now(UTC) - timedelta(days=days)
        published = "published" if "published.json" in files else "never published"
        return (f"finished, older than {days} days, {published}", True) if old and run_id not in report.going else ("", False)
    if run_id in report.going or state.active:
        return "goes on", False
    holder = runs.holder(store, run_id) or report.name
    on_fleet = holder == HOLDER
    if on_fleet and batch.live(aws, aws.cloud, run_id):
        return "goes on", False
    if not on_fleet and holder != report.name and state.phase in runs.ACTIVE:
        return (
            f"{state.phase} on the box `{holder}`, as it last said: `inv clean -- {quoting.setting('box.name', holder)}` asks that one",
            False,
        )
    elsewhere = not on_fleet and (holder != report.name or not report.sure)  # a fleet's instance is gone with its disk
    if run_id in report.whole or (elsewhere and (state.phase in ("uploading", "done") or state.reason == "unreachable")):
        return (
            f"ended well, and S3 has not all of it; the volume of `{holder}` may: `inv up deploy train` with its settings delivers it",
            False,
        )
    return ("no run: it has no settings" if "config.yaml" not in files else f"{state.phase}, never finished"), True


def _created_at(run_id: str) -> datetime | None:
    """When the run was made, as its id says; None where that says nothing."""
    try:
        return datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
