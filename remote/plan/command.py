"""A plan as a verb carries it out: rehearsed or performed, its result shown, and a line about it in the audit."""

import contextlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from conf.cli import rehearsed
from conf.problem import Problem
from conf.process.screen import screen

if TYPE_CHECKING:
    from conf import schema
    from remote.plan.plan import Plan


def planned() -> ModuleType:
    """The plans; imported late, for `inv --list` needs none."""
    from remote.plan import verbs

    return verbs


def train_plan(run: "schema.Run") -> Callable[..., "Plan"]:
    """The plan by which these settings train: on the box, or on a fleet."""
    if run.fleet.engine.value == "none":
        return planned().train
    from remote.plan import fleet_verbs

    return fleet_verbs.train


def down_plan(run: "schema.Run", force: bool, snapshot: bool, purge: bool, yes: bool, fleet: bool) -> "Plan":
    """The plan by which the box stops or is gone for good, or the stack's fleet is left empty."""
    if not fleet:
        return planned().purge(run, force, yes, snapshot) if purge else planned().down(run, force, snapshot)
    if force or snapshot or purge:
        raise Problem("`--fleet` is about no box", "leave the other options out: `inv down --fleet`")
    from remote.plan import fleet_verbs

    return fleet_verbs.down()


def perform(c: Any, run: "schema.Run", verb: str, plan: "Plan", audited: bool = True) -> None:
    """Carry out or rehearse a plan, say its final words, and leave a line in the audit where the bucket is to stay."""
    from remote.aws.s3 import Store
    from remote.aws.session import Aws
    from remote.plan.perform import Outcome, perform, rehearse
    from remote.runs import audit

    if rehearsed(c, f"# {verb}"):
        print(rehearse(plan))
        return
    started, aws, outcome = time.monotonic(), Aws(run.cloud), Outcome()
    with screen.verb(verb):
        try:
            perform(plan, aws, planned().transport(run), outcome)
        except BaseException:
            # What went wrong is what the user must read, whether or not the audit can be written.
            with contextlib.suppress(Exception):
                if audited:
                    audit.write(Store(aws), verb, run.box.name, time.monotonic() - started, "failed", outcome.parts)
            raise
        if audited:
            audit.write(Store(aws), verb, run.box.name, time.monotonic() - started, "ok", outcome.parts)
        if outcome.done:
            screen.result(outcome.done, plan.next)
