"""A search on a fleet: so many trials at once, those that fall behind given up, and the same whoever goes on with it."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from conftest import ROOT

from conf import load
from conf.sweep import space
from conf.sweep.search import Search
from remote.plan.verbs import Needs
from remote.runs import fleet, fleet_stop, follow, runs, start
from remote.sweep import fleet_launcher
from remote.sweep.fleet_launcher import FleetLauncher

pytestmark = pytest.mark.slow  # each waits for what Optuna draws

STEPS, EVERY = 40, 5
WORDS = ["fleet=batch", f"train.steps={STEPS}", f"train.eval_steps={EVERY}", "lora.r=1,2,4,8,16,32"]


class Batch:
    """Each look trains every run on by five steps; the higher its rank, the lower its loss."""

    def __init__(self, aws, store, monkeypatch):
        self.store, self.going, self.most, self.begun, self.now = store, {}, 0, [], 0.0
        self.at_look = lambda number: None
        monkeypatch.setattr(fleet_launcher, "perform", self.take)
        monkeypatch.setattr(fleet_launcher, "time", SimpleNamespace(sleep=self.look, monotonic=lambda: self.now))
        monkeypatch.setattr(fleet_stop, "batch", SimpleNamespace(end=lambda *words: None, latest=lambda *words: None))
        monkeypatch.setattr(fleet.Watcher, "check", lambda watcher: None)  # on a busy machine a look may take minutes
        monkeypatch.setattr(follow.manifest, "read", lambda store, run_id: {})

    def take(self, plan, aws, transport, answers):
        run = next(iter(plan.parts[0].inputs.values()))
        prepared = answers.answers[0] = start.prepare(aws, run, "image@sha256:1", ROOT, None)
        if prepared.run_id not in self.going and runs.state(self.store, prepared.run_id).phase == "created":
            self.begun.append(run.lora.r)
            self.going[prepared.run_id] = (run.lora.r, 0)
            start.set_state(self.store, prepared.run_id, "running")
        self.most = max(self.most, len(self.going))

    def look(self, seconds):
        self.now += 60
        for run_id in list(self.going):
            self.train(run_id)
        self.at_look(self.now / 60)

    def train(self, run_id):
        rank, step = self.going[run_id]
        step += EVERY
        at = (datetime(2026, 12, 1, tzinfo=UTC) + timedelta(seconds=self.now)).isoformat()
        new = [{"event": "step", "step": step, "steps": STEPS}, {"event": "eval", "step": step, "loss": 1 / rank + 1 / step}]
        place = f"runs/{run_id}/events.jsonl"
        lines = "".join(json.dumps(event | {"time": at}) + "\n" for event in new)
        self.store.put(place, (self.store.get(place) or b"") + lines.encode())
        self.going[run_id] = (rank, step)
        if wish := self.store.json(f"runs/{run_id}/stop.json"):
            self.end(run_id, "cancelled", **wish)
        elif step == STEPS:
            self.store.put(f"runs/{run_id}/manifest.json", b"{}")
            self.end(run_id, "done")

    def end(self, run_id, phase, reason="", evidence=""):
        start.set_state(self.store, run_id, phase, reason, evidence)
        del self.going[run_id]


@pytest.fixture
def batch(aws, store, monkeypatch):
    return Batch(aws, store, monkeypatch)


@pytest.fixture
def search(aws, store, settings):
    def make(trials=6, at_once=3, prune=True):
        made = Search(space.read(WORDS, trials), trials, lambda words: settings(*words))
        launcher = FleetLauncher(aws, store, ROOT, None, None, None, at_once=at_once, prune=prune)
        launcher.check = lambda job: launcher.needs.update({job.words: Needs(60.0, 1, 1.0)})
        launcher.forecast = lambda jobs: ""
        launcher.rank = lambda jobs: made.ranked.extend(job.settings.lora.r for job in jobs)
        launcher.score = lambda job: job.settings.lora.r / 100
        made.ranked = []
        return made, launcher

    return make


def phases(store) -> dict[str, tuple[str, str]]:
    return {run_id: (state.phase, state.reason) for run_id in runs.listing(store) if (state := runs.state(store, run_id))}


def test_so_many_trials_go_on_at_once_and_each_is_drawn_when_there_is_room(batch, search, store):
    trials, launcher = search(prune=False)
    trials.run(launcher, "rate")
    assert batch.most == 3 and sorted(batch.begun) == sorted(trials.ranked) == [1, 2, 4, 8, 16, 32]
    assert phases(store) == {f"rate.{number}": ("done", "") for number in range(6)}


def test_who_falls_behind_is_given_up_for_good_and_listed_apart(batch, search, store, capsys):
    trials, launcher = search()
    trials.run(launcher, "rate")
    said = capsys.readouterr().out
    ended = phases(store)
    given_up = [run_id for run_id, how in ended.items() if how == ("cancelled", "pruned")]
    assert set(ended.values()) == {("done", ""), ("cancelled", "pruned")} and 0 < len(given_up) < 6
    assert 32 in trials.ranked and len(trials.ranked) == 6 - len(given_up) and len(batch.begun) == 6
    for job in trials.jobs:
        if job.run_id in given_up:
            assert f"pruned     {job}: held-out loss" in said and "trials that were trained as far did better" in said
    begun = list(batch.begun)
    again, launcher = search()
    again.run(launcher, None)
    assert batch.begun == begun and again.ranked == trials.ranked and phases(store) == ended
    assert [bool(job.pruned) for job in again.jobs] == [job.run_id in given_up for job in again.jobs]
    more, launcher = search(trials=7)
    more.run(launcher, "rate")
    assert "nothing else is left to try after 6 trials" in capsys.readouterr().out and batch.begun == begun


def test_with_the_laptop_away_nobody_is_given_up_and_the_same_command_goes_on(batch, search, store):
    def leave(number):
        if number == 1:
            raise KeyboardInterrupt

    batch.at_look = leave
    trials, launcher = search()
    with pytest.raises(KeyboardInterrupt, match=r"rate.0, rate.1, rate.2 goes on, and no job begins or is pruned after it. `inv sweep"):
        trials.run(launcher, "rate")
    batch.at_look = lambda number: None
    batch.look(0)
    assert set(phases(store).values()) == {("running", "")}
    again, launcher = search()
    again.run(launcher, "rate")
    assert len(batch.begun) == len(set(batch.begun)) == 6, "nobody is trained twice"
    assert set(phases(store).values()) == {("done", ""), ("cancelled", "pruned")} and 32 in again.ranked


def test_two_laptops_with_one_search_train_each_trial_once(batch, search, store):
    others = []

    def join(number):
        if number == 2:
            other, launcher = search(at_once=4)
            others.append(other)
            other.run(launcher, "rate")

    batch.at_look = join
    trials, launcher = search()
    trials.run(launcher, "rate")
    assert sorted(batch.begun) == [1, 2, 4, 8, 16, 32] and len(phases(store)) == 6
    (other,) = others
    assert [job.run_id for job in trials.jobs] == [job.run_id for job in other.jobs] and sorted(trials.ranked) == sorted(other.ranked)


def test_a_trial_whose_place_another_laptop_has_taken_meanwhile_is_drawn_anew(batch, search, store, aws, settings, monkeypatch):
    take, made = batch.take, []

    def be_faster(plan, *words):
        run = next(iter(plan.parts[0].inputs.values()))
        if not made:
            other = settings(*WORDS[:-1], f"lora.r={1 if run.lora.r != 1 else 2}")
            other.run_id, other.provenance.swept = run.run_id, [f"lora.r={other.lora.r}"]
            made.append(other.lora.r)
            start.prepare(aws, fleet.as_box(other), "image@sha256:1", ROOT, None)
        return take(plan, *words)

    monkeypatch.setattr(fleet_launcher, "perform", be_faster)
    trials, launcher = search(prune=False)
    trials.run(launcher, "rate")
    assert sorted(batch.begun) == sorted(trials.ranked) == [1, 2, 4, 8, 16, 32]
    assert load.read(store.get("runs/rate.0/config.yaml"), "it").lora.r == made[0] and len(phases(store)) == 6
