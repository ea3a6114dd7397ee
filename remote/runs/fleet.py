"""Runs on a fleet: handed over to AWS Batch, and followed. What a box would be asked, S3 and Batch say."""

import copy
import time
from dataclasses import dataclass, replace
from datetime import timedelta

from conf import schema
from conf.fleet_job import HOLDER
from conf.problem import Problem, of_reason
from conf.process.screen import screen
from remote.aws import batch, pricing
from remote.aws.s3 import Store
from remote.aws.session import Aws, pauses
from remote.runs import fleet_stop, follow, lost_jobs, runs, start
from remote.runs.progress import ENDED, Progress, complete_events, seconds_worked

ASK_EVERY = 15.0  # seconds between two questions to Batch while a run waits or is silent
SILENT = timedelta(seconds=45)  # without a sign of life for so long Batch is asked whether its job is there
UNSEEN = 120  # seconds until a run of which no job is listed counts as lost: AWS promises no list that is up to date
LEAVES = 300  # seconds for a job that is told to end; a container has two minutes after SIGTERM


def as_box(run: schema.Run) -> schema.Run:
    """The settings as those see them who ask about a box: its types are the fleet's, and no instance has its name."""
    seen = copy.copy(run)
    seen.box = replace(run.box, name=HOLDER, instance_type=list(run.fleet.instance_type), adopt=None)
    seen.box = replace(seen.box, disk_gb=run.fleet.disk_gb, max_hours=max(run.fleet.max_hours, run.box.idle_minutes / 60))
    return seen


@dataclass(frozen=True)
class Handed:
    """A run that AWS Batch has."""

    job: str
    status: str
    changed: bool


def check(aws: Aws, run: schema.Run) -> None:
    """Check that the account has a fleet."""
    batch.check_queue(aws, run)


def hand_over(aws: Aws, run: schema.Run, run_id: str, config_sha256: str, definition: str, per_hour: float | None) -> Handed:
    """Hand the run to AWS Batch, unless a job of it waits or runs there already."""
    store, there = Store(aws), batch.live(aws, run.cloud, run_id)
    has_ended = runs.state(store, run_id).phase not in (*runs.ACTIVE, "cancelled")
    if there and has_ended:
        _end_what_has_ended_it(aws, run, run_id)
    elif there:
        screen.note(f"  {run_id} has a job on AWS Batch already ({there.words})")
        return Handed(there.id, there.status, False)
    seconds, limit = _most(store, run, run_id, per_hour)
    if has_ended:  # only now: whoever is interrupted before finds it as it was
        start.set_state(store, run_id, "created")
    _, etag = store.get_with_etag(f"runs/{run_id}/box.json")
    start.assign(store, run_id, HOLDER, "", etag)
    parameters = {"run": run_id, "config": config_sha256, "seconds": str(seconds), "limit": limit, "attempts": str(run.fleet.attempts)}
    # The carrier ends the run by itself, with a checkpoint; Batch, which does not wait for one, comes later.
    job = batch.submit(aws, run, run_id, definition, parameters, seconds + 600)
    return Handed(job.id, job.status, True)


def _end_what_has_ended_it(aws: Aws, run: schema.Run, run_id: str) -> None:
    """A job that has said how its run ended trains nothing any more, though Batch shows it for a while: it goes first."""
    batch.end(aws, run.cloud, run_id, "the run is handed over again")
    for _ in pauses(LEAVES):
        if not (there := batch.live(aws, run.cloud, run_id)):
            return
        screen.status(f"the job that has ended {run_id} is still there ({there.words})")
    raise Problem(f"the job that has ended {run_id} is still there after {LEAVES // 60} minutes", "the same command again", "unreachable")


def _most(store: Store, run: schema.Run, run_id: str, per_hour: float | None) -> tuple[int, str]:
    """After how many seconds the run ends, and the setting that says so."""
    hours = round(run.fleet.max_hours * 3600)
    if run.cost.limit is None:
        return hours, "fleet.max_hours"
    if per_hour is None:
        what = f"cost.limit=${run.cost.limit:.2f} cannot be enforced: no price is known for {', '.join(run.fleet.instance_type)}"
        raise Problem(what, "set the price, `cost.per_hour=USD`, or drop the limit, `cost.limit=null`", "refused")
    worked = seconds_worked(complete_events(store.get(f"runs/{run_id}/events.jsonl") or b""))
    left = round(run.cost.limit / per_hour * 3600 - worked)
    if left < 60:
        what = f"{run_id} has worked {worked / 3600:.1f} h already, and cost.limit is ${run.cost.limit:.2f}"
        raise Problem(what, f"`cost.limit={run.cost.limit * 2:g}` lets it go on", "refused")
    return (left, "cost.limit") if left < hours else (hours, "fleet.max_hours")


@dataclass(frozen=True)
class Price:
    per_hour: float | None  # USD; None where nobody says


def price(aws: Aws, run: schema.Run) -> Price:
    """Ask for the price of the dearest of the fleet's types, on demand: spot costs less."""
    prices = [pricing.planned(aws, kind, run.cost.per_hour)[0] for kind in run.fleet.instance_type]
    return Price(None if None in prices else max(price for price in prices if price is not None))


def attach(aws: Aws, run: schema.Run, run_id: str, per_hour: float | None, with_log: bool = False) -> follow.Done:
    """Follow the run until it ends; Ctrl-C leaves it going.

    `per_hour` is USD; `with_log` shows what its log gets from now on.
    """
    progress, watcher = Progress(per_hour, run.cost.limit), Watcher(aws, run.cloud, run_id)
    lines = follow.Lines(Store(aws), run_id) if with_log else None

    def show(store: Store, current: runs.State) -> None:
        if current.phase == "created" and (words := watcher.words()):
            screen.status(words)
        else:
            progress.update(current, lambda: store.get(f"runs/{run_id}/events.jsonl") or b"")
        if current.phase not in ENDED and current.age > SILENT:
            watcher.check()
        if lines:
            lines.show(store)

    try:
        current = follow.watch(aws, run_id, watcher.check, f"{run_id} goes on", show)
    except KeyboardInterrupt:
        words = f"stopped watching; {run_id} goes on. `inv train` or `inv logs --follow` attaches again, `inv stop-run` ends it"
        raise KeyboardInterrupt(words) from None
    return follow.outcome(Store(aws), current)


class Watcher:
    """What AWS Batch says of a run's job, asked now and then."""

    def __init__(self, aws: Aws, cloud: schema.Cloud, run_id: str):
        self.aws, self.cloud, self.run_id = aws, cloud, run_id
        self.begun, self.asked = time.monotonic(), float("-inf")
        self.job: batch.FleetJob | None = None

    def look(self) -> batch.FleetJob | None:
        if time.monotonic() - self.asked >= ASK_EVERY:
            self.asked, self.job = time.monotonic(), batch.latest(self.aws, self.cloud, self.run_id)
        return self.job

    def words(self) -> str:
        job = self.look()
        self.check(job)
        return f"waiting for an instance ({job.words})" if job else ""

    def check(self, job: batch.FleetJob | None = None) -> None:
        """Nothing, or a Problem where no job is left that could end the run; its state says so too from then on."""
        job = job or self.look()
        if job and not job.ended:
            return
        if job is None and time.monotonic() - self.begun < UNSEEN:
            return  # a job that was handed over just now may not be listed yet
        store = Store(self.aws)
        if runs.state(store, self.run_id).phase in ENDED:
            return
        if wish := fleet_stop.wanted(store, self.run_id):  # no failure, whoever sees it first
            fleet_stop.cancel(store, self.run_id, wish)
            return
        raise lost(self.aws, self.run_id, job)


def lost(aws: Aws, run_id: str, job: batch.FleetJob | None) -> Problem:
    """The Problem of a run whose job has ended without a word of its own."""
    why, (reason, hint) = job.why if job else "there is none", lost_jobs.explain(job, aws.cloud)
    start.set_state(Store(aws), run_id, "failed", reason, f"its job on AWS Batch has ended: {why}", hint)
    return of_reason(f"{run_id} is not finished, and its job on AWS Batch has ended: {why}", hint, reason)


def waiting(aws: Aws, run: schema.Run, states: list[runs.State], store: Store) -> list[str]:
    """A line for each of these runs that AWS Batch has and that has not begun."""
    lines = []
    for current in states:
        if current.phase == "created" and runs.holder(store, current.run_id) == HOLDER:
            job = batch.latest(aws, run.cloud, current.run_id)
            lines.append(f"{current.run_id} is on AWS Batch: {job.words if job else 'no job of it is known'}")
    return lines
