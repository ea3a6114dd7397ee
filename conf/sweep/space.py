"""A search's values: what may be tried, by Hydra's own reading of the words, and what comes next, drawn by Optuna's TPE.

Nothing is kept: a draw follows from the seed and from the trials before it, so a search that was broken off goes on as if it had not been.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from hydra.core.override_parser.types import Override, ValueType

from conf import schema
from conf.problem import Problem
from conf.sweep import grid

FIRST = 5  # trials drawn at random; with Optuna's own ten, a dozen would learn next to nothing
GREEDY, DRAWS = 10, 100  # draws for one trial that go by the scores; and all of them, before a space is taken to be used up


@dataclass(frozen=True)
class Trial:
    """A trial that was drawn: its values as `Space.draw` gave them, and its score; None where it failed, or has none yet."""

    values: dict[str, float]
    score: float | None
    goes_on: bool = False
    measured: dict[int, float] = field(default_factory=dict)  # by step, of one that was given up early

    @property
    def state(self) -> str:
        """Optuna's name for what has become of it."""
        if self.goes_on:
            return "RUNNING"
        return "COMPLETE" if self.score is not None else "PRUNED" if self.measured else "FAIL"


@dataclass(frozen=True)
class Axis:
    """A setting with several values: an interval, or a list that is known by places in it."""

    key: str
    low: float
    high: float
    whole: bool = False  # only whole numbers
    log: bool = False
    listed: tuple[str, ...] = ()
    ordered: bool = False  # a list whose neighbours are alike

    def word(self, value: float) -> str:
        return f"{self.key}={self.listed[int(value)] if self.listed else _text(value, self.whole)}"

    def value(self, text: str) -> float | None:
        """What stands for this text of a setting; None where it is none of the axis."""
        if self.listed:
            return self.listed.index(text) if text in self.listed else None
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            return None
        return value if self.low <= value <= self.high else None

    def plain(self, value: float) -> float:
        """The value as its word says it: six digits are the same on every machine."""
        return value if self.whole else min(max(float(_text(value, False)), self.low), self.high)

    def distribution(self):
        from optuna import distributions as kinds

        if self.listed and not self.ordered:
            return kinds.CategoricalDistribution(list(range(len(self.listed))))
        kind: Any = kinds.IntDistribution if self.whole else kinds.FloatDistribution
        return kind(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Space:
    fixed: list[str]  # the words that all trials have
    axes: list[Axis]

    def words(self, values: dict[str, float]) -> list[str]:
        """What sets a trial apart."""
        return [axis.word(values[axis.key]) for axis in self.axes]

    def values(self, words: list[str]) -> dict[str, float] | None:
        """The values that these words give; None where a trial of this space would have others."""
        texts = dict(word.split("=", 1) for word in words)
        axes = [axis for axis in self.axes if axis.key in texts]
        values = {axis.key: value for axis in axes if (value := axis.value(texts[axis.key])) is not None}
        return values if len(texts) == len(values) == len(self.axes) else None

    def corners(self) -> list[list[str]]:
        """The fewest trials that have every listed value, and both ends of every interval."""
        ends = [range(len(axis.listed)) if axis.listed else (axis.low, axis.high) for axis in self.axes]
        return [
            [axis.word(end[min(place, len(end) - 1)]) for axis, end in zip(self.axes, ends, strict=True)]
            for place in range(max(map(len, ends)))
        ]

    def draws(self, trials: list[Trial], seed: int) -> Iterator[list[str]]:
        """Words for the next trial that no trial had yet, the best guess first; few or none where nearly all were tried."""
        seen = [self.words(trial.values) for trial in trials]
        for attempt in range(DRAWS):
            words = self.words(self.draw(trials, seed, attempt))
            if words not in seen:
                seen.append(words)
                yield words

    def draw(self, trials: list[Trial], seed: int, attempt: int = 0) -> dict[str, float]:
        """The next trial's values; another `attempt` gives others."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        axes = {axis.key: axis.distribution() for axis in self.axes}
        # A seed for each draw: a sampler that goes on would have to be kept.
        own = random.Random(f"{seed} {len(trials)} {attempt}").getrandbits(32)
        # Who goes by the scores would never come to the last of a few values.
        kinds = optuna.samplers
        greedy = kinds.TPESampler(n_startup_trials=FIRST, seed=own, constant_liar=True)  # it keeps away from trials that go on
        sampler = greedy if attempt < GREEDY else kinds.RandomSampler(seed=own)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in trials:
            state = optuna.trial.TrialState[trial.state]
            about: dict[str, Any] = {"params": trial.values, "distributions": axes, "intermediate_values": trial.measured}
            study.add_trial(optuna.trial.create_trial(state=state, value=trial.score, **about))
        drawn = study.ask(axes).params
        return {axis.key: axis.plain(drawn[axis.key]) for axis in self.axes}


def read(words: list[str], trials: int) -> Space:
    """What the words let a search try; a Problem where it cannot be one, or Optuna is not installed."""
    if trials < 1:
        raise Problem(f"a search of {trials} trials tries nothing", "ask for 1 or more; 12 are a beginning")
    overrides = grid.read(words)
    swept = [override for override in overrides.values() if override.is_sweep_override()]
    if not swept:
        hint = "give one several: `lora.r=8,16`, `'train.lr=tag(log,interval(1e-5,1e-3))'`"
        raise Problem("nothing is to be searched: no setting has several values", hint)
    if find_spec("optuna") is None:
        raise Problem("a search draws its values with Optuna, which is not installed here", "`pip install optuna`, or list the values")
    fixed = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
    return Space(fixed, [_axis(override) for override in swept])


def _axis(override: Override) -> Axis:
    key = override.get_key_element()
    if override.value_type is not ValueType.INTERVAL_SWEEP:
        listed = tuple(word.partition("=")[2] for word in grid.values(override))
        return Axis(key, 0, len(listed) - 1, whole=True, listed=listed, ordered=override.value_type is ValueType.RANGE_SWEEP)
    interval: Any = override.value()
    low, high, log = interval.start, interval.end, "log" in interval.tags
    hint = f"`'{key}=interval(1,8)'`, or `'{key}=tag(log,interval(1,8))'`"
    if strange := sorted(interval.tags - {"log"}):
        raise Problem(f"`{override.input_line}` is tagged {', '.join(strange)}, which means nothing here", f"only `log` does: {hint}")
    whole = isinstance(low, int) or _whole(key)
    low, high = (math.ceil(low), math.floor(high)) if whole else (low, high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise Problem(f"`{override.input_line}` is an interval with nothing in it", f"the lower end first, and a higher one: {hint}")
    if log and low <= 0:
        raise Problem(f"`{override.input_line}` begins at {low:g}, and logarithms begin above 0", f"give a lower end above 0: {hint}")
    return Axis(key, low, high, whole, log)


def _whole(key: str) -> bool:
    """Whether the setting takes whole numbers only."""
    kind: object = schema.Run
    for name in key.lstrip("+").split("."):
        fields = getattr(kind, "__dataclass_fields__", {})
        if name not in fields:
            return False
        kind = fields[name].type
    return kind in (int, int | None)


def _text(value: float, whole: bool) -> str:
    return str(value) if whole else f"{value:.6g}"
