"""What a run may cost is asked before anything is paid for, and left to the box as the time that it may live."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote.aws import instance, instance_history, launch, pricing
from remote.aws.session import Aws
from remote.cost import box_usage, limit
from twin import world

RATE = 0.9776  # of a g6.2xlarge, as the emulated Price List says
HOUR = 3600.0


def run(*words):
    return load.load(["cloud=twin", *words], local=Path("none"))


@pytest.fixture
def no_price_list(aws):
    state = Path(os.environ["AWS_CONFIG_FILE"]).parent
    world.fault(state, "server-error", only="pricing.*", count=0)
    yield
    world.clear_faults(state)


def test_without_a_limit_nothing_is_refused_and_life_is_what_the_box_has(aws):
    assert limit.enforce(aws, run(), planned=1e9) == limit.MaxLife(12)
    assert limit.remaining_life(aws, run(), "i-1") == limit.RemainingLife(None)


def test_what_is_planned_to_cost_more_is_refused_with_figure_and_way_out(aws):
    with pytest.raises(Problem) as caught:
        limit.enforce(aws, run("cost.limit=2"), planned=3 * HOUR)
    assert "planned to cost $2.93, and cost.limit is $2.00: 3.0 h of g6.2xlarge at $0.9776 an hour (AWS Price List" in caught.value.what
    assert all(word in caught.value.hint for word in ("`cost.limit=4`", "`train.max_hours=1.6`", "`inv plan`"))


def test_what_the_hint_names_is_enough(aws):
    assert limit.enforce(aws, run("cost.limit=4"), planned=3 * HOUR).life_hours == pytest.approx(4 / RATE)


def test_the_limit_shortens_the_longest_life_and_never_lengthens_it(aws):
    assert limit.enforce(aws, run("cost.limit=1"), planned=60.0).life_hours == pytest.approx(1 / RATE)
    assert limit.enforce(aws, run("cost.limit=500")).life_hours == 12


def test_a_limit_without_a_price_says_how_to_set_it(aws):
    unpriced = ("cost.limit=5", "box.instance_type=p3.16xlarge")
    with pytest.raises(Problem, match="no price is known for p3.16xlarge") as caught:
        limit.enforce(aws, run(*unpriced))
    assert "`cost.per_hour=USD`" in caught.value.hint
    assert limit.enforce(aws, run(*unpriced, "cost.per_hour=24.48")).life_hours == pytest.approx(5 / 24.48)


def report(store, instance_id: str, hours_ago: float, hours: float, ran: str) -> None:
    begun = datetime.now(UTC) - timedelta(hours=hours_ago)
    made = {
        "instance": instance_id,
        "started": begun.isoformat(),
        "seen": (begun + timedelta(hours=hours)).isoformat(),
        "run": "",
        "ran": ran,
    }
    store.put(f"boxes/{instance_id}/{begun:%Y%m%d%H%M%S}.json", json.dumps(made).encode())


def test_the_ledger_counts_what_the_run_has_cost_on_boxes_before(aws, store):
    report(store, "i-1", 9, 1, "mine")
    report(store, "i-1", 7, 5, "another")
    report(store, "i-2", 2, 0.5, "mine")
    left = limit.remaining_life(aws, run("cost.limit=2"), "i-3", "mine").life_left
    assert left == pytest.approx((2 - 1.5 * RATE) / RATE * HOUR, abs=2)
    with pytest.raises(Problem, match=r"mine has cost \$1.47 already, and cost.limit is \$1.00"):
        limit.remaining_life(aws, run("cost.limit=1"), "i-3", "mine")


def running(monkeypatch, instance_id: str, hours: float) -> None:
    """AWS says that this box runs, and since when."""
    begun = (datetime.now(UTC) - timedelta(hours=hours)).replace(microsecond=0)
    box = instance.Instance(instance_id, "running", "", "g6.2xlarge", begun, "", "")
    monkeypatch.setattr(limit.instance, "find", lambda aws, name: box)


def left_of_two_dollars(aws, instance_id: str) -> float:
    return limit.remaining_life(aws, run("cost.limit=2"), instance_id).life_left


def test_a_box_that_runs_has_spent_what_it_costs_since_its_start(aws, store, monkeypatch):
    running(monkeypatch, "i-1", 1)
    assert left_of_two_dollars(aws, "i-1") == pytest.approx((2 - RATE) / RATE * HOUR, abs=5), "its supervisor has not reported yet"
    report(store, "i-1", 0.9, 0.01, "")
    assert left_of_two_dollars(aws, "i-1") == pytest.approx((2 - RATE) / RATE * HOUR, abs=5)


def test_the_time_that_a_box_was_stopped_is_not_paid_for(aws, store, monkeypatch):
    report(store, "i-1", 9, 0.5, "")
    running(monkeypatch, "i-1", 0.1)
    assert left_of_two_dollars(aws, "i-1") == pytest.approx((2 - 0.1 * RATE) / RATE * HOUR, abs=5)


def test_somebody_elses_newer_report_hides_nothing(aws, store, monkeypatch):
    report(store, "i-1", 1, 0.01, "")
    report(store, "i-colleague", 0.5, 0.4, "")
    running(monkeypatch, "i-1", 1)
    assert left_of_two_dollars(aws, "i-1") == pytest.approx((2 - RATE) / RATE * HOUR, abs=5)


def test_each_start_costs_what_its_own_type_costs(aws, store):
    now = datetime.now(UTC).replace(microsecond=0)
    for number, kind in enumerate(("g6.2xlarge", "g6e.2xlarge")):
        begun = now - timedelta(hours=9 - number * 4)
        instance_history.write(aws, instance_history.Uptime(f"i-{number}", kind, begun, begun + timedelta(hours=1)))
        report(store, f"i-{number}", 9 - number * 4 - 0.1, 0.2, "mine")
    spent = RATE + pricing.per_hour(aws, "g6e.2xlarge")[0]
    assert limit.remaining_life(aws, run("cost.limit=10"), "i-3", "mine").life_left == pytest.approx((10 - spent) / RATE * HOUR, abs=5)


def test_a_box_that_turned_itself_off_before_it_had_a_supervisor_has_cost_its_half_hour(aws, store):
    begun = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=9)
    instance_history.write(aws, instance_history.Uptime("i-orphan", "g6.2xlarge", begun, None))
    assert [one.seconds for one in box_usage.usage(store, None)] == [launch.UNATTENDED * 60]


def test_where_the_price_list_is_out_of_reach_a_dated_table_says_so(aws, no_price_list):
    rate, source = pricing.planned(aws, "g6.2xlarge", None)
    assert rate == RATE and "cannot be asked now" in source and "2026-01-19" in source
    assert pricing.planned(aws, "p3.16xlarge", None) == (None, None)
    assert pricing.per_hour(aws, "g6.2xlarge") == (None, None)  # the ledger never takes a remembered one
    elsewhere = Aws(run("cloud.region=eu-west-1").cloud)
    assert pricing.planned(elsewhere, "g6.2xlarge", None) == (None, None)


def test_both_tables_of_prices_say_the_same():
    theirs = json.loads((Path(pricing.__file__).parents[2] / "twin/aws/services/prices.json").read_text())["compute"]
    assert theirs["date"] == pricing.TABLE["date"]
    assert {kind: float(usd) for kind, usd in theirs["prices"].items()}.items() <= pricing.TABLE["prices"].items()
