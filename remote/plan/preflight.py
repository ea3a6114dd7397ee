"""What a plan asks about a run before it is paid for. The trainer's preflight finds it out, given what AWS knows: token, card, price."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from conf.problem import Problem
from conf.text import visible


@dataclass(frozen=True)
class Forecast:
    """How long a run of some settings will take."""

    planned: float | None  # seconds; None where only the trainer can tell


@dataclass(frozen=True)
class Needs(Forecast):
    """What it needs besides."""

    need_gb: int  # room for the model and its run


class Preflight:
    """`load` imports the trainer's preflight: it takes a while, and reads the environment once, so nobody does before it is needed."""

    def __init__(self, load: Callable[[], ModuleType]):
        self.load = load

    def check_inputs(self, aws: Any, settings: Any) -> Needs:
        """Check rows, token and base model before anything is paid for, and tell what the run will need."""
        facts, lines = self.report(aws, settings, coloured(sys.stderr))
        print("\n".join(lines), file=sys.stderr)
        return Needs(facts["planned"], facts["need_gb"])

    def report(self, aws: Any, run: Any, colour: bool, seen: Any = None) -> tuple[dict, list[str]]:
        return self.load().prove(run, *access(aws), *card_and_price(aws, run), colour, seen)

    def estimate_cost(self, aws: Any, settings: Any) -> Forecast:
        """Tell what the run will cost."""
        try:
            seen = self.load().look(settings, *access(aws))
            lines, seconds = self.load().told(seen, settings, *card_and_price(aws, settings), False)
        except Problem as problem:  # `train` needs these rows and this model, a box does not
            lines, seconds = [f"price    of the run unknown: {problem.what}"], None
        print(f"  {lines[-1]}", file=sys.stderr, flush=True)
        return Forecast(seconds)

    def cached(self) -> Callable[[Any, Any], Needs]:
        """`check_inputs` for the jobs of a sweep, without its lines: rows and model are looked at once for all jobs that have the same."""
        cache: dict[str, Any] = {}

        def check(aws: Any, run: Any) -> Needs:
            facts, rows = self.load().check(run, *access(aws)), repr((run.model, run.data))
            if rows not in cache:
                cache[rows] = self.load().look(run, *access(aws))
            planned = self.load().told(cache[rows], run, *card_and_price(aws, run), False)[1]
            return Needs(planned, facts["need_gb"])

        return check

    def show(self, aws: Any, run: Any, root: Path) -> None:
        """What would be created, what training needs, which boxes would be cheaper or faster; the price last."""
        from remote.build import ecr
        from remote.cost import offers

        print(offers.describe_existing(aws, run, ecr.tag(root, run.cloud.build_args)))
        seen = self.load().look(run, *access(aws))
        need = functools.partial(self.load().needs, seen, run)
        fitting, small = offers.offers(aws, run, need) if seen.shape else ([], [])
        lines = self.report(aws, run, coloured(sys.stdout), seen)[1]
        print("\n".join(lines[:-1]))
        if fitting:
            visible.screen(width=120).print(offers.table(run, fitting))
            print(f"too small for this run: {', '.join(small)}\n" if small else "", end="")
        print(lines[-1])


def coloured(stream: Any) -> bool:
    """Whether colours are wanted there: on a terminal, unless NO_COLOR (https://no-color.org) says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def access(aws: Any) -> tuple[str | None, str]:
    """The Hub's address where the environment names another, and the token."""
    from remote.runs import hub

    return os.environ.get("HF_ENDPOINT"), hub.token(aws)


def card_and_price(aws: Any, run: Any) -> tuple:
    """The box's card, and its price to plan with."""
    from remote.aws import gpu, pricing

    return gpu.card(aws, run.box.instance_type), pricing.planned(aws, run.box.instance_type, run.cost.per_hour)
