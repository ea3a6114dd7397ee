"""`inv doctor`: reads the settings, examines, and says what it found. What only the trainer knows is handed over."""

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conf import commands, schema
from conf.cli import settings
from conf.problem import Problem
from conf.process.screen import screen, shown
from conf.text import secret
from remote.aws.session import Aws
from remote.build import ecr
from remote.doctor import diagnose, fleet
from remote.doctor.check import Check, Context
from remote.runs import hub


def doctor(c, as_json: bool, root: Path, driver: int, check_access: Callable, too_small: Callable) -> bool:
    """Print every finding; whether all is well. `driver` is the oldest that the image works with, `check_access` looks at the Hub,
    `too_small` names types of the fleet that the planned run has no room on."""
    login_findings = []
    with screen.verb("doctor", "Look for every reason why the chain would fail"):
        try:
            run = settings(c, fetch=functools.partial(diagnose.fetch, login_findings))
            findings = diagnose.run_checks(make_context(run, root, driver), [hub_check(check_access), *fleet.checks(too_small)])
        except Problem as problem:
            if not login_findings:  # AWS was not asked yet: it is the words behind `--`
                raise
            findings = diagnose.settings_unreadable(login_findings, problem)
    findings = [replace(one, command=commands.runnable(one.command)) for one in findings]
    print(secret.hide(diagnose.as_json(findings)) if as_json else shown(diagnose.as_text(findings)))
    return diagnose.all_ok(findings)


def make_context(run: schema.Run, root: Path, driver: int) -> Context:
    """What is examined."""
    tag = ecr.tag(root, run.cloud.build_args)
    return Context(Aws(run.cloud), run, tag, os.environ.get("HF_ENDPOINT", "https://huggingface.co"), driver)


def hub_check(check_access: Callable) -> Check:
    """A check of the Hub's token and of the base model."""

    def check(context: Context):
        return check_access(context.run, os.environ.get("HF_ENDPOINT"), hub.token(context.aws))

    return Check("token", "the base model and the published adapter need it", check)
