"""The scripts of remote/scripts as texts: each travels whole, with its settings and what it needs above it."""

import re
import shlex
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
# What is sent between lib.sh and a script.
ABOVE = {
    "train": ("container",),
    "cancel": ("container",),
    "supervise": ("container", "ship", "notify"),
    "predict": ("container", "finished"),
    "evaluate": ("container", "finished"),
    "serve": ("container", "finished"),
}
REQUIRED = re.compile(r"\$\{([A-Z][A-Z0-9_]*):?\?[\w. ]+ needs \1\}")
VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)")


def needs(script: str) -> set[str]:
    """The settings without which it ends at once."""
    return set(REQUIRED.findall(_whole(script)))


def variables(script: str) -> set[str]:
    """The settings that it reads."""
    return set(VARIABLE.findall(_whole(script)))


def _whole(script: str) -> str:
    return "\n".join(body(name) for name in ["lib", *ABOVE.get(script, ()), script])


def compose(script: str, settings: dict) -> str:
    """A script of remote/scripts, with what it needs above it, as one text that needs nothing else on the box."""
    return f"#!/bin/bash\n{settings_block(settings)}{_whole(script)}"


def settings_block(settings: dict) -> str:
    """The only generated part of a script: quoted assignments."""
    return "".join(f"{name}={shlex.quote(word(value))}\n" for name, value in settings.items())


def word(value: object) -> str:
    """A value as scripts read it: yes and no, several words with spaces between, nothing for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def body(script: str) -> str:
    return (SCRIPTS / f"{script}.sh").read_text(encoding="utf-8").removeprefix("#!/bin/bash\n")
