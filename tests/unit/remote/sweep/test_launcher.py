"""Which run is a sweep's job: found by its settings, numbered after those that are there."""

import json
import sys

import pytest

from conf import load
from conf.problem import Problem
from conf.process import argv, screen
from conf.sweep import grid
from conf.sweep.sweep import Grid
from conf.text import secret
from remote.plan.verbs import Needs
from remote.runs import start
from remote.sweep.command import USAGE
from remote.sweep.launcher import BoxLauncher, forecast
from twin import world


def place(aws, store, settings, name, *words):
    """A sweep of these words, as far as it knows which run is whose."""
    sweep = Grid(grid.combinations(list(words), USAGE), lambda every: settings(*every))
    sweep.launcher = BoxLauncher(aws, store, settings.root, None, None, None)
    return sweep._resume(name), sweep.jobs


def made(store, settings, run_id, *words, phase="failed", manifest=False, owner=world.CALLER):
    run = settings(*words)
    start.upload_inputs(store, run)
    run.run_id, run.provenance.owner = run_id, owner
    store.put(f"runs/{run_id}/config.yaml", load.dump(run).replace("gradient_checkpointing: auto", "gradient_checkpointing: 'no'").encode())
    store.put(f"runs/{run_id}/state.json", json.dumps({"phase": phase}).encode())
    if manifest:
        store.put(f"runs/{run_id}/manifest.json", b"{}")


def test_jobs_are_found_by_their_settings_and_new_ones_get_the_next_numbers(aws, store, settings):
    made(store, settings, "rank.0", "lora.r=8", manifest=True)
    made(store, settings, "rank.3", "lora.r=16")
    made(store, settings, "zeal.0", "lora.r=2")
    made(store, settings, "20261122-000000-plain-ab12", "lora.r=32")
    name, jobs = place(aws, store, settings, None, "lora.r=4,8,16,32")
    assert name == "rank"
    assert [(job.run_id, job.finished) for job in jobs] == [("rank.4", False), ("rank.0", True), ("rank.3", False), ("rank.5", False)]
    assert jobs[2].settings.train.gradient_checkpointing == "no", "what was decided then must not be decided anew"


def test_a_cancelled_run_is_not_gone_on_with_and_keeps_its_number(aws, store, settings):
    made(store, settings, "rank.0", "lora.r=8", phase="cancelled")
    _, jobs = place(aws, store, settings, "rank", "lora.r=8,16")
    assert [job.run_id for job in jobs] == ["rank.1", "rank.2"]


def test_a_sweep_of_other_settings_is_a_new_one_whose_name_can_be_given_again(aws, store, settings):
    made(store, settings, "rank.0", "lora.r=8")
    name, jobs = place(aws, store, settings, None, "name=llama-3.1-8b", "lora.r=8,16")
    assert "llama-3.1-8b" in name and [job.run_id for job in jobs] == [f"{name}.0", f"{name}.1"]
    again, jobs = place(aws, store, settings, name, "name=llama-3.1-8b", "lora.r=8,16")
    assert again == name


def test_a_run_is_never_made_over_another(aws, store, settings):
    made(store, settings, "rank.0", "lora.r=8", manifest=True)
    run = settings("lora.r=16")
    run.run_id = "rank.0"
    with pytest.raises(Problem, match="there is a run `rank.0` already"):
        start.prepare(aws, run, "image", settings.root, "i-1")


def test_a_long_sweep_says_when_the_box_stops_itself(aws, settings):
    run = settings("box.max_hours=2", "cost.per_hour=1.5")
    assert "planned to take 3.0 h for about $4.50" in forecast(aws, run, [3600.0, 7200.0])
    assert "stops itself after box.max_hours=2" in forecast(aws, run, [3600.0, 7200.0])
    assert "stops itself" not in forecast(aws, run, [60.0])
    assert "not known here" in forecast(aws, run, [60.0, None])


@pytest.fixture
def failed_sweep(aws, store, settings, monkeypatch):
    """What a sweep whose second job cannot be trained ends with; `hint` is that job's."""

    def run(*words, hint="`inv plan`, `inv up deploy`"):
        def check(aws, run):
            if run.lora.r == 16:
                raise Problem("too large", hint)
            return Needs(60.0, 1, None)

        monkeypatch.setattr(sys, "argv", ["inv", "sweep", "--", *words])
        sweep = Grid(grid.combinations(argv.overrides(), USAGE), lambda every: settings(*every))
        launcher = BoxLauncher(aws, store, settings.root, check, None, None)
        monkeypatch.setattr(launcher, "train", lambda job, again: setattr(job, "finished", True))
        monkeypatch.setattr(launcher, "rank", lambda jobs: None)
        with pytest.raises(Problem) as ended:
            sweep.run(launcher, "rank")
        return screen.shown(str(ended.value))

    return run


def test_the_hint_of_a_failed_job_has_the_values_of_that_job(failed_sweep):
    shown = failed_sweep("cloud=twin", "lora.r=8,16", "train.lr=1e-4")
    assert "`inv plan -- cloud=twin train.lr=1e-4 lora.r=16`, `inv up deploy -- cloud=twin train.lr=1e-4 lora.r=16`" in shown
    assert "`inv sweep --name rank -- cloud=twin lora.r=8,16 train.lr=1e-4` tries again" in shown


def test_no_hint_of_a_sweep_repeats_a_secret(failed_sweep, monkeypatch):
    monkeypatch.setattr(secret, "_read", set())
    monkeypatch.setattr(load, "_refuse_secrets", lambda values: None)  # which would end it before
    index = "cloud.build_args={INDEX: 'https://me:hunter22@index.example'}"
    shown = failed_sweep("cloud=twin", "lora.r=8,16", index, hint="hunter22: `inv up`")
    assert "hunter22" not in shown and "`inv sweep --name rank -- cloud=twin lora.r=8,16`" in shown


def test_what_a_run_says_of_its_failure_is_about_its_own_values(aws, store, settings, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["inv", "sweep", "--", "lora.r=8,16"])
    run = settings("lora.r=8")
    run.run_id, run.provenance.swept, run.provenance.owner = "rank.0", ["lora.r=8"], world.CALLER
    store.put("runs/rank.0/config.yaml", load.dump(run).encode())
    store.put("runs/rank.0/state.json", json.dumps({"phase": "failed", "reason": "crashed", "hint": "`inv train`"}).encode())
    found = BoxLauncher(aws, store, settings.root, None, None, None).runs("rank")["rank.0"]
    assert found.problem.hint == "`inv train -- lora.r=8`"
