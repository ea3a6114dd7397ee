"""A sweep's jobs, and which run is whose.

A sweep has no record of its own: its runs are called <sweep>.<number>, and a job's run is found by its settings. So the same command
goes on where the last one ended.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from conf import load, run_ids
from conf.problem import Problem
from conf.schema import Recipe

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep that is there already."""

    settings: Recipe
    finished: bool
    cancelled: bool = False
    problem: Problem | None = None  # why it counts as failed in a search: it was cancelled, or failed by itself
    pruned: str = ""  # why a search has given it up

    @property
    def fingerprint(self) -> str:
        return load.fingerprint(self.settings)


SweepRuns = dict[str, SweepRun | None]  # by sweep and number; None of a run that is not to be gone on with


@dataclass
class Job(Generic[R]):
    """Settings to train, of which `provenance.swept` says what sets them apart."""

    settings: R
    run_id: str = ""
    finished: bool = False
    problem: Problem | None = None  # why it failed, or cannot be trained
    pruned: str = ""  # why its search has given it up

    @property
    def ended(self) -> bool:
        return self.finished or bool(self.pruned) or self.problem is not None

    @property
    def words(self) -> str:
        return " ".join(word.lstrip("+") for word in self.settings.provenance.swept)

    @property
    def fingerprint(self) -> str:
        return load.fingerprint(self.settings)

    def __str__(self) -> str:
        return f"{self.run_id} ({self.words})" if self.run_id else self.words

    def use_id(self, name: str) -> None:
        self.run_id = self.settings.run_id = name

    def adopt(self, name: str, run: SweepRun) -> None:
        """Go on with this run, which has the job's settings."""
        self.use_id(name)
        self.settings.train.gradient_checkpointing = run.settings.train.gradient_checkpointing  # as it was decided then
        self.finished = run.finished


def assign(jobs: list[Job[R]], sweep: str, runs: SweepRuns) -> None:
    """Give each job its run of the sweep: the one of its settings that is there, or else the next number."""
    own = [name for name in runs if run_ids.sweep_of(name) == sweep]
    unnumbered = max(map(run_ids.number, own), default=-1) + 1
    by_settings = {run.fingerprint: (name, run) for name in reversed(own) if (run := runs[name]) and not run.cancelled}
    for job in jobs:
        if job.fingerprint in by_settings:
            job.adopt(*by_settings[job.fingerprint])
        else:
            job.use_id(f"{sweep}.{unnumbered}")
            unnumbered += 1


def newest_sweep(jobs: list[Job[R]], runs: SweepRuns) -> str | None:
    """The last of the sweeps that have a run of one of these jobs."""
    wanted = {job.fingerprint for job in jobs}
    names = [name for name, run in runs.items() if run and not run.cancelled and run.fingerprint in wanted]
    return run_ids.sweep_of(names[-1]) if names else None
