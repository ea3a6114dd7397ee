"""`inv sweep`: a run for each combination of values, or for values that are drawn by the scores of the runs before."""

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from conf import schema
from conf.cli import overrides, rehearsed, settings
from conf.problem import Problem
from conf.process import argv
from conf.process.screen import screen
from conf.sweep import grid, space
from conf.sweep.search import Search
from conf.sweep.sweep import Grid
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.plan import verbs
from remote.plan.command import train_plan
from remote.plan.perform import rehearse
from remote.plan.preflight import Preflight
from remote.sweep.fleet_launcher import FleetLauncher
from remote.sweep.launcher import BoxLauncher
from remote.sweep.on_fleet import ON_BOX, OnFleet

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
ROWS = "data.train_rows"
CURVE = grid.Usage("inv curve --", "inv sweep --trials 12 --", "--trials")
USAGE = grid.Usage("inv sweep --", "inv sweep --trials 12 --", "--trials")


def sweep(
    c, name: str | None, trials: int | None, root: Path, preflight: Preflight, leaderboard: ModuleType, on_fleet: OnFleet = ON_BOX
) -> None:
    """Carry it out, or rehearse it. `leaderboard` ranks and scores folders of runs."""
    if on_fleet.at_once and not any(word.startswith("fleet=") for word in overrides()):
        argv.add("fleet=batch")
    words, compose = overrides(), functools.partial(settings, c)
    if trials is None:
        sweep: Grid | Search = Grid(grid.combinations(words, USAGE), compose)
    else:
        sweep = Search(space.read(words, trials), trials, compose)
        on_fleet = replace(on_fleet, at_once=on_fleet.at_once or 1) if sweep.first.fleet.engine is not schema.Engine.none else on_fleet
    on_fleet.check(sweep.first, trials is not None)
    if rehearsed(c, _rehearsal(sweep, on_fleet=on_fleet)):
        print(rehearse(train_plan(sweep.first)(sweep.first, root, preflight.check_inputs, on_fleet.detach)))
        return
    options: tuple[str, ...] = () if trials is None else ("--trials", str(trials))
    options += ("--fleet", str(on_fleet.at_once)) if on_fleet.at_once else ()
    options += ("--prune",) if on_fleet.prune else ()
    _run(sweep, "sweep", name, BoxLauncherParts(root, preflight.cached(), leaderboard, options, on_fleet))


def curve(c, name: str | None, root: Path, preflight: Preflight, learning_curve: ModuleType) -> None:
    """A run for each number of training rows, and their scores against it; or a rehearsal. `learning_curve` measures folders of runs."""
    words, compose = overrides(), functools.partial(settings, c)
    if not any(word.lstrip("+").startswith(f"{ROWS}=") for word in words):
        if rehearsed(c, f"# curve\ncall   Count the rows, and choose numbers of them\n# then as `inv curve -- {ROWS}=32,128,null`"):
            return
        words = [*words, f"{ROWS}={','.join(map(str, _row_numbers(compose(words), preflight)))},null"]
    combinations = grid.combinations(words, CURVE)
    if any([word.partition("=")[0] for word in apart] != [ROWS] for _, apart in combinations):
        hint = f"several values of {ROWS} alone; a sweep has those of others: `inv sweep -- lora.r=8,16`"
        raise Problem("a curve is about the number of rows, and another setting has several values too", hint)
    sweep: Grid = Grid(combinations, compose)
    for job in sweep.jobs:
        _check_steps(job.settings)
    if rehearsed(c, _rehearsal(sweep, "curve")):
        print(rehearse(train_plan(sweep.first)(sweep.first, root, preflight.check_inputs, False)))
        return
    _run(sweep, "curve", name, BoxLauncherParts(root, preflight.cached(), learning_curve, ()))


def _row_numbers(run: schema.Run, preflight: Preflight) -> list[int]:
    """Two or more numbers of rows below all of them, each four times the one before."""
    rows = preflight.training_rows(Aws(run.cloud), run)
    if rows is None:
        raise Problem("only the trainer can count these rows", f"say which numbers of them to train on: `inv curve -- {ROWS}=128,512,null`")
    numbers = [number for number in (8 * 4**power for power in range(12)) if rows / 64 <= number <= rows / 1.5]
    if len(numbers) < 2:
        numbers = [rows // 16, rows // 4]
    if numbers[0] < 2:
        raise Problem(f"{rows} rows are too few for a curve", f"say which numbers of them to train on: `inv curve -- {ROWS}=10,20,null`")
    return numbers


def _check_steps(run: schema.Run) -> None:
    """A Problem where the steps end before all these rows were seen: more rows would change nothing."""
    reached = run.train.steps and run.train.steps * run.train.batch_size
    if reached and (run.data.train_rows is None or run.data.train_rows > reached):
        what = f"{run.train.steps} steps of {run.train.batch_size} rows see {reached} rows, however many there are"
        raise Problem(what, "let epochs decide: `inv curve -- train.steps=null train.epochs=3`")


@dataclass(frozen=True)
class BoxLauncherParts:
    """What a launcher is made of besides the account."""

    root: Path
    find_needs: verbs.Check
    ranking: ModuleType  # its `best` and its `score` read folders of runs
    options: tuple[str, ...]
    on_fleet: OnFleet = ON_BOX


def _run(sweep: Grid | Search, verb: str, name: str | None, parts: BoxLauncherParts) -> None:
    if name and not NAME.fullmatch(name):
        raise Problem(f"a {verb} cannot be called {name!r}", "use small letters, digits, '-', '_' and '.': `--name rank-and-rate`")
    aws = Aws(sweep.first.cloud)
    store = Store(aws)
    store.check_bucket()
    of_both = aws, store, parts.root, parts.find_needs, parts.ranking.best, parts.ranking.score, parts.options, verb
    on_box = sweep.first.fleet.engine is schema.Engine.none
    launcher = BoxLauncher(*of_both) if on_box else FleetLauncher(*of_both, **vars(parts.on_fleet))
    with screen.verb(verb):
        sweep.run(launcher, name)


def _rehearsal(sweep: Grid | Search, verb: str = "sweep", on_fleet: OnFleet = ON_BOX) -> str:
    """What a sweep would do, in words."""
    first = " ".join(sweep.first.provenance.swept)
    trials = [f"Train, or find finished, trial 1 of {sweep.total}: {first}"]
    if sweep.total > 1:
        some = f", {on_fleet.at_once} at once" if (on_fleet.at_once or 1) > 1 else ""
        trials.append(f"Draw the next one's values by the scores so far and train it, until there are {sweep.total}{some}")
    if on_fleet.prune:
        trials.append(f"End those early that fall behind, after {sweep.first.train.eval_steps} steps, twice as many, and so on")
    jobs = [f"Train, or find finished, job {number} of {sweep.total}: {job}" for number, job in enumerate(sweep.jobs, start=1)]
    calls = [
        *(jobs or trials),
        "Rank the finished runs by their scores" if verb == "sweep" else "Show their scores against the number of rows",
    ]
    return "\n".join([f"# {verb}", *(f"call   {call}" for call in calls), f"# each {sweep.noun}, as `inv train` does it"])
