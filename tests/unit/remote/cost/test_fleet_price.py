"""What a run on the fleet will cost, and what it can cost at most."""

import math
from types import SimpleNamespace

import pytest

from remote.aws import pricing
from remote.cost import fleet_price

ON_DEMAND, SPOT = {"g6.2xlarge": 1.0, "g5.2xlarge": 1.25}, {"g6.2xlarge": 0.4, "g5.2xlarge": 0.5}
BATCH = ("fleet=batch", "fleet.instance_type=[g6.2xlarge,g5.2xlarge]", "fleet.max_hours=10", "fleet.attempts=4")


@pytest.fixture(autouse=True)
def prices(monkeypatch):
    monkeypatch.setattr(pricing, "planned", lambda aws, kind, own: (own or ON_DEMAND.get(kind), "the list"))
    monkeypatch.setattr(pricing, "spot", lambda aws, types: {kind: SPOT[kind] for kind in types if kind in SPOT})


@pytest.mark.parametrize(
    ("words", "runs", "expected", "ceiling"),
    [
        ((), 1, 0.8, 50),
        (("fleet.market=spot_first",), 1, 0.8, 50),
        (("fleet.market=on_demand",), 1, 2, 50),
        ((), 6, 0.8, 300),  # two hours of all six together
        (("cost.limit=3",), 1, 0.8, 3),
        (("cost.limit=3",), 6, 0.8, 18),
        (("cost.limit=1000",), 1, 0.8, 50),
        (("cost.per_hour=2",), 1, 4, 80),
    ],
)
def test_two_hours_cost_what_the_market_says_and_never_more_than_all_attempts_on_the_dearest_type(settings, words, runs, expected, ceiling):
    run = settings(*BATCH, *words)
    seen = fleet_price.outlook(SimpleNamespace(), run, 7200, runs)
    assert (seen.expected, seen.ceiling) == pytest.approx((expected, ceiling))
    price, most = fleet_price.lines(run, seen, 7200, runs)
    assert f"${expected:.2f} {f'for {runs} runs' if runs > 1 else 'a run'}:" in price and f"${ceiling:.2f}" in most


def test_what_nobody_knows_is_unknown_and_no_figure(settings):
    run = settings(*BATCH, "fleet.instance_type=[g6.2xlarge,x9.huge]", "fleet.market=on_demand")
    seen = fleet_price.outlook(SimpleNamespace(), run, None)
    assert (seen.expected, seen.ceiling) == (None, None)
    assert all("unknown" in line for line in fleet_price.lines(run, seen, None))
    assert fleet_price.outlook(SimpleNamespace(), run, math.nan).expected is None
    limited = settings(*BATCH, "fleet.instance_type=[g6.2xlarge,x9.huge]", "cost.limit=5")
    assert fleet_price.outlook(SimpleNamespace(), limited, None).ceiling == 5
