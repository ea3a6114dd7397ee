"""What a sweep can be asked on a fleet, and what a run's events say of how it does."""

import json
from types import SimpleNamespace

import pytest

from conf.problem import Problem
from remote.sweep import measurements
from remote.sweep.on_fleet import OnFleet

BATCH = ("fleet=batch", "train.steps=40", "train.eval_steps=5")


@pytest.mark.parametrize(
    ("asked", "search", "words", "what", "hint"),
    [
        (OnFleet(detach=True), True, BATCH, "detached there is nobody who does", "leave out `--detach`"),
        (OnFleet(prune=True), False, BATCH, "without `--trials` there is none", "`inv sweep --fleet 4 --trials 12 --prune`"),
        (OnFleet(prune=True), True, (*BATCH, "train.eval_steps=40"), "train.eval_steps is 40, and train.steps 40", "train.eval_steps=5`"),
        (OnFleet(prune=True), True, (), "a box trains one trial after the other, and `--prune`", "--trials 12 --prune -- fleet=batch`"),
        (OnFleet(detach=True), False, (), "a box trains one job after the other, and `--detach`", "`inv sweep --fleet 4 -- fleet=batch`"),
        (OnFleet(at_once=2), False, ("fleet=none",), "`--fleet` is for a fleet", "fleet=batch"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_a_command(settings, asked, search, words, what, hint):
    with pytest.raises(Problem) as refused:
        asked.check(settings(*words), search)
    assert what in refused.value.what and hint in refused.value.hint and "\n" not in refused.value.what


@pytest.mark.parametrize(
    ("asked", "search", "words"),
    [
        (OnFleet(3, prune=True), True, BATCH),
        (OnFleet(3, prune=True), True, ("fleet=batch", "train.steps=null")),  # how many steps that are only the trainer knows
        (OnFleet(3, detach=True), False, BATCH),
        (OnFleet(), True, ()),
    ],
)
def test_what_can_be_is_let_through(settings, asked, search, words):
    asked.check(settings(*words), search)


def read(settings, events: list, *words: str) -> list:
    lines = "".join(f"{event if isinstance(event, str) else json.dumps(event)}\n" for event in events)
    return measurements.of_run(SimpleNamespace(get=lambda name: lines.encode()), "rate.0", settings(*words))


def event(kind: str, step: int, second: int, **values) -> dict:
    return {"time": f"2026-12-01T00:00:{second:02d}Z", "event": kind, "step": step, **values}


def test_each_step_is_measured_once_and_the_last_one_does_not_count(settings):
    events = [
        event("eval", 0, 0, loss=9.0),
        event("step", 5, 5, steps=15, loss=2.0),
        event("eval", 5, 6, loss=3.0),
        event("eval", 5, 40, loss=4.0),  # of a second attempt
        event("step", 10, 41, steps=15),
        event("eval", 10, 42, loss=2.5),
        event("step", 15, 43, steps=15),
        event("eval", 15, 44, loss=2.0),
    ]
    seen = read(settings, events)
    assert [(one.step, one.score, one.time.second) for one in seen] == [(0, -9.0, 0), (5, -3.0, 6), (10, -2.5, 42)]
    assert seen[1].trial == "rate.0" and seen[1].words == "held-out loss 3.000 after step 5"


def test_what_decides_about_the_best_step_is_what_trials_are_compared_by(settings):
    events = [event("eval", 5, 5, loss=3.0), event("score", 5, 6, macro_f1=0.4)]
    (seen,) = read(settings, events, "data.fields=[city]", "train.metric_for_best_model=macro_f1")
    assert (seen.score, seen.words) == (0.4, "macro-F1 0.400 after step 5")


def test_events_of_anybodys_are_measurements_or_nothing(settings):
    strange = [
        "{",
        "[]",
        '{"event": "eval", "step": 5, "loss": NaN, "time": "2026-12-01T00:00:00Z"}',
        event("eval", 5, 1),
        event("eval", -5, 1, loss=1.0),
        event("eval", 5, 1, loss="many"),
        event("eval", 5, 1, loss=None),
        event("eval", 5, 1, loss=1.0) | {"time": "2026-12-01T00:00:00"},
        event("eval", 5, 1, loss=1.0) | {"time": "soon"},
        event("eval", 5, 1, loss=1.0) | {"step": "later"},
        event("step", 5, 1, steps={}),
        event("eval", 10, 2, loss=1.5),
    ]
    assert [(one.step, one.score) for one in read(settings, strange)] == [(10, -1.5)]
