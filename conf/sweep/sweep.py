"""A sweep: a job for each combination of values, or trials whose values are drawn (conf/sweep/search.py); and who is best.

What is to be trained, and which run is whose, is decided here. A `Launcher` trains it, on the box or on this machine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from conf import run_ids
from conf.problem import RUN_REASONS, Problem
from conf.process.screen import screen
from conf.sweep.job import Job, R, SweepRuns, assign, newest_sweep


class Launcher(ABC, Generic[R]):
    """Where a sweep's jobs are trained."""

    @abstractmethod
    def runs(self, name: str | None) -> SweepRuns:
        """The runs that are there, in the order of their numbers: of the sweep of this name, and of all that may be gone on with."""

    def complete(self, job: Job[R]) -> None:
        """Fill in what settings lack by which the job's run is found."""

    def check(self, job: Job[R]) -> None:
        """A Problem where the job cannot be trained."""

    def forecast(self, jobs: Sequence[Job[R]]) -> str:
        """How long these jobs take and what they cost, in words; empty where that is not known beforehand."""
        return ""

    @abstractmethod
    def train(self, job: Job[R], again: str) -> None:
        """Train the job, or leave in it why it failed; a Problem where the sweep cannot go on: the command `again` does later."""

    def train_together(self, sweep: "Sweep[R]") -> bool:
        """Train several at once of what is left, or leave in each why it failed; false where one is trained after the other."""
        return False

    def measured(self, job: Job[R]) -> dict[int, float]:
        """What a job that was given up has measured after which step; more is better."""
        return {}

    @abstractmethod
    def score(self, job: Job[R]) -> float:
        """By what a finished job is ranked."""

    @abstractmethod
    def rank(self, jobs: Sequence[Job[R]]) -> None:
        """Print the leaderboard of finished jobs."""

    @abstractmethod
    def command(self, name: str) -> str:
        """What goes on with the sweep of this name."""


class Sweep(ABC, Generic[R]):
    """Jobs that are trained, and ranked."""

    noun: str
    first: R  # the settings of its first job
    jobs: list[Job[R]]
    launcher: Launcher[R]
    name: str

    @property
    def total(self) -> int:
        return len(self.jobs)

    def run(self, launcher: Launcher[R], name: str | None) -> None:
        """Train what is not finished and print the leaderboard; a Problem where that cannot go on, or failed."""
        self.launcher = launcher
        self.name = self._resume(name)
        self._train_all()
        for job in self.jobs:
            if job.pruned:
                screen.print(f"pruned     {job}: {job.pruned}")
        self.launcher.rank([job for job in self.jobs if job.finished])
        if problems := {str(job): job.problem for job in self.jobs if job.problem}:
            lines = "\n".join(f"  {job}: {problem.what}" for job, problem in problems.items())
            what = f"{len(problems)} of {len(self.jobs)} {self.noun}s failed:\n{lines}"
            self._tell_failed(what, next(iter(problems.values())).hint)

    @abstractmethod
    def _resume(self, name: str | None) -> str:
        """The sweep's name, once its runs that are there are known."""

    @abstractmethod
    def _train_all(self) -> None: ...

    @abstractmethod
    def left(self) -> Iterator[Job[R]]:
        """What is to be trained, in turn."""

    @abstractmethod
    def taken(self, job: Job[R]) -> bool:
        """Somebody else has begun another run of the job's name: whether the job is to be trained all the same, under its next one."""

    @abstractmethod
    def _tell_failed(self, what: str, hint: str) -> None: ...

    def _announce(self, forecast: str = "") -> None:
        screen.print(f"sweep {self.name}: {self.total} {self.noun}s, {self._finished} of them finished{forecast}")

    def _train(self, number: int, job: Job[R]) -> None:
        title = f"{self.noun} {number} of {self.total}: {job}"
        if job.finished:
            screen.print(f"{title} is finished: not trained again")
        elif job.problem:
            screen.print(f"{title} has failed: {job.problem.what}")
        elif job.pruned:
            screen.print(f"{title} was pruned: {job.pruned}")
        else:
            screen.print(f"{title} begins")
            try:
                self.launcher.train(job, self.again)
            except Problem as problem:
                raise self._unfinished(problem, problem.hint) from problem

    def _unfinished(self, problem: Problem, hint: str) -> Problem:
        return Problem(f"{problem.what}; {self._finished} of {self.total} {self.noun}s are finished", hint, problem.reason)

    @property
    def again(self) -> str:
        """What goes on with it, as hints say it."""
        return f"`{self.launcher.command(self.name)}`"

    @property
    def _finished(self) -> int:
        return sum(job.finished for job in self.jobs)


class Grid(Sweep[R]):
    """A job for each combination; two are never the same run."""

    noun = "job"

    def __init__(self, combinations: list[tuple[list[str], list[str]]], compose: Callable[[list[str]], R]):
        """`combinations` are all words of each job, and those that set it apart; `compose` makes words checked settings."""
        jobs: dict[str, Job[R]] = {}
        for words, swept in combinations:
            job = job_of(compose(words), swept)
            before = jobs.setdefault(job.fingerprint, job)
            if before is not job:
                hint = "give each value once, of settings that the training depends on"
                raise Problem(f"`{before}` and `{job}` are the same run", hint)
        self.jobs = list(jobs.values())
        self.first = self.jobs[0].settings

    def _resume(self, name: str | None) -> str:
        for job in self.jobs:
            self.launcher.complete(job)
        runs = self.launcher.runs(name)
        name = name or newest_sweep(self.jobs, runs) or run_ids.new(self.first.name)
        assign(self.jobs, name, runs)
        return name

    def _train_all(self) -> None:
        self._check_all()
        forecast = self.launcher.forecast(list(self.left()))
        self._announce(f"; {forecast}" if forecast else "")
        if any(self.left()) and self.launcher.train_together(self):
            return
        for number, job in enumerate(self.jobs, start=1):
            if not job.problem:
                self._train(number, job)

    def left(self) -> Iterator[Job[R]]:
        return (job for job in self.jobs if not job.ended)

    def taken(self, job: Job[R]) -> bool:
        assign([job], self.name, self.launcher.runs(self.name))
        return True

    def _check_all(self) -> None:
        """Look at every job before anything is paid for; a Problem where none can be trained."""
        for job in self.jobs:
            try:
                if not job.finished:
                    self.launcher.check(job)
            except Problem as problem:
                if problem.reason not in RUN_REASONS:
                    raise
                job.problem = problem
                screen.print(f"{job} cannot be trained: {problem.what}")
        problems = [job.problem for job in self.jobs if job.problem]
        if len(problems) == len(self.jobs):
            raise problems[0]

    def _tell_failed(self, what: str, hint: str) -> None:
        raise Problem(what, f"{hint}; {self.again} tries again what is not finished", "crashed")


def job_of(settings: R, swept: list[str]) -> Job[R]:
    settings.provenance.swept = swept
    return Job(settings)
