"""Every combination of settings that are given several values, by Hydra's own reading of the words."""

from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from conf.override_words import quoted
from conf.problem import Problem
from conf.text.quoting import without_secrets


@dataclass(frozen=True)
class Usage:
    """How a sweep is asked for, as hints say it."""

    command: str  # before the words of a sweep
    search: str  # before the words of a search
    trials: str  # what says how many values a search draws


def combinations(words: list[str], usage: Usage) -> list[tuple[list[str], list[str]]]:
    """For each combination all its words, and of them those that set it apart."""
    overrides = read(words)
    swept = {key for key, override in overrides.items() if override.is_sweep_override()}
    if not swept:
        raise Problem("nothing is to be swept: no setting has several values", f"give one several: `{usage.command} lora.r=8,16`")
    if intervals := [override.input_line for override in overrides.values() if override.value_type is ValueType.INTERVAL_SWEEP]:
        what = f"`{intervals[0]}` does not say which values to try: a search draws them, and needs `{usage.trials}`"
        raise Problem(what, f"`{usage.search} {without_secrets(words)}`, or name the values: `train.lr=1e-4,2e-4`")
    chosen = [dict(zip(overrides, each, strict=True)) for each in product(*map(values, overrides.values()))]
    return [(list(each.values()), [word for key, word in each.items() if key in swept]) for each in chosen]


def read(words: list[str]) -> dict[str, Override]:
    """The words by the settings that they are about; the last one of a setting is meant, as ever."""
    try:
        return {override.get_key_element(): override for override in OverridesParser.create().parse_overrides(quoted(words))}
    except HydraException as error:
        hint = "quote values that hold spaces or brackets: `inv sweep -- 'lora.r=8,16' 'train.lr=choice(1e-4,2e-4)'`"
        raise Problem(str(error).splitlines()[0], hint) from error


def values(override: Override) -> list[str]:
    """A word for each value that is listed."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        hint = f"name the values: `{override.key_or_group}=A,B` or `{override.key_or_group}=range(1,4)`"
        raise Problem(f"`{override.input_line}` does not say which values to try", hint)
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
