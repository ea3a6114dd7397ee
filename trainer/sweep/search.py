"""A search on this machine: a sweep whose every run gets values that are drawn by the scores of those before it.

    python -m trainer -m hydra.sweeper.n_trials=12 run_id=rank 'train.lr=tag(log,interval(1e-5,1e-3))' lora.r=8,16,32

Hydra asks its sweeper for the jobs, and this is it; without `n_trials` it makes every combination, as Hydra's own does. A trial is a
run of the sweep like any other. What a search knows is read from these runs, so started again under the same name it goes on.
"""

from collections.abc import Callable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.plugins.sweeper import Sweeper

from conf import load, search_space
from conf.problem import OWN, Problem
from conf.schema import Recipe
from trainer.record import leaderboard
from trainer.record.record import sealed, settings
from trainer.sweep.sweep import Job, Sweep, composer, each, ended, named, place, shown, standing, told


class Drawn(Sweeper):
    """Hydra's way to a sweep's values."""

    __module__ = "hydra_plugins.drawn"

    def __init__(self, n_trials: int | None):
        self.trials = n_trials

    def setup(self, **context) -> None:
        self.context = context

    def sweep(self, arguments: list[str]):
        try:
            if self.trials is None:
                _listed(arguments)
                return self._combinations(arguments)
            if not isinstance(self.trials, int):
                raise Problem(f"hydra.sweeper.n_trials is {self.trials}", "give a whole number: `hydra.sweeper.n_trials=12`")
            space = search_space.read(arguments, self.trials)
            return Search(space, self.trials, composer(self.context["hydra_context"], self.context["config"])).run()
        except Problem as problem:
            ended(problem)

    def _combinations(self, arguments: list[str]):
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # not before: Hydra loads it anew when it looks for plugins

        sweeper = BasicSweeper(max_batch_size=None)
        sweeper.setup(**self.context)
        return sweeper.sweep(arguments)


def _listed(words: list[str]) -> None:
    for override in OverridesParser.create().parse_overrides(words):
        if override.value_type is ValueType.INTERVAL_SWEEP:
            what = f"`{override.input_line}` does not say which values to try: a search draws them, and needs `hydra.sweeper.n_trials`"
            raise Problem(what, "say how many runs: `hydra.sweeper.n_trials=12`, or name the values: `train.lr=1e-4,2e-4`")


class Search(Sweep):
    """The trials so far, and the process of the one that runs."""

    def __init__(self, space: search_space.Space, trials: int, compose: Callable[[list[str]], Recipe]):
        self.space, self.trials, self.compose = space, trials, compose
        first, *_ = [self._recipe(words) for words in space.corners()]  # every value is checked before anything is trained
        self.seed, self.runs = first.seed, Path(first.runs).resolve()
        super().__init__([], named(first))

    def run(self) -> dict[str, float]:
        """Train until there are enough trials, show who is best; the scores by run. A trial that fails is told as that."""
        self._listen()
        self.jobs = [job for _, folder in standing(self.runs, self.name) if (job := self._known(folder))]
        for number, job in enumerate(self.jobs, start=1):
            self._trial(number, job)
        while len(self.jobs) < self.trials and (job := self._next()):
            self.jobs.append(job)
            self._trial(len(self.jobs), job)
        return self._end()

    def _recipe(self, own: list[str]) -> Recipe:
        recipe = self.compose([*self.space.fixed, *own])
        recipe.provenance.swept = own
        return recipe

    def _known(self, folder: Path) -> Job | None:
        """The trial that a run is; None where it is none of this search."""
        made = settings(folder) if (folder / "config.yaml").exists() else None
        if made is None or self.space.values(made.provenance.swept) is None:
            return None
        if load.fingerprint(made) != load.fingerprint(self._recipe(made.provenance.swept)):
            return None
        # A search has gone on without a trial that failed, and does so again.
        return Job(made, shown(made.provenance.swept), folder, None if sealed(folder) else _failed(folder))

    def _next(self) -> Job | None:
        """A trial of values that no run of this sweep has; None where nothing is left to draw."""
        seen = {load.fingerprint(job.settings) for job in self.jobs}
        before = [search_space.Told(self.space.values(job.settings.provenance.swept), _score(job)) for job in self.jobs]
        for own in self.space.draws(before, self.seed):
            try:
                recipe = self._recipe(own)
            except Problem as problem:  # each value can be, these together cannot
                print(f"{shown(own)} cannot be trained: {problem.what}", flush=True)
                continue
            if load.fingerprint(recipe) not in seen:
                recipe.run_id = self.name
                return place([recipe], [own])[0]
        print(f"nothing else is left to try after {len(self.jobs)} trials", flush=True)
        return None

    def _trial(self, number: int, job: Job) -> None:
        title = f"trial {number} of {max(self.trials, len(self.jobs))}: {job.name} ({job.words})"
        if job.problem:
            print(f"{title} has failed: {job.problem.what}", flush=True)
            return
        self._one(job, title)
        if job.problem and not _failed(job.folder):
            what = f"{job.problem.what}; {self._so_far()}"
            raise Problem(what, f"{job.problem.hint}; then {self._again} goes on", job.problem.reason)

    def _so_far(self) -> str:
        return f"{sum(sealed(job.folder) for job in self.jobs)} of {self.trials} trials are finished"

    def _end(self) -> dict[str, float]:
        entries, failed = self._rank(), [job for job in self.jobs if job.problem]
        what = f"{len(failed)} of {len(self.jobs)} trials failed:\n{each(failed)}"
        if not entries:
            raise Problem(what, f"{failed[0].problem.hint}; a search under another name begins anew: `run_id=NAME`", "crashed")
        if failed:
            print(what, flush=True)
        return {entry.run_id: entry.score for entry in entries}


def _score(job: Job) -> float | None:
    return leaderboard.score(job.folder) if sealed(job.folder) else None


def _failed(folder: Path) -> Problem | None:
    """Why the run failed, where that is its own and says nothing about the next."""
    problem = told(folder)
    return problem if problem and problem.reason in OWN else None
