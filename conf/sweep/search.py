"""A search: trials whose values are drawn by the scores of those before.

What a search knows is read from its runs: their settings say which values were drawn, their records how they did. So the same command
goes on where it ended, whoever types it, and more trials add to it.
"""

from collections.abc import Callable, Iterator

from conf import run_ids
from conf.problem import RUN_REASONS, Problem
from conf.process.screen import screen
from conf.sweep.job import Job, R, SweepRun, SweepRuns, assign
from conf.sweep.space import Space, Trial
from conf.sweep.sweep import Sweep, job_of


class Search(Sweep[R]):
    """Trials of a space."""

    noun = "trial"

    def __init__(self, space: Space, trials: int, compose: Callable[[list[str]], R]):
        """Check every value before anything is paid for."""
        self.space, self.trials, self.compose, self.jobs = space, trials, compose, []
        self.others: set[str] = set()  # runs that are called like trials, and are none
        corner, *_ = [self._trial(swept).settings for swept in space.corners()]
        self.seed = corner.seed
        self.first = self._trial(next(space.draws([], self.seed))).settings

    @property
    def total(self) -> int:
        return max(self.trials, len(self.jobs))

    def next(self) -> Job[R] | None:
        """The next trial: one that somebody else has begun meanwhile, or else one of values that no run of this sweep has; None where
        nothing is left to draw."""
        runs = self.launcher.runs(self.name)
        job = next(self._known_of(runs, self.name), None)
        if job and not job.ended:
            self.launcher.check(job)
        return job or self._drawn(runs)

    def _drawn(self, runs: SweepRuns) -> Job[R] | None:
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
            assign([job], self.name, runs)
            return job
        if problem and not self.jobs:
            raise problem
        screen.print(f"nothing else is left to try after {len(self.jobs)} trials")
        return None

    def _trial(self, swept: list[str]) -> Job[R]:
        return job_of(self.compose([*self.space.fixed, *swept]), swept)

    def _result(self, job: Job[R]) -> Trial:
        values = self.space.values(job.settings.provenance.swept) or {}
        score = self.launcher.score(job) if job.finished else None
        return Trial(values, score, not job.ended, self.launcher.measured(job) if job.pruned else {})

    def _resume(self, name: str | None) -> str:
        """Take the trials that the sweep of this name has, or the newest sweep that has any."""
        runs = self.launcher.runs(name)
        for sweep in [name] if name else dict.fromkeys(filter(None, map(run_ids.sweep_of, reversed(runs)))):
            self.jobs = list(self._known_of(runs, sweep))
            if self.jobs:
                return sweep
        return name or run_ids.new(self.first.name)

    def _known_of(self, runs: SweepRuns, sweep: str) -> Iterator[Job[R]]:
        """The trials that are among the runs of a sweep, without those that are known already."""
        known = {job.run_id for job in self.jobs} | self.others
        for name, run in runs.items():
            if run and run_ids.sweep_of(name) == sweep and name not in known:
                if job := self._known(name, run):
                    yield job
                else:
                    self.others.add(name)

    def _known(self, name: str, run: SweepRun) -> Job[R] | None:
        """The trial that a run is; None where it is none of this search."""
        if self.space.values(run.settings.provenance.swept) is None:
            return None
        job = self._trial(run.settings.provenance.swept)
        self.launcher.complete(job)
        if job.fingerprint != run.fingerprint:
            return None
        job.adopt(name, run)
        job.problem, job.pruned = run.problem, run.pruned  # a search went on without what failed or fell behind, and does so again
        return job

    def _train_all(self) -> None:
        self._announce()
        if not self.launcher.train_together(self):
            for number, job in enumerate(self._in_turn(), start=1):
                self._train(number, job)
                if self._obstacle:
                    break
        if problem := self._obstacle:
            raise self._unfinished(problem, f"{problem.hint}; then {self.again} goes on")

    @property
    def _obstacle(self) -> Problem | None:
        """Why a trial failed that the next one would fail for, too."""
        return next((job.problem for job in self.jobs if job.problem and job.problem.reason not in RUN_REASONS), None)

    def left(self) -> Iterator[Job[R]]:
        return (job for job in self._in_turn() if not job.ended)

    def _in_turn(self) -> Iterator[Job[R]]:
        """Every trial once, those that are there first; another is drawn when somebody asks for it."""
        seen: list[Job[R]] = []
        announced = False
        while (job := self._unseen(seen)) is not None:
            seen.append(job)
            if not (announced or job.ended):
                self._announce_left(job)
                announced = True
            yield job

    def _unseen(self, seen: list[Job[R]]) -> Job[R] | None:
        for job in self.jobs:
            if not any(job is one for one in seen):
                if not job.ended:
                    self.launcher.check(job)
                return job
        if len(self.jobs) >= self.trials or self._obstacle:
            return None
        drawn = self.next()
        self.jobs += [drawn] if drawn else []
        return drawn

    def _announce_left(self, job: Job[R]) -> None:
        left = self.total - sum(each.ended for each in self.jobs)
        if forecast := self.launcher.forecast([job] * left):
            screen.print(f"{left} to train, as long as each takes what the first does: {forecast}")

    def taken(self, job: Job[R]) -> bool:
        self.jobs = [each for each in self.jobs if each is not job]  # whose place is another's, which is found with the next
        return False

    def _tell_failed(self, what: str, hint: str) -> None:
        if not self._finished:
            raise Problem(what, f"{hint}; a search under another name begins anew: `{self.launcher.command('NAME')}`", "crashed")
        screen.print(what)
