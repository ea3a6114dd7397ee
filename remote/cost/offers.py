"""What the chain would create or start, and which other boxes would do: shown before anything is paid for."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.table import Table

from conf import schema
from remote.aws import gpu, instance, pricing, volume
from remote.aws.session import Aws
from remote.build import ecr

# In the order of their prices in us-east-1. Those with several GPUs train by as many processes (`train.processes`).
TYPES = (
    *("g4dn.xlarge", "g6.xlarge", "g6.2xlarge", "g5.xlarge", "g5.2xlarge", "g6e.xlarge", "g6e.2xlarge"),
    *("g6.12xlarge", "p5.4xlarge", "g6e.12xlarge", "p4d.24xlarge", "p5.48xlarge"),
)

# Types with their card, its bytes and how many there are, to planned seconds, and whether the run fits.
Need = Callable[[dict[str, tuple[str, int, int]]], dict[str, tuple[float, bool]]]


@dataclass(frozen=True)
class Offer:
    """A box that could do the run."""

    kind: str
    card: gpu.Card
    seconds: float  # nan where nobody knows
    hourly: float | None
    spot: float | None
    mine: bool  # the box's own type, or the first that `up` would launch

    @property
    def dollars(self) -> float:
        return math.nan if self.hourly is None else self.seconds / 3600 * self.hourly


def describe_existing(aws: Aws, run: schema.Run, tag: str) -> str:
    """What is there, and what `up` and `deploy` would add to it."""
    box, digest = instance.find(aws, run.box.name), ecr.find_digest(aws, tag)[1]
    market = " on spot, if there is room," if run.box.spot else ""
    types = run.box.instance_types
    if run.box.reservation:
        types, market = [instance.type_of(aws, run.box)], f" into {run.box.reservation}, which costs the same whether it is used or not,"
    new = f"none; a {' or '.join(types)} with a root disk of {run.box.root_gb} GB would be launched{market}".rstrip(",")
    words = {"running": "runs", "stopped": "is stopped and would be started", "stopping": "is stopping and would be started"}
    lines = [f"box      {f'{box.id}, {box.instance_type}, {words.get(box.state, box.state)}' if box else new}"]
    monthly, _ = pricing.disk_month(aws, run.box.disk_type)
    paid = f"${monthly * run.box.disk_gb:.2f} a month while it exists" if monthly else "price unknown"
    disk = volume.describe(aws, run.box.name).removeprefix("volume ").removeprefix("volume: ")
    new_volume = f"none; {run.box.disk_gb} GB of {run.box.disk_type} would be created, {paid}"
    lines.append(f"volume   {new_volume if disk.startswith('none') else disk}")
    lines.append(f"image    {f'{digest} is in ECR' if digest else f'none of this tree in ECR; the box would build it (tag {tag})'}")
    return "\n".join(lines)


def offers(aws: Aws, run: schema.Run, need: Need) -> tuple[list[Offer], list[str]]:
    """Boxes whose card the run fits into, the cheapest for it first; and the types that are too small."""
    mine = instance.type_of(aws, run.box)
    cards = gpu.cards(aws, tuple(dict.fromkeys((*TYPES, *run.box.instance_types, mine))))
    needed = need({kind: (card.name, card.bytes, card.count) for kind, card in cards.items()})
    fitting = [kind for kind in cards if needed[kind][1] or kind == mine]
    spots = pricing.spot(aws, fitting)
    with ThreadPoolExecutor(8) as pool:
        rates = dict(
            zip(
                fitting,
                pool.map(lambda kind: pricing.planned(aws, kind, run.cost.per_hour if kind == mine else None)[0], fitting),
                strict=True,
            )
        )
    offered = [Offer(kind, cards[kind], needed[kind][0], rates[kind], spots.get(kind), kind == mine) for kind in fitting]
    return sorted(offered, key=lambda one: (math.isnan(one.dollars), one.dollars)), [kind for kind in cards if kind not in fitting]


def table(offered: list[Offer]) -> Table:
    """The chosen box, and those that are cheaper or faster for this run."""
    shown = Table("type", "card", "hours", "USD an hour", "USD for the run", "on spot", "", box=None, pad_edge=False)
    mine = next((offer for offer in offered if offer.mine), None)
    for offer in offered:
        verdict = "yours" if offer is mine else comparison(offer, mine)
        if verdict:
            spot = None if offer.spot is None else offer.seconds / 3600 * offer.spot
            hours = "unknown" if math.isnan(offer.seconds) else f"{offer.seconds / 3600:.2f}"
            shown.add_row(offer.kind, offer.card.words, hours, money(offer.hourly, 4), money(offer.dollars), money(spot), verdict)
    return shown


def comparison(offer: Offer, mine: Offer | None) -> str:
    """In which way another box is better for this run, if in any."""
    if mine is None:
        return "fits"
    return " and ".join(
        word for word, better in (("cheaper", offer.dollars < mine.dollars), ("faster", offer.seconds < mine.seconds)) if better
    )


def money(dollars: float | None, digits: int = 3) -> str:
    return "unknown" if dollars is None or math.isnan(dollars) else f"{dollars:.{digits}f}"
