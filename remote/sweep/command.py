"""`inv sweep`: a run for each combination of values, or for values that are drawn by the scores of the runs before."""

import functools
from pathlib import Path
from types import ModuleType

from conf import search_space
from conf.cli import overrides, rehearsed, settings
from conf.process.screen import screen
from remote.aws.session import Aws
from remote.plan import verbs
from remote.plan.perform import rehearse
from remote.plan.preflight import Preflight
from remote.sweep import sweep as combinations
from remote.sweep.search import Search


def sweep(c, name: str | None, trials: int | None, root: Path, preflight: Preflight, leaderboard: ModuleType) -> None:
    """Carry it out, or rehearse it. `leaderboard` ranks and scores folders of runs."""
    load = functools.partial(settings, c)
    if trials is None:
        jobs = combinations.jobs(overrides(), load)
        first, words = jobs[0].run, combinations.rehearsal(jobs)
    else:
        ways = {"check": preflight.cached(), "rank": leaderboard.best, "score": leaderboard.score}
        search = Search(search_space.read(overrides(), trials), trials, load, root, **ways)
        first, words = search.first, search.rehearsal()
    if rehearsed(c, words):
        print(rehearse(verbs.train(first, root, preflight.check_inputs, False)))
        return
    with screen.verb("sweep"):
        if trials is None:
            combinations.go(Aws(first.cloud), jobs, name, root, preflight.cached(), leaderboard.best)
        else:
            search.go(Aws(first.cloud), name)
