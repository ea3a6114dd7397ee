"""Which trials are given up: successive halving by Optuna, the same whoever looks at the same measurements, and how often."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from conf.sweep.pruning import Measurement, behind

pytestmark = pytest.mark.slow  # each waits for Optuna

BEGIN = datetime(2026, 12, 1, tzinfo=UTC)


def measured(trial: str, *losses: float, every: int = 5, begun: float = 0) -> list[Measurement]:
    """A loss after every five steps, each of which takes a second."""
    return [
        Measurement(trial, BEGIN + timedelta(seconds=begun + number * every), number * every, -loss, f"loss {loss}")
        for number, loss in enumerate(losses)
    ]


def race() -> list[Measurement]:
    """Four trials, which measure their losses after 10, 15 and 20 steps one after the other."""
    losses = {"a": (2, 2, 1), "b": (3, 0, 0), "d": (1, 1, 0.5), "c": (1.5, 1.5, 1.5)}
    return [one for begun, name in enumerate(losses) for one in measured(name, 9, 9, *losses[name], begun=begun)]


def test_who_is_behind_at_a_rung_is_given_up_and_the_half_that_is_ahead_goes_on():
    given_up = behind(race(), first=10)
    assert set(given_up) == {"b", "c"}
    assert given_up["b"].step == 10 and given_up["b"].words == "loss 3"
    assert given_up["c"].step == 20, "after ten steps it was the second of four, after twenty the worse of two"


def test_before_the_first_rung_and_alone_nobody_is_given_up():
    assert behind(measured("a", 9, 8, 7, 6, 5), first=5) == {}
    assert behind([*measured("a", 1, 1), *measured("b", 9, 9, begun=1)], first=10) == {}
    assert behind([], first=10) == {}


def test_who_has_finished_while_nobody_looked_is_compared_to_the_end_and_never_given_up():
    assert set(behind(race(), first=10, finished={"b"})) == {"c", "d"}, "b was last after ten steps, and first after twenty"


def test_how_often_one_looks_and_in_which_order_it_is_read_changes_nothing():
    dice = random.Random(7)
    every = [
        one
        for number in range(12)
        for one in measured(f"t{number}", *(dice.random() + 1 / (step + 1) for step in range(16)), begun=dice.random() * 40)
    ]
    once, seen, at_each_look = behind(every, first=5), [], {}
    for one in sorted(every, key=lambda one: one.time):
        seen.append(one)
        at_each_look |= {name: at for name, at in behind(seen, first=5).items() if name not in at_each_look}
    assert at_each_look == once and 5 <= len(once) < 12
    dice.shuffle(every)
    assert behind(every, first=5) == once
