"""Which trials of a search are given up early: successive halving by Optuna's own pruner, replayed over all that trials have measured.

Nothing is kept: whoever looks at the same measurements decides the same.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

REDUCTION = 2  # of the trials that were trained as far as one half goes on; with Optuna's own four, of a dozen three would


@dataclass(frozen=True)
class Measurement:
    """What a trial has measured on held-out rows."""

    trial: str
    time: datetime
    step: int
    score: float  # more is better
    words: str  # what was measured, for people


def behind(measured: Iterable[Measurement], first: int, finished: Collection[str] = ()) -> dict[str, Measurement]:
    """The trials that are to be given up, each with the measurement that shows it.

    They are compared after `first` steps, and then each time when twice as many are done. Those that have finished were not given up,
    whatever they measured: nobody may have looked. What others measure afterwards does not count.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trials: dict[str, Any] = {}
    given_up: dict[str, Measurement] = {}
    for each in sorted(measured, key=lambda one: (one.time, one.trial, one.step)):
        if each.trial in given_up:
            continue
        if each.trial not in trials:
            trials[each.trial] = study.ask()
        trial = trials[each.trial]
        trial.report(each.score, each.step)
        if trial.should_prune() and each.trial not in finished:
            given_up[each.trial] = each
    return given_up
