"""The parts of a plan, as plain data: a `Step` runs a script on the box, a `Call` asks AWS for something."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
# What is sent between lib.sh and a script.
ABOVE = {
    "train": ("container",),
    "cancel": ("container",),
    "supervise": ("container", "ship"),
    "predict": ("container", "finished"),
    "evaluate": ("container", "finished"),
}


@dataclass(frozen=True)
class Fact:
    """Stands for a value that an earlier part of the plan finds out."""

    name: str

    def __str__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True)
class Step:
    """A script of remote/scripts, run on the box with `settings` as shell variables; it answers facts."""

    script: str
    settings: dict = field(default_factory=dict)
    timeout: int = 120  # seconds
    when: Fact | None = None  # left out unless this fact is "yes"
    said: bool = True
    again: Fact | None = None  # run once more while this fact is "yes"; what it says meanwhile is for people
    spare: str = ""  # what is said, and gone on after, where the box does not take the script or fails at it

    def text(self, facts: dict) -> str:
        """The self-contained bash text: settings, lib.sh, what else stands above the script, and the script."""
        return compose(self.script, {"LEASE": self.timeout} | filled(self.settings, facts))


@dataclass(frozen=True)
class Call:
    """A function `action(aws, **settings) -> facts`; the first line of its docstring is what it intends."""

    action: Callable
    settings: dict = field(default_factory=dict)
    when: Fact | None = None
    said: bool = True  # whether a line tells that it was done

    @property
    def intent(self) -> str:
        return (self.action.__doc__ or self.action.__name__).strip().splitlines()[0]


def filled(settings: dict, facts: dict) -> dict:
    """`settings` with every Fact replaced by what is known of it, or left to print as <name>."""
    return {key: facts.get(value.name, value) if isinstance(value, Fact) else value for key, value in settings.items()}


def compose(script: str, settings: dict) -> str:
    """A script of remote/scripts, with what it needs above it, as one text that needs nothing else on the box."""
    parts = "\n".join(body(name) for name in ["lib", *ABOVE.get(script, ()), script])
    return f"#!/bin/bash\n{settings_block(settings)}{parts}"


def settings_block(settings: dict) -> str:
    """The only generated part of a script: quoted assignments."""
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())


def body(script: str) -> str:
    return (SCRIPTS / f"{script}.sh").read_text(encoding="utf-8").removeprefix("#!/bin/bash\n")
