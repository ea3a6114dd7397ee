"""A search: a sweep whose every run gets values that are drawn by the scores of those before it.

Each trial is the ordinary `train` plan and a run `<sweep>.<number>`. What a search knows is read from these runs: their settings say
which values were drawn, their records how they did. So the same command goes on where it ended, and more trials add to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conf import load, schema
from conf.problem import OWN, Problem
from conf.process.screen import screen
from conf.search_space import Space, Told
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.plan import verbs
from remote.runs import runs
from remote.sweep import sweep
from remote.sweep.sweep import Job, Made


@dataclass
class Search:
    space: Space
    trials: int
    settings: Callable[[list[str]], schema.Run]  # of words
    root: Path
    check: verbs.Check
    rank: sweep.Rank  # of run folders and what sets each apart answers a text and the best run
    score: Callable[[Path], float | None]  # of a run folder
    jobs: list[Job] = field(default_factory=list)  # the trials so far

    def __post_init__(self):
        """Check every value before anything is paid for."""
        first, *_ = [self._job(words).run for words in self.space.corners()]
        self.seed = first.seed
        self.first = self._job(next(self.space.draws([], self.seed))).run

    def rehearsal(self) -> str:
        """What a search would do, in words."""
        more = f"\ncall   Draw the next one's values by the scores so far and train it, until there are {self.trials}" * (self.trials > 1)
        head = f"# sweep\ncall   Train, or find finished, trial 1 of {self.trials}: {' '.join(self.first.provenance.swept)}"
        return f"{head}{more}\ncall   Rank the finished runs by their scores\n# each trial, as `inv train` does it"

    def go(self, aws: Aws, name: str | None) -> None:
        """Train until there are enough trials, and print the leaderboard. A trial that fails is told as that; a Problem if all did."""
        self.aws, self.store = aws, Store(aws)
        self.store.check_bucket()
        self.name = self._begin(sweep.checked(name))
        self.again = f"`{sweep.command(self.name, '--trials', str(self.trials))}`"
        self.untold = True
        done = sum(job.finished for job in self.jobs)
        screen.print(f"sweep {self.name}: {max(self.trials, len(self.jobs))} trials, {done} of them finished")
        for number, job in enumerate(self.jobs, start=1):
            self._one(number, job)
        while len(self.jobs) < self.trials and (job := self._next()):
            self.jobs.append(job)
            self._one(len(self.jobs), job)
        self._end()

    def _job(self, own: list[str]) -> Job:
        return sweep.job_of(own, self.settings([*self.space.fixed, *own]))

    def _score(self, job: Job) -> float | None:
        return self.score(sweep.fetched(self.store, job, self.root)) if job.finished else None

    def _begin(self, name: str | None) -> str:
        """The sweep's name, and in `jobs` the trials that it has: of the newest sweep with any where no name is given."""
        made = sweep.made(self.aws, self.store, name)
        names = [name] if name else dict.fromkeys(sweep.of(run_id) for run_id in reversed(made))
        for each in names:
            mine = {run_id: run for run_id, run in made.items() if sweep.of(run_id) == each}
            if found := [job for run_id, run in mine.items() if (job := self._known(run_id, run))]:
                self.jobs = found
                return each
        return name or runs.new_id(self.first.name)

    def _known(self, run_id: str, made: Made) -> Job | None:
        """The trial that a run is; None where it is none of this search."""
        swept = made.config.provenance.swept
        if self.space.values(swept) is None:
            return None
        job = self._job(swept)
        runs.upload_inputs(self.store, job.run)
        if not made.of_settings(job.run):
            return None
        job.take(run_id, made)
        # A search has gone on without what failed or was cancelled, and does so again.
        if made.phase == "cancelled" or (made.phase == "failed" and made.state.reason in OWN):
            job.problem = Problem(made.state.evidence or f"it was {made.phase}", made.state.hint or f"`inv logs --run {run_id}`")
        return job

    def _next(self) -> Job | None:
        """A trial of values that no run of this sweep has, found fit to be trained; None where nothing is left to draw."""
        seen, problem = {load.fingerprint(job.run) for job in self.jobs}, None
        told = [Told(self.space.values(job.run.provenance.swept), self._score(job)) for job in self.jobs]
        for own in self.space.draws(told, self.seed):
            try:
                job = self._job(own)
                runs.upload_inputs(self.store, job.run)
                if (mark := load.fingerprint(job.run)) in seen:
                    continue
                seen.add(mark)
                job.needs = self.check(self.aws, job.run)
            except Problem as error:
                if error.reason not in OWN:
                    raise
                screen.print(f"{' '.join(own)} cannot be trained: {error.what}")
                problem = problem or error
                continue
            sweep.place(self.aws, self.store, [job], self.name, self.root)
            return job
        if problem and not self.jobs:
            raise problem
        screen.print(f"nothing else is left to try after {len(self.jobs)} trials")
        return None

    def _one(self, number: int, job: Job) -> None:
        title = f"trial {number} of {max(self.trials, len(self.jobs))}: {job.run_id} ({job.words})"
        if job.finished:
            screen.print(f"{title} is finished: not paid for again")
        elif job.problem:
            screen.print(f"{title} has failed: {job.problem.what}")
        else:
            job.needs = job.needs or self.check(self.aws, job.run)
            self._foretell(job, job.needs)
            screen.print(title)
            done = sum(job.finished for job in self.jobs)
            sweep.train(self.aws, self.store, job, job.needs, self.root, f"{done} of {self.trials} trials are finished", self.again)

    def _foretell(self, job: Job, needs: verbs.Needs) -> None:
        """Tell once what all that is left would take."""
        if self.untold:
            left = max(self.trials, len(self.jobs)) - sum(job.finished or job.problem is not None for job in self.jobs)
            planned = [needs.planned] * left
            screen.print(f"{left} to train, as long as each takes what the first does: {sweep.cost(self.aws, job.run, planned)}")
            self.untold = False

    def _end(self) -> None:
        sweep.show(self.store, self.jobs, self.root, self.rank)
        failed = [job for job in self.jobs if job.problem]
        told = f"{len(failed)} of {len(self.jobs)} trials failed:\n" + "\n".join(
            f"  {job.run_id} ({job.words}): {job.problem.what}" for job in failed
        )
        if failed and len(failed) == len(self.jobs):
            hint = f"{failed[0].problem.hint}; a search under another name begins anew: `inv sweep --name NAME --trials ...`"
            raise Problem(told, hint, failed[0].problem.reason)
        if failed:
            screen.print(told)
