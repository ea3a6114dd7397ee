"""What a run on the fleet will cost as planned, and what it can cost at most: shown before anything is paid for."""

import math
from dataclasses import dataclass

from conf import schema
from remote.aws import fleet, pricing
from remote.aws.session import Aws
from remote.build import ecr

WORDS = {schema.Market.spot: "on spot", schema.Market.on_demand: "on demand", schema.Market.spot_first: "on spot, else on demand"}


@dataclass(frozen=True)
class Outlook:
    expected: float | None  # USD of all runs as planned; None where nobody says
    ceiling: float | None  # USD of all runs, whatever happens to them
    hourly: float | None  # USD an hour that is expected
    dearest: float | None  # USD an hour on demand of the dearest type


def outlook(aws: Aws, run: schema.Run, seconds: float | None, runs: int = 1) -> Outlook:
    """The price of so many runs, which are planned to take so long in all.

    At most each has an instance of the dearest type for all of its attempts, at its price on demand: Batch pays no more for spot unless it
    is told to (API Reference, ComputeResource, bidPercentage). `cost.limit` ends it earlier.
    """
    types, settings = list(run.fleet.instance_type), run.fleet
    on_demand = {kind: pricing.planned(aws, kind, run.cost.per_hour)[0] for kind in types}
    known = [usd for usd in on_demand.values() if usd is not None]
    dearest = max(known) if len(known) == len(types) else None
    spot = {} if settings.market is schema.Market.on_demand or run.cost.per_hour is not None else pricing.spot(aws, types)
    hourly = min(spot.values(), default=None) if settings.market is not schema.Market.on_demand else None
    hourly = hourly if hourly is not None else min(known, default=None)
    ceiling = None if dearest is None else runs * dearest * settings.max_hours * settings.attempts
    if run.cost.limit is not None:
        ceiling = min(ceiling if ceiling is not None else math.inf, runs * run.cost.limit)
    planned = seconds is not None and not math.isnan(seconds)
    return Outlook(seconds / 3600 * hourly if planned and hourly is not None and seconds else None, ceiling, hourly, dearest)


def lines(run: schema.Run, seen: Outlook, seconds: float | None, runs: int = 1) -> list[str]:
    """The outlook in words."""
    settings = run.fleet
    if seen.expected is None or seconds is None:
        price = "price    unknown: " + ("the time is" if seen.hourly is not None else "AWS has no price of these types")
    else:
        rate = f"${seen.hourly:.4f} an hour {WORDS[settings.market].split(',')[0]} now"
        price = f"price    about ${seen.expected:.2f}{f' for {runs} runs' if runs > 1 else ' a run'}: {seconds / 3600:.2f} h at {rate}"
    if seen.ceiling is None:
        return [price, "ceiling  unknown: AWS has no price of these types; `cost.limit=USD` sets one"]
    if run.cost.limit is not None and math.isclose(seen.ceiling, runs * run.cost.limit):
        return [price, f"ceiling  ${seen.ceiling:.2f}: {runs} x cost.limit"]
    parts = f"{runs} x ${seen.dearest:.4f} an hour on demand x {settings.max_hours:g} h x {settings.attempts} attempts"
    return [price, f"ceiling  ${seen.ceiling:.2f}: {parts}; `cost.limit=USD` lowers it"]


def describe(aws: Aws, run: schema.Run, tag: str) -> str:
    """What there is of the fleet and of this tree's image."""
    there = {one["computeEnvironmentName"]: one for one in fleet.environments(aws)}
    names = [f"{run.cloud.own}-{name}" for name in fleet.MARKETS[run.fleet.market]]
    types = " or ".join(run.fleet.instance_type)
    if missing := [name for name in names if name not in there]:
        words = f"none in this account ({', '.join(missing)}): `inv init -- fleet=batch` makes it"
    else:
        most = ", ".join(f"{there[name]['computeResources']['maxvCpus']} vCPUs of {name}" for name in names)
        words = f"AWS Batch, {types} {WORDS[run.fleet.market]}, up to {most}; nothing is paid while no run is there"
    digest = ecr.find_digest(aws, tag)[1]
    image = f"{digest} is in ECR" if digest else f"none of this tree in ECR (tag {tag}): `inv up deploy down` builds it on a box once"
    return f"fleet    {words}\nimage    {image}"
