"""What a plan asks about a run before it is paid for. The trainer's preflight finds it out, given what AWS knows: token, card, price."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from conf.problem import Problem
from conf.text import visible


class Preflight:
    """`load` imports the trainer's preflight: it takes a while, and reads the environment once, so nobody does before it is needed."""

    def __init__(self, load: Callable[[], ModuleType]):
        self.load = load

    def check_inputs(self, aws, settings) -> dict:
        """Check rows, token and base model before anything is paid for, and tell what the run will need."""
        facts, lines = self.report(aws, settings, coloured(sys.stderr))
        print("\n".join(lines), file=sys.stderr)
        return facts

    def report(self, aws, run, colour: bool, seen=None) -> tuple[dict, list[str]]:
        return self.load().prove(run, *access(aws), *card_and_price(aws, run), colour, seen)

    def estimate_cost(self, aws, settings) -> dict:
        """Tell what the run will cost."""
        try:
            seen = self.load().look(settings, *access(aws))
            lines, seconds = self.load().told(seen, settings, *card_and_price(aws, settings), False)
        except Problem as problem:  # `train` needs these rows and this model, a box does not
            lines, seconds = [f"price    of the run unknown: {problem.what}"], None
        print(f"  {lines[-1]}", file=sys.stderr, flush=True)
        return {"planned": seconds}

    def cached(self) -> Callable:
        """`check_inputs` for the jobs of a sweep, without its lines: rows and model are looked at once for all jobs that have the same."""
        cache = {}

        def check(aws, run) -> dict:
            facts, rows = self.load().check(run, *access(aws)), repr((run.model, run.data))
            if rows not in cache:
                cache[rows] = self.load().look(run, *access(aws))
            return facts | {"planned": self.load().told(cache[rows], run, *card_and_price(aws, run), False)[1]}

        return check

    def show(self, aws, run, root: Path) -> None:
        """What would be created, what training needs, which boxes would be cheaper or faster; the price last."""
        from remote.build import ecr
        from remote.cost import offers

        print(offers.standing(aws, run, ecr.tag(root, run.cloud.build_args)))
        seen = self.load().look(run, *access(aws))
        need = functools.partial(self.load().needs, seen, run)
        found, small = offers.offers(aws, run, need) if seen.shape else ([], [])
        lines = self.report(aws, run, coloured(sys.stdout), seen)[1]
        print("\n".join(lines[:-1]))
        if found:
            visible.screen(width=120).print(offers.table(run, found))
            print(f"too small for this run: {', '.join(small)}\n" if small else "", end="")
        print(lines[-1])


def coloured(stream) -> bool:
    """Whether colours are wanted there: on a terminal, unless NO_COLOR (https://no-color.org) says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def access(aws) -> tuple[str | None, str]:
    """The Hub's address where the environment names another, and the token."""
    from remote.runs import hub

    return os.environ.get("HF_ENDPOINT"), hub.token(aws)


def card_and_price(aws, run) -> tuple:
    """The box's card, and its price to plan with."""
    from remote.aws import gpu, pricing

    return gpu.card(aws, run.box.instance_type), pricing.planned(aws, run.box.instance_type, run.cost.per_hour)
