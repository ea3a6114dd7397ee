"""Whose, which run's and which day's a cost is: whatever way one looks, the sums are what was paid."""

from datetime import UTC, datetime, timedelta

import pytest

from conf.problem import Problem
from remote.cost import shares
from remote.cost.shares import Sum, Use, Work

EVENING = datetime(2026, 11, 30, 22, tzinfo=UTC)
ADA, BOB = "arn:aws:iam::123456789012:user/ada", "arn:aws:sts::123456789012:assumed-role/team/bob"


def at(minutes: float) -> datetime:
    return EVENING + timedelta(minutes=minutes)


def box(minutes: float, dollars: float | None = 4.0, **more) -> Use:
    return Use(EVENING, minutes * 60, dollars, "i-1", ADA, **more)


def work(run_id: str, *spans: tuple[float, float], owner: str = ADA, instance: str = "i-1") -> Work:
    return Work(run_id, owner, tuple((at(begin), at(end)) for begin, end in spans), frozenset({instance}))


def told(uses, works, way: str) -> dict[str, float | None]:
    return {name: each.dollars for name, each in shares.sums(uses, works, way).items()}


def test_a_box_costs_for_the_run_while_it_is_at_work_and_else_for_none():
    mine = [work("a", (60, 120), (180, 210)), work("b", (0, 240), instance="i-2")]
    assert told([box(240)], mine, "run") == pytest.approx({shares.NO_RUN: 2.5, "a": 1.5})
    assert list(told([box(240)], mine, "run")) == [shares.NO_RUN, "a"], "the dearest first"


def test_what_runs_before_the_start_or_after_the_end_is_not_paid_here():
    assert told([box(60)], [work("a", (-600, 30), (59, 900))], "run") == pytest.approx({"a": 4 * 31 / 60, shares.NO_RUN: 4 * 29 / 60})


def test_runs_that_are_at_work_together_share_the_instance():
    fleet = Use(EVENING, 3600, 3.0, "i-1")
    both = [work("a", (0, 60)), work("b", (30, 60), owner=BOB)]
    assert told([fleet], both, "run") == pytest.approx({"a": 2.25, "b": 0.75})
    assert told([fleet], both, "person") == pytest.approx({"user/ada": 2.25, "assumed-role/team/bob": 0.75})


def test_an_instance_of_several_people_is_nobodys_while_no_run_is_on_it_and_one_persons_is_his():
    fleet, mine = Use(EVENING, 3600, 6.0, "i-1"), work("a", (0, 30))
    assert told([fleet], [mine], "person") == pytest.approx({"user/ada": 6.0})
    assert told([fleet], [mine, work("b", (40, 50), owner=BOB)], "person") == pytest.approx(
        {"user/ada": 3.0, shares.NOBODY: 2.0, "assumed-role/team/bob": 1.0}
    )


def test_who_has_the_box_pays_for_it_whoever_made_the_run():
    assert told([box(60)], [work("a", (0, 60), owner=BOB)], "person") == {"user/ada": 4.0}


def test_a_day_ends_at_midnight_of_utc():
    assert told([box(240)], [], "day") == pytest.approx({"2026-11-30": 2.0, "2026-12-01": 2.0})
    disk = Use(EVENING, 3 * 86_400, 3.0, owner=ADA)
    assert told([disk], [], "day") == pytest.approx({"2026-11-30": 1 / 12, "2026-12-01": 1.0, "2026-12-02": 1.0, "2026-12-03": 11 / 12})
    assert told([disk], [], "run") == {shares.DISK: pytest.approx(3.0)}


def test_the_box_that_was_last_about_a_run_is_where_it_was_though_another_has_it_now():
    earlier = work("a", (0, 60), instance="i-2")
    assert told([box(60, run="a")], [earlier], "run") == {"a": 4.0}


@pytest.mark.parametrize("way", shares.WAYS)
def test_the_sums_are_what_was_paid_and_unknown_where_a_part_is(way):
    mine = [work("a", (5, 77), (90, 91)), work("b", (70, 200), owner=BOB), work("nothing", (8, 8))]
    uses = [box(240), Use(at(-3000), 1e6, 0.123456), Use(EVENING, 0, 0.01, "i-3"), Use(at(200), 90, 7.7, "i-1", BOB)]
    assert sum(told(uses, mine, way).values()) == pytest.approx(4.0 + 0.123456 + 0.01 + 7.7, abs=1e-9)
    assert None in told([*uses, box(10, None)], mine, way).values()


def test_events_of_anybody_are_read_as_far_as_they_are_events():
    def event(name: str, minutes: float, **more) -> dict:
        return {"event": name, "time": at(minutes).isoformat(), **more}

    events = [event("phase", 0, phase="running"), event("step", 5), {"event": "step"}, {"event": "step", "time": 7}, event("eval", 3)]
    events += [{"event": "step", "time": "2026-11-30T22:10:00"}, event("phase", 30, phase="running"), event("phase", 40, phase="done")]
    assert shares.attempts(events) == [(at(0), at(5)), (at(30), at(40))]


def test_no_other_way_is_told_and_the_ways_are_named():
    with pytest.raises(Problem, match="by `month`") as caught:
        shares.check("month")
    assert "person, run, day" in caught.value.hint
    assert Sum().dollars == 0.0
