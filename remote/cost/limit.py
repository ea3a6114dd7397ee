"""What a run may cost: `cost.limit` is enforced before anything is paid for, and by the box itself while it runs."""

import math
from dataclasses import dataclass

from conf import schema
from conf.problem import Problem
from remote.aws import instance, pricing
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.cost import box_usage


@dataclass(frozen=True)
class MaxLife:
    life_hours: float  # the longest that the box may live


@dataclass(frozen=True)
class RemainingLife:
    life_left: int | None  # seconds that are still paid for; None: there is no limit


@dataclass(frozen=True)
class BoxPrice:
    per_hour: float | None  # USD; None where nobody says


def box_price(aws: Aws, run: schema.Run) -> BoxPrice:
    """Tell what an hour of the box costs."""
    return BoxPrice(pricing.planned(aws, instance.type_of(aws, run.box), run.cost.per_hour)[0])


def enforce(aws: Aws, run: schema.Run, planned: float | None = None) -> MaxLife:
    """Refuse what would cost more than `cost.limit`; shorten the box's longest life to what it pays for."""
    limit, hours = run.cost.limit, run.box.max_hours
    if limit is None:
        return MaxLife(hours)
    kind, rate, source = _rate(aws, run)
    hours_planned = (planned or 0) / 3600
    dollars = hours_planned * rate
    if dollars > limit:
        raise Problem(
            f"the run is planned to cost ${dollars:.2f}, and cost.limit is ${limit:.2f}: {hours_planned:.1f} h of {kind} "
            f"at ${rate:.4f} an hour ({source})",
            f"`cost.limit={math.ceil(dollars * 1.2)}` allows it; `train.max_hours={limit / rate * 0.8:.1f}` ends it earlier; "
            "`inv plan` lists cheaper boxes",
            reason="refused",
        )
    return MaxLife(min(hours, limit / rate))


def remaining_life(aws: Aws, run: schema.Run, instance_id: str, run_id: str | None = None) -> RemainingLife:
    """Let the box stop itself when `cost.limit` is spent, by the ledger: what it has cost since its start, and the run before that."""
    limit = run.cost.limit
    if limit is None:
        return RemainingLife(None)
    _, rate, _ = _rate(aws, run)
    stretches = box_usage.usage(Store(aws), instance.find(aws, run.box.name))
    mine = [usage for usage in stretches if (usage.running and usage.instance == instance_id) or (run_id and usage.run == run_id)]
    rates = {kind: pricing.planned(aws, kind, run.cost.per_hour)[0] for kind in {usage.instance_type for usage in mine} if kind}
    spent = sum(usage.seconds / 3600 * (rates.get(usage.instance_type) or rate) for usage in mine)
    if spent >= limit:
        raise Problem(
            f"{run_id or instance_id} has cost ${spent:.2f} already, and cost.limit is ${limit:.2f}",
            f"`cost.limit={math.ceil(spent + limit)}` lets it go on; `inv costs` shows the ledger, `inv down` stops the box",
            reason="refused",
        )
    return RemainingLife(int((limit - spent) / rate * 3600))


def _rate(aws: Aws, run: schema.Run) -> tuple[str, float, str | None]:
    """The box's type, USD an hour of it, and who says so."""
    kind = instance.type_of(aws, run.box)
    rate, source = pricing.planned(aws, kind, run.cost.per_hour)
    if rate is None:
        what = f"cost.limit=${run.cost.limit:.2f} cannot be enforced: no price is known for {kind} in {aws.cloud.region}"
        raise Problem(what, "set the price, `cost.per_hour=USD`, or drop the limit, `cost.limit=null`", reason="refused")
    return kind, rate, source
