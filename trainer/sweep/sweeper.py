"""A sweep on this machine, as Hydra asks for it: each combination of values, or values that are drawn by the scores of the runs before.

python -m trainer -m run_id=rank lora.r=8,16,32         the runs rank.0, rank.1 and rank.2
python -m trainer -m hydra.sweeper.n_trials=12 run_id=rank 'train.lr=tag(log,interval(1e-5,1e-3))' lora.r=8,16,32
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from conf import load
from conf.problem import Problem
from conf.schema import Recipe
from conf.sweep import grid, space
from conf.sweep.search import Search
from conf.sweep.sweep import Grid
from conf.text import secret
from trainer.sweep.launcher import ProcessLauncher

USAGE = grid.Usage("python -m trainer -m", "python -m trainer -m hydra.sweeper.n_trials=12", "hydra.sweeper.n_trials")


class OneByOne(Sweeper):
    __module__ = "hydra_plugins.one_by_one"

    def __init__(self, n_trials: int | None):
        self.trials = n_trials

    def setup(self, *, hydra_context, config, task_function) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def sweep(self, arguments: list[str]) -> None:
        try:
            sweep = self._asked(arguments)
            sweep.run(ProcessLauncher(Path(sweep.first.runs).resolve()), sweep.first.run_id)
        except Problem as problem:
            print(f"error: {secret.hide(str(problem))}", file=sys.stderr, flush=True)
            sys.exit(130 if problem.reason == "killed" else 1)

    def _asked(self, words: list[str]) -> Grid[Recipe] | Search[Recipe]:
        if self.trials is None:
            return Grid(grid.combinations(words, USAGE), self._compose)
        if not isinstance(self.trials, int):
            raise Problem(f"hydra.sweeper.n_trials is {self.trials}", "give a whole number: `hydra.sweeper.n_trials=12`")
        return Search(space.read(words, self.trials), self.trials, self._compose)

    def _compose(self, words: list[str]) -> Recipe:
        return load.recipe(self.loader.load_sweep_config(self.config, words))


def register() -> None:
    """Let `-m` know it: conf/hydra/sweeper/one_by_one.yaml names it."""
    Plugins.instance().register(OneByOne)
    # Hydra makes plugins only of a package that is called hydra_plugins, and finds them by that name.
    package = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    vars(package)["one_by_one"] = SimpleNamespace(OneByOne=OneByOne)
