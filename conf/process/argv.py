"""What was typed behind `--`: the one place that reads argv. It imports nothing heavy, for what must be on the screen at once."""

import sys

from conf import renamed
from conf.text import secret


def overrides(argv: list[str] | None = None) -> list[str]:
    """The overrides after `--`, as the shell passed them, old names of settings replaced. `argv` is this process's where it is None."""
    words = sys.argv if argv is None else argv
    typed = words[words.index("--") + 1 :] if "--" in words else []
    secret.know_overrides(typed)
    return renamed.words(typed)


def add(word: str) -> None:
    """One more override, as if it had been typed: an option of a verb that means a setting of all that follow."""
    sys.argv += [word] if "--" in sys.argv else ["--", word]
