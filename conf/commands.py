"""Commands in messages, with the settings that were typed: without them the user would run them on another cloud, box or run.

Messages name a command in backticks, as in `inv up`. Those of a script or of the trainer, which know of no overrides, get them here too.
"""

import re
from pathlib import Path

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


def recorded() -> list[str]:
    """The overrides of this process for the record of a run: without secrets, files by names that hold in any folder."""
    from conf import override_words

    words = [word for word in _typed() if without_secrets([word])]
    return override_words.quoted(words, Path.cwd())


def again(words: list[str], *own: str) -> str:
    """Recorded overrides as words of a command, behind `own` ones, which they give way to. What is no setting is left out, for they are a
    run's; and so is what only its cloud had."""
    from conf import setting_types

    settled = {_group(word) for word in own}
    fitting = [
        word
        for word in words
        if setting_types.kind_of(_key(word)) and _group(word) not in settled | {"cloud", "run_id"} and not _of_several_values(word)
    ]
    return " ".join([*own, *filter(None, [without_secrets(fitting)])])


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


def is_about(word: str, setting: str) -> bool:
    """Whether the override gives this setting a value."""
    return renamed.key(word) == setting


def _group(word: str) -> str:
    """What a word settles: a setting; all of the cloud's are one."""
    key = renamed.key(word)
    return "cloud" if key.startswith("cloud.") else key


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
    other_cloud = "cloud" in settled and not verbs.startswith("twin.")  # what was typed about one cloud means nothing on another
    swept = verbs.split()[0] in ("sweep", "curve")
    fitting = [
        word
        for word in typed
        if renamed.key(word) not in settled
        and (swept or not _of_several_values(word))
        and not (other_cloud and renamed.key(word).startswith("cloud."))
    ]
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
