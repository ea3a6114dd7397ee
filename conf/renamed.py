"""Settings that 0.1.0 called otherwise; their old names work until 0.3.0.

A typed or written old name works, and a line names the new one. A saved run may have either name for good, and no line is printed:
its file cannot be changed.
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


def words(overrides: list[str]) -> list[str]:
    """The overrides with their settings' new names; a Problem where both names have a value, and not the same."""
    renamed = [word(override) for override in overrides]
    for old, new in zip(overrides, renamed, strict=True):
        if old == new:
            continue
        print_new_name(key(old))
        if conflicting := next((override for override in overrides if key(override) == key(new) and override != new), None):
            raise Problem(f"`{old}` and `{conflicting}` are one setting with two values", f"leave out the old name: `{conflicting}`")
    return renamed


def word(override: str) -> str:
    """The override with its setting's new name."""
    match = WORD.fullmatch(override)
    return f"{match['sign']}{NEW_NAMES[match['key']]}{match['value'] or ''}" if match and match["key"] in NEW_NAMES else override


def references(text: str, place: str) -> str:
    """A value of a file, with what it refers to under new names."""

    def renamed(match: re.Match) -> str:
        if match["name"] not in NEW_NAMES:
            return match[0]
        print_new_name(match["name"], place)
        return f"${{{NEW_NAMES[match['name']]}}}"

    return REFERENCE.sub(renamed, text)


def with_old_names(values: dict) -> dict:
    """Settings as all releases before called them."""
    renamed = {room: dict(settings) if isinstance(settings, dict) else settings for room, settings in values.items()}
    for (room, old), (_, new) in ((old.split("."), new.split(".")) for old, new in NEW_NAMES.items()):
        if new in renamed.get(room, {}):
            renamed[room][old] = renamed[room].pop(new)
    return renamed


_printed: set[str] = set()


def print_new_name(old: str, place: str = "") -> None:
    """Print the new name, once in a command; of several processes that train one run, the main one prints."""
    if old not in _printed and os.environ.get("RANK", "0") == "0":
        _printed.add(old)
        where = f"{visible(place)}: " if place else ""
        print(f"  {where}`{old}` is now `{NEW_NAMES[old]}`; the old name works until 0.3.0", file=sys.stderr, flush=True)


def key(override: str) -> str:
    match = WORD.fullmatch(override)
    return match["key"] if match else ""
