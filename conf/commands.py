"""Commands in messages, with the settings that were typed: without them the user would run them on another cloud, box or run.

Messages name a command in backticks, as in `inv up`. Those of a script or of the trainer, which know of no overrides, get them here too.
"""

import re

from conf import renamed
from conf.problem import Problem
from conf.process import argv
from conf.text.quoting import without_secrets

COMMAND = re.compile(r"`inv ([a-z][^`]{0,4000})`")
WITHOUT_SETTINGS = re.compile(r"data\.build\b|bench\.")


def runnable(text: str, words: list[str] | None = None) -> str:
    """The text, each of whose commands has the overrides behind its `--`: those of this process where none are given.

    A setting that the command gives a value itself keeps that one, so that a text may come here twice.
    """
    typed = _typed() if words is None else words
    return COMMAND.sub(lambda found: f"`inv {_with(typed, found[1])}`" if typed else found[0], text)


def _typed() -> list[str]:
    """What was typed; nothing where it contradicts itself, which is what the message says then."""
    try:
        return argv.overrides()
    except Problem:
        return []


def _with(typed: list[str], command: str) -> str:
    if WITHOUT_SETTINGS.match(command):
        return command
    verbs, _, own = command.partition(" -- ")
    settled = {renamed.key(word.strip("$'\"")) for word in own.split()}
    swept = verbs.split()[0] == "sweep"
    fitting = [word for word in typed if renamed.key(word) not in settled and (swept or not _of_several_values(word))]
    words = [*filter(None, [without_secrets(fitting)]), *([own] if own else [])]
    return " ".join([verbs, "--", *words]) if words else verbs


def _of_several_values(word: str) -> bool:
    """Whether it is of a sweep: `lora.r=8,16` is no setting of any other verb."""
    from conf.sweep import grid

    if not set(word) & set(",("):
        return False
    try:
        return any(override.is_sweep_override() for override in grid.read([word]).values())
    except Problem:
        return False  # what nobody can read is as it was typed
