"""Settings that 0.1.0 called otherwise; their old names work until 0.3.0.

Whoever types or writes an old name gets what is meant, and is told the new one. A saved run is read under either name for good and
without a word: nobody may change what it holds.
"""

import os
import re
import sys

from conf.problem import Problem
from conf.text.visible import visible

NEW_NAMES = {
    "train.hours": "train.max_hours",
    "train.rows_per_step": "train.batch_size",
    "train.recompute": "train.gradient_checkpointing",
    "train.schedule": "train.lr_scheduler",
    "train.warmup": "train.warmup_ratio",
    "train.decay": "train.decay_ratio",
    "train.clip": "train.max_grad_norm",
    "train.eval_every": "train.eval_steps",
    "train.best": "train.metric_for_best_model",
    "train.patience": "train.early_stopping_patience",
    "train.save_every": "train.save_steps",
    "train.keep": "train.save_total_limit",
    "train.eval_batch": "train.eval_batch_size",
    "train.trackers": "train.report_to",
    "data.learn": "data.loss_on",
    "quant.double": "quant.double_quant",
    "cloud.grade": "cloud.backend",
}
WORD = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>[^=@~+\s]+)(?P<value>=.*)?", re.DOTALL)
REFERENCE = re.compile(r"(?<!\\)\$\{(?P<name>[a-z_.]+)\}")  # OmegaConf's, to another setting


def words(given: list[str]) -> list[str]:
    """The overrides with their settings' new names; a Problem where both names have a value, and not the same."""
    made = [word(each) for each in given]
    for old, new in zip(given, made, strict=True):
        if old == new:
            continue
        tell(key(old))
        if other := next((each for each in given if key(each) == key(new) and each != new), None):
            raise Problem(f"`{old}` and `{other}` are one setting with two values", f"leave out the old name: `{other}`")
    return made


def word(given: str) -> str:
    """The override with its setting's new name."""
    match = WORD.fullmatch(given)
    return f"{match['sign']}{NEW_NAMES[match['key']]}{match['value'] or ''}" if match and match["key"] in NEW_NAMES else given


def references(text: str, place: str) -> str:
    """A value of a file, with what it refers to under new names."""

    def renamed(match: re.Match) -> str:
        if match["name"] not in NEW_NAMES:
            return match[0]
        tell(match["name"], place)
        return f"${{{NEW_NAMES[match['name']]}}}"

    return REFERENCE.sub(renamed, text)


def with_old_names(values: dict) -> dict:
    """Settings as all releases before called them."""
    made = {room: dict(each) if isinstance(each, dict) else each for room, each in values.items()}
    for (room, old), (_, new) in ((old.split("."), new.split(".")) for old, new in NEW_NAMES.items()):
        if new in made.get(room, {}):
            made[room][old] = made[room].pop(new)
    return made


_told: set[str] = set()


def tell(old: str, place: str = "") -> None:
    """Name the new name, once in a command; of several processes that train one run, the first one does."""
    if old not in _told and os.environ.get("RANK", "0") == "0":
        _told.add(old)
        where = f"{visible(place)}: " if place else ""
        print(f"  {where}`{old}` is now `{NEW_NAMES[old]}`; the old name works until 0.3.0", file=sys.stderr, flush=True)


def key(given: str) -> str:
    match = WORD.fullmatch(given)
    return match["key"] if match else ""
