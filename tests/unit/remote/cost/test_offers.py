"""`inv plan`: what would come to be, and which boxes are cheaper or faster for this very run."""

import math
from pathlib import Path

import pytest

from conf import load
from remote.aws import gpu
from remote.cost import offers

GB = 2**30
SPEED = {"NVIDIA T4": 8, "NVIDIA L4": 121, "NVIDIA A10G": 70, "NVIDIA L40S": 362, "NVIDIA H100": 989}


def run(*words):
    return load.load(["cloud=twin", *words], local=Path("none"))


def need(gigabytes: float):
    """A run that needs so much memory on a card, and takes an hour on an L4."""
    return lambda cards: {
        kind: (3600 * 121 / SPEED.get(name, math.nan) / count, size >= gigabytes * GB) for kind, (name, size, count) in cards.items()
    }


def test_only_what_fits_is_offered_the_cheapest_for_the_run_first(aws):
    fitting, small = offers.offers(aws, run(), need(20))
    dollars = [one.dollars for one in fitting if not math.isnan(one.dollars)]
    assert dollars == sorted(dollars) and "g4dn.xlarge" in small
    assert {"g6.xlarge", "g6.2xlarge", "g5.xlarge", "g6e.xlarge"} <= {one.kind for one in fitting}
    by_kind = {one.kind: one for one in fitting}
    assert by_kind["g6.2xlarge"].dollars == pytest.approx(0.9776)
    assert 0.5 < by_kind["g6e.xlarge"].dollars < 0.7 and by_kind["g6e.xlarge"].seconds == pytest.approx(3600 * 121 / 362)
    assert 0 < by_kind["g6.2xlarge"].spot < by_kind["g6.2xlarge"].hourly


def test_a_larger_run_leaves_the_small_cards_out(aws):
    fitting, small = offers.offers(aws, run("box.instance_type=g6e.xlarge"), need(30))
    assert {one.card.name for one in fitting} <= {"NVIDIA L40S", "NVIDIA A100", "NVIDIA H100"} and "g6.2xlarge" in small


def test_the_table_has_the_chosen_one_and_what_is_better_in_some_way(aws):
    card = gpu.Card("NVIDIA L4", 24 * GB)
    mine = offers.Offer("g6.2xlarge", card, 3600, 1.0, 0.4, True)
    offered = [
        mine,
        offers.Offer("a", card, 3600, 0.8, None, False),
        offers.Offer("b", card, 600, 9.0, None, False),
        offers.Offer("c", card, 600, 1.0, None, False),
    ]
    offered += [offers.Offer("slow", card, 7200, 2.0, None, False), offers.Offer("unpriced", card, 60, None, None, False)]
    shown = offers.table(offered)
    rows = list(zip(*(column._cells for column in shown.columns), strict=True))
    assert [(row[0], row[-1]) for row in rows] == [
        ("g6.2xlarge", "yours"),
        ("a", "cheaper"),
        ("b", "faster"),
        ("c", "cheaper and faster"),
        ("unpriced", "faster"),
    ]
    assert rows[0][2:6] == ("1.00", "1.0000", "1.000", "0.400") and rows[4][3:6] == ("unknown", "unknown", "unknown")


def test_what_is_there_is_told_from_what_would_come_to_be(aws):
    text = offers.describe_existing(aws, run("box.name=nobody"), "0" * 16)
    assert "box      none; a g6.2xlarge with a root disk of 100 GB would be launched" in text
    assert "volume   none; 100 GB of gp3 would be created, $8.00 a month" in text
    assert "the box would build it" in text
