"""A question before something is changed or removed for good."""

import sys

from conf.problem import Problem
from conf.process.screen import screen, shown


def ask(yes: bool, what: str, otherwise: str = "nothing was removed", hint: str = "agree beforehand with `--yes`") -> None:
    """Nothing when the user agrees; a Problem otherwise."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Problem(f"there is no terminal to ask at: {what}", hint, reason="refused")
    with screen.paused():
        answer = input(f"{shown(what)} [y/N] ").strip().lower()
    if answer not in ("y", "yes"):
        raise Problem(otherwise, "run it again and answer y", reason="refused")
