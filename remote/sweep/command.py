"""`inv sweep`: a run for each combination of values, or for values that are drawn by the scores of the runs before."""

import functools
import re
from pathlib import Path
from types import ModuleType

from conf.cli import overrides, rehearsed, settings
from conf.problem import Problem
from conf.process.screen import screen
from conf.sweep import grid, space
from conf.sweep.sweep import Grid, Search
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.plan import verbs
from remote.plan.perform import rehearse
from remote.plan.preflight import Preflight
from remote.sweep.launcher import BoxLauncher

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
USAGE = grid.Usage("inv sweep --", "inv sweep --trials 12 --", "--trials")


def sweep(c, name: str | None, trials: int | None, root: Path, preflight: Preflight, leaderboard: ModuleType) -> None:
    """Carry it out, or rehearse it. `leaderboard` ranks and scores folders of runs."""
    words, compose = overrides(), functools.partial(settings, c)
    if trials is None:
        sweep: Grid | Search = Grid(grid.combinations(words, USAGE), compose)
    else:
        sweep = Search(space.read(words, trials), trials, compose)
    if rehearsed(c, _rehearsal(sweep)):
        print(rehearse(verbs.train(sweep.first, root, preflight.check_inputs, False)))
        return
    if name and not NAME.fullmatch(name):
        raise Problem(f"a sweep cannot be called {name!r}", "use small letters, digits, '-', '_' and '.': `--name rank-and-rate`")
    aws = Aws(sweep.first.cloud)
    store = Store(aws)
    store.check_bucket()
    options = () if trials is None else ("--trials", str(trials))
    with screen.verb("sweep"):
        sweep.run(BoxLauncher(aws, store, root, preflight.cached(), leaderboard.best, leaderboard.score, options), name)


def _rehearsal(sweep: Grid | Search) -> str:
    """What a sweep would do, in words."""
    first = " ".join(sweep.first.provenance.swept)
    trials = [f"Train, or find finished, trial 1 of {sweep.total}: {first}"]
    if sweep.total > 1:
        trials.append(f"Draw the next one's values by the scores so far and train it, until there are {sweep.total}")
    jobs = [f"Train, or find finished, job {number} of {sweep.total}: {job}" for number, job in enumerate(sweep.jobs, start=1)]
    calls = [*(jobs or trials), "Rank the finished runs by their scores"]
    return "\n".join(["# sweep", *(f"call   {call}" for call in calls), f"# each {sweep.noun}, as `inv train` does it"])
