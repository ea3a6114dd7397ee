"""Every combination of settings that are given several values, by Hydra's own reading of the words."""

import shlex
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from conf.override_words import spelled
from conf.problem import Problem


def combinations(words: list[str]) -> list[tuple[list[str], list[str]]]:
    """For each combination all its words, and of them those that set it apart."""
    overrides = read(words)
    swept = {key for key, override in overrides.items() if override.is_sweep_override()}
    if not swept:
        raise Problem("nothing is to be swept: no setting has several values", "give one several: `inv sweep -- lora.r=8,16`")
    if endless := [override.input_line for override in overrides.values() if override.value_type is ValueType.INTERVAL_SWEEP]:
        hint = f"`inv sweep --trials 12 -- {shlex.join(words)}`, or name the values: `train.lr=1e-4,2e-4`"
        raise Problem(f"`{endless[0]}` does not say which values to try: a search draws them, and needs `--trials`", hint)
    found = [dict(zip(overrides, chosen, strict=True)) for chosen in product(*map(values, overrides.values()))]
    return [(list(one.values()), [word for key, word in one.items() if key in swept]) for one in found]


def read(words: list[str]) -> dict[str, Override]:
    """The words by the settings that they are about; the last one of a setting is meant, as ever."""
    try:
        return {override.get_key_element(): override for override in OverridesParser.create().parse_overrides(spelled(words))}
    except HydraException as error:
        hint = "quote values that hold spaces or brackets: inv sweep -- 'lora.r=8,16' 'train.lr=choice(1e-4,2e-4)'"
        raise Problem(str(error).splitlines()[0], hint) from error


def values(override: Override) -> list[str]:
    """A word for each value that is listed."""
    if not override.is_sweep_override():
        return [override.input_line]
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        hint = f"name the values: `{override.key_or_group}=A,B` or `{override.key_or_group}=range(1,4)`"
        raise Problem(f"`{override.input_line}` does not say which values to try", hint)
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
