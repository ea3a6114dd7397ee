"""A sweep: a job for each combination of values, or trials whose values are drawn by the scores of those before; and who is best.

What is to be trained, and which run is whose, is decided here. A `Launcher` trains it, on the box or on this machine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from conf import run_ids
from conf.problem import RUN_REASONS, Problem
from conf.process.screen import screen
from conf.sweep.job import Job, R, SweepRun, SweepRuns, assign, newest_sweep
from conf.sweep.space import Space, Trial


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

    def train_together(self, jobs: Sequence[Job[R]], again: str) -> bool:
        """Train several at once, or leave in each why it failed; false where one is trained after the other."""
        return False

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
    """Jobs that are trained one after the other."""

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
    def _tell_failed(self, what: str, hint: str) -> None: ...

    def _announce(self, forecast: str = "") -> None:
        screen.print(f"sweep {self.name}: {self.total} {self.noun}s, {self._finished} of them finished{forecast}")

    def _train(self, number: int, job: Job[R]) -> None:
        title = f"{self.noun} {number} of {self.total}: {job}"
        if job.finished:
            screen.print(f"{title} is finished: not trained again")
        elif job.problem:
            screen.print(f"{title} has failed: {job.problem.what}")
        else:
            screen.print(f"{title} begins")
            try:
                self.launcher.train(job, self._again)
            except Problem as problem:
                raise self._unfinished(problem, problem.hint) from problem

    def _unfinished(self, problem: Problem, hint: str) -> Problem:
        return Problem(f"{problem.what}; {self._finished} of {self.total} {self.noun}s are finished", hint, problem.reason)

    @property
    def _again(self) -> str:
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
            job = _job(compose(words), swept)
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
        forecast = self.launcher.forecast([job for job in self.jobs if not (job.finished or job.problem)])
        self._announce(f"; {forecast}" if forecast else "")
        left = [job for job in self.jobs if not (job.finished or job.problem)]
        if left and self.launcher.train_together(left, self._again):
            return
        for number, job in enumerate(self.jobs, start=1):
            if not job.problem:
                self._train(number, job)

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
        raise Problem(what, f"{hint}; {self._again} tries again what is not finished", "crashed")


class Search(Sweep[R]):
    """Trials of a space. What a search knows is read from its runs: their settings say which values were drawn, their records how they
    did. So the same command goes on where it ended, and more trials add to it."""

    noun = "trial"

    def __init__(self, space: Space, trials: int, compose: Callable[[list[str]], R]):
        """Check every value before anything is paid for."""
        self.space, self.trials, self.compose, self.jobs = space, trials, compose, []
        corner, *_ = [self._trial(swept).settings for swept in space.corners()]
        self.seed = corner.seed
        self.first = self._trial(next(space.draws([], self.seed))).settings

    @property
    def total(self) -> int:
        return max(self.trials, len(self.jobs))

    def next(self) -> Job[R] | None:
        """A trial of values that no run of this sweep has, which can be trained; None where nothing is left to draw."""
        fingerprints, problem = {job.fingerprint for job in self.jobs}, None
        for swept in self.space.draws([self._result(job) for job in self.jobs], self.seed):
            try:
                job = self._trial(swept)
                self.launcher.complete(job)
                if job.fingerprint in fingerprints:
                    continue
                fingerprints.add(job.fingerprint)
                self.launcher.check(job)
            except Problem as error:
                if error.reason not in RUN_REASONS:
                    raise
                screen.print(f"{' '.join(swept)} cannot be trained: {error.what}")
                problem = problem or error
                continue
            assign([job], self.name, self.launcher.runs(self.name))
            return job
        if problem and not self.jobs:
            raise problem
        screen.print(f"nothing else is left to try after {len(self.jobs)} trials")
        return None

    def _trial(self, swept: list[str]) -> Job[R]:
        return _job(self.compose([*self.space.fixed, *swept]), swept)

    def _result(self, job: Job[R]) -> Trial:
        return Trial(self.space.values(job.settings.provenance.swept) or {}, self.launcher.score(job) if job.finished else None)

    def _resume(self, name: str | None) -> str:
        """Take the trials that the sweep of this name has, or the newest sweep that has any."""
        runs = self.launcher.runs(name)
        for sweep in [name] if name else dict.fromkeys(filter(None, map(run_ids.sweep_of, reversed(runs)))):
            own = {each: run for each, run in runs.items() if run and run_ids.sweep_of(each) == sweep}
            self.jobs = [job for each, run in own.items() if (job := self._known(each, run))]
            if self.jobs:
                return sweep
        return name or run_ids.new(self.first.name)

    def _known(self, name: str, run: SweepRun) -> Job[R] | None:
        """The trial that a run is; None where it is none of this search."""
        if self.space.values(run.settings.provenance.swept) is None:
            return None
        job = self._trial(run.settings.provenance.swept)
        self.launcher.complete(job)
        if job.fingerprint != run.fingerprint:
            return None
        job.adopt(name, run)
        job.problem = run.problem  # a search went on without what failed, and does so again
        return job

    def _train_all(self) -> None:
        self._announce()
        announced = False
        for number, job in enumerate(self._in_turn(), start=1):
            if not (announced or job.finished or job.problem):
                left = self.total - sum(each.finished or each.problem is not None for each in self.jobs)
                if forecast := self.launcher.forecast([job] * left):
                    screen.print(f"{left} to train, as long as each takes what the first does: {forecast}")
                announced = True
            self._train(number, job)
            if job.problem and job.problem.reason not in RUN_REASONS:
                raise self._unfinished(job.problem, f"{job.problem.hint}; then {self._again} goes on")

    def _in_turn(self) -> Iterator[Job[R]]:
        for job in self.jobs:
            if not (job.finished or job.problem):
                self.launcher.check(job)
            yield job
        while len(self.jobs) < self.trials and (drawn := self.next()):
            self.jobs.append(drawn)
            yield drawn

    def _tell_failed(self, what: str, hint: str) -> None:
        if not self._finished:
            raise Problem(what, f"{hint}; a search under another name begins anew: `{self.launcher.command('NAME')}`", "crashed")
        screen.print(what)


def _job(settings: R, swept: list[str]) -> Job[R]:
    settings.provenance.swept = swept
    return Job(settings)
