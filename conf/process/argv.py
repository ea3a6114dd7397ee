"""What was typed behind `--`: the one place that reads argv. It imports nothing heavy, for what must be on the screen at once."""

import sys
from pathlib import Path

from conf import renamed
from conf.text import secret


def overrides(argv: list[str] | None = None) -> list[str]:
    """The overrides after `--`, as the shell passed them, old names of settings replaced. `argv` is this process's where it is None."""
    words = sys.argv if argv is None else argv
    typed = words[words.index("--") + 1 :] if "--" in words else []
    secret.know_overrides(typed)
    return renamed.words(typed)


def of_inv() -> bool:
    """Whether this process is `inv`, and none that only imports the verbs."""
    return Path(sys.argv[0]).name in ("inv", "invoke") or Path(sys.argv[0]).parts[-2:] == ("invoke", "__main__.py")


def before_overrides() -> list[str]:
    """Verbs with their options."""
    words = sys.argv[1:]
    return words[: words.index("--")] if "--" in words else words


def add(word: str) -> None:
    """One more override, as if it had been typed: an option of a verb that means a setting of all that follow."""
    sys.argv += [word] if "--" in sys.argv else ["--", word]
