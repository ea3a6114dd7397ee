"""What a plan asks about a run before it is paid for. The trainer's preflight finds it out, given what AWS knows: token, card, price."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from conf.price import HourlyPrice
from conf.problem import Problem
from conf.process.screen import coloured, screen


@dataclass(frozen=True)
class Forecast:
    """How long a run of some settings will take."""

    planned: float | None  # seconds; None where only the trainer can tell


@dataclass(frozen=True)
class Needs(Forecast):
    """What it needs besides."""

    need_gb: int  # room for the model and its run
    per_hour: float | None  # USD of the box; None where nobody says


class Preflight:
    """`load` imports the trainer's preflight: it takes a while, and reads the environment once, so nobody does before it is needed."""

    def __init__(self, load: Callable[[], ModuleType]):
        self.load = load

    def check_inputs(self, aws: Any, settings: Any) -> Needs:
        """Check rows, token and base model before anything is paid for, and tell what the run will need."""
        from remote.runs import earlier_adapter

        earlier_adapter.check(aws, settings)
        prices = card_and_price(aws, settings)
        facts, report = self.load().run_checks(settings, *access(aws), *prices, False)
        for line in report.details:
            screen.detail(line)
        _print_notes(report)
        return Needs(report.seconds, facts["need_gb"], prices[1].per_hour)

    def estimate_cost(self, aws: Any, settings: Any) -> Forecast:
        """Tell what the run will cost."""
        try:
            seen = self.load().inspect(settings, *access(aws))
            report = self.load().make_report(seen, settings, *card_and_price(aws, settings), False)
        except Problem as problem:  # `train` needs these rows and this model, a box does not
            screen.note(f"  price    of the run unknown: {problem.what}")
            return Forecast(None)
        _print_notes(report)
        return Forecast(report.seconds)

    def training_rows(self, aws: Any, settings: Any) -> int | None:
        """How many rows there are to train on; None where only the trainer can read them."""
        seen = self.load().inspect(settings, *access(aws))
        return len(seen.rows.sampler.examples) if seen.rows else None

    def too_small(self, aws: Any, settings: Any) -> list[str]:
        """The fleet's types on which the planned run has no room; none where only the trainer can tell."""
        from remote.aws import gpu

        types = tuple(settings.fleet.instance_type)
        cards, seen = gpu.cards(aws, types), self.load().inspect(settings, *access(aws))
        if not seen.shape:
            return []
        given = {kind: (card.name, card.bytes, min(card.count, settings.fleet.gpus or card.count)) for kind, card in cards.items()}
        fitting = {kind for kind, (_, fits) in self.load().estimate_cards(seen, settings, given).items() if fits}
        return [kind for kind in types if kind not in fitting]

    def cached(self) -> Callable[[Any, Any], Needs]:
        """`check_inputs` for the jobs of a sweep, without its lines: rows and model are looked at once for all jobs that have the same."""
        cache: dict[str, Any] = {}

        def check(aws: Any, run: Any) -> Needs:
            facts, rows = self.load().check_inputs(run, *access(aws)), repr((run.model, run.data))
            if rows not in cache:
                cache[rows] = self.load().inspect(run, *access(aws))
            prices = card_and_price(aws, run)
            return Needs(self.load().make_report(cache[rows], run, *prices, False).seconds, facts["need_gb"], prices[1].per_hour)

        return check

    def show(self, aws: Any, run: Any, root: Path) -> str:
        """Show what would be created, what training needs, which boxes would be cheaper or faster; and return the price, to stand last."""
        from remote.build import ecr
        from remote.cost import fleet_price, offers
        from remote.runs import earlier_adapter, fleet

        earlier_adapter.check(aws, run)
        on_fleet, tag = run.fleet.engine.value != "none", ecr.tag(root, run.cloud.build_args)
        screen.print(fleet_price.describe(aws, run, tag) if on_fleet else offers.describe_existing(aws, run, tag))
        run = fleet.as_box(run) if on_fleet else run
        seen = self.load().inspect(run, *access(aws))
        need = functools.partial(self.load().estimate_cards, seen, run)
        fitting, small = offers.offers(aws, run, need) if seen.shape else ([], [])
        report = self.load().run_checks(run, *access(aws), *card_and_price(aws, run), coloured(sys.stdout), seen)[1]
        print("\n".join([*report.details, *report.notes]))
        if fitting:
            screen.print(offers.table(fitting))
            if small:
                screen.print(f"too small for this run: {', '.join(small)}")
        if on_fleet:
            return "\n".join(fleet_price.lines(run, fleet_price.outlook(aws, run, report.seconds), report.seconds))
        return report.price or "price    unknown"


def _print_notes(report: Any) -> None:
    """Print what the user must know of a run before it is paid for."""
    for line in [*report.notes, *([report.price] if report.price else [])]:
        screen.note(f"  {line}")


def access(aws: Any) -> tuple[str | None, str]:
    """The Hub's address where the environment names another, and the token."""
    from remote.runs import hub

    return os.environ.get("HF_ENDPOINT"), hub.token(aws)


def card_and_price(aws: Any, run: Any) -> tuple:
    """The card of the box, or of the one that `up` would launch, and its price to plan with."""
    from remote.aws import gpu, instance, pricing

    kind = instance.type_of(aws, run.box)
    return gpu.card(aws, kind), HourlyPrice(kind, *pricing.planned(aws, kind, run.cost.per_hour))
