"""`inv doctor`: reads the settings, examines, and says what it found. What only the trainer knows is handed over."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from conf import schema
from conf.cli import settings
from conf.problem import Problem
from conf.text.visible import visible
from remote.aws.session import Aws
from remote.build import ecr
from remote.doctor import diagnose
from remote.doctor.check import Check, Look
from remote.runs import hub


def doctor(c, as_json: bool, root: Path, driver: int, check_access: Callable) -> bool:
    """Print every finding; whether all is well. `driver` is the oldest that the image works with, `check_access` looks at the Hub."""
    seen = []
    try:
        run = settings(c, fetch=functools.partial(diagnose.fetch, seen))
        found = diagnose.examine(context(run, root, driver), [hub_check(check_access)])
    except Problem as problem:
        if not seen:  # AWS was not asked yet: it is the words behind `--`
            raise
        found = diagnose.unread(seen, problem)
    print(diagnose.as_json(found) if as_json else visible(diagnose.text(found)))
    return diagnose.fine(found)


def context(run: schema.Run, root: Path, driver: int) -> Look:
    """What is examined."""
    tag = ecr.tag(root, run.cloud.build_args)
    return Look(Aws(run.cloud), run, tag, os.environ.get("HF_ENDPOINT", "https://huggingface.co"), driver)


def hub_check(check_access: Callable) -> Check:
    """A check of the Hub's token and of the base model."""

    def look(at: Look):
        return check_access(at.run, os.environ.get("HF_ENDPOINT"), hub.token(at.aws))

    return Check("token", "the base model and the published adapter need it", look)
