"""Ending a run of a fleet for good: it writes a checkpoint, is in S3, and its state says who wanted it."""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta

from conf import schema
from conf.fleet_job import HOLDER, STOP
from conf.problem import Problem
from remote.aws import batch
from remote.aws.s3 import Store
from remote.aws.session import Aws, pauses
from remote.runs import runs, start
from remote.runs.progress import ENDED

PATIENCE = 600  # seconds for a run that is to end to be in S3
GONE = timedelta(seconds=150)  # without a sign of life: a container has two minutes after SIGTERM to write one


@dataclass(frozen=True)
class Wish:
    """Why a run is to end for good; its state says so then."""

    reason: str = ""
    evidence: str = "somebody asked for it"


@dataclass(frozen=True)
class Ended:
    run_id: str
    phase: str


def stop(aws: Aws, run: schema.Run, run_id: str | None) -> Ended:
    """End the run for good: it writes a checkpoint, is in S3, and is cancelled."""
    store = Store(aws)
    run_id = runs.find_newest(aws, run, run_id)
    current = runs.state(store, run_id)
    if current.phase in ENDED:
        return Ended(run_id, current.phase)
    if runs.holder(store, run_id) != HOLDER:
        raise Problem(f"run `{run_id}` is on no fleet", "`inv stop-run -- fleet=none` ends one on the box", "refused")
    ask_to_end(aws, run.cloud, run_id, Wish(), "inv stop-run")
    for _ in pauses(PATIENCE):
        if phase := phase_after(aws, run.cloud, run_id, Wish()):
            return Ended(run_id, phase)
    raise Problem(f"run `{run_id}` has not ended within {PATIENCE / 60:.0f} minutes", "`inv status` shows it", "unreachable")


def ask_to_end(aws: Aws, cloud: schema.Cloud, run_id: str, wish: Wish, verb: str) -> None:
    """The run's job is told to end; nobody waits for it."""
    Store(aws).put(f"runs/{run_id}/{STOP}", json.dumps(asdict(wish)).encode())
    batch.end(aws, cloud, run_id, verb)


def phase_after(aws: Aws, cloud: schema.Cloud, run_id: str, wish: Wish) -> str:
    """The phase in which a run has ended that was asked to; empty while it goes on. Where its job is gone without a word, its state is
    written here."""
    store = Store(aws)
    job, current = batch.latest(aws, cloud, run_id), runs.state(store, run_id)  # the job first: it writes until it ends
    was_stopped = current.phase == "failed" and current.reason == "stopped"  # by what could not read why
    if current.phase in ENDED and not was_stopped:
        return current.phase
    silent = was_stopped or current.phase == "created" or not current.active or (job is not None and current.age > GONE)
    if (job is None or job.ended) and silent:
        cancel(store, run_id, wish)
        return "cancelled"
    return ""


def wanted(store: Store, run_id: str) -> Wish | None:
    """Why somebody has asked for the run's end, if anybody has."""
    said = store.json(f"runs/{run_id}/{STOP}")
    return None if said is None else Wish(str(said.get("reason") or ""), str(said.get("evidence") or Wish.evidence))


def cancel(store: Store, run_id: str, wish: Wish) -> None:
    """Say it for a run of which nobody is left to say it."""
    start.set_state(store, run_id, "cancelled", wish.reason, wish.evidence, "`inv train` starts a new run")
