"""A sweep on a fleet: so many jobs at once, the next when one ends, what failed is named and the others go on."""

import time
from types import SimpleNamespace

import pytest
from conftest import ROOT

from conf.problem import Problem
from conf.sweep import grid
from conf.sweep.sweep import Grid
from remote.plan.verbs import Needs
from remote.runs import follow, start
from remote.sweep import fleet_launcher
from remote.sweep.command import USAGE
from remote.sweep.fleet_launcher import FleetLauncher

ENDS = {"lora.r=8": "done", "lora.r=16": "failed", "lora.r=32": "done", "lora.r=64": "done"}


class Batch:
    """Each look brings one run that goes on to its end."""

    def __init__(self, store, monkeypatch):
        self.store, self.going, self.most, self.order = store, [], 0, []
        monkeypatch.setattr(fleet_launcher, "perform", self.take)
        monkeypatch.setattr(fleet_launcher, "time", SimpleNamespace(sleep=self.look, monotonic=time.monotonic))
        monkeypatch.setattr(follow.manifest, "read", lambda store, run_id: {})

    def take(self, plan, aws, transport, answers):
        run = next(iter(plan.parts[0].inputs.values()))
        answers.answers[0] = start.Prepared(run.run_id, "sha", (), True)
        start.set_state(self.store, run.run_id, "running")
        self.going.append(run)
        self.order.append(run.run_id)
        self.most = max(self.most, len(self.going))

    def look(self, seconds):
        run = self.going.pop(0)
        phase = ENDS[run.provenance.swept[0]]
        start.set_state(self.store, run.run_id, phase, "out_of_memory" * (phase == "failed"), "no memory" * (phase == "failed"))


@pytest.fixture
def batch(store, monkeypatch):
    return Batch(store, monkeypatch)


@pytest.fixture
def sweep(aws, store, settings):
    def make(**options):
        found = Grid(
            grid.combinations(["fleet=batch", f"lora.r={','.join(word[7:] for word in ENDS)}"], USAGE), lambda words: settings(*words)
        )
        launcher = FleetLauncher(aws, store, ROOT, None, lambda folders: ("", ""), None, **options)
        launcher.check = lambda job: launcher.needs.update({job.words: Needs(60.0, 1, 1.0)})
        launcher.rank = lambda jobs: None
        return found, launcher

    return make


def test_no_more_than_so_many_go_on_at_once_and_what_failed_is_named_at_the_end(batch, sweep):
    jobs, launcher = sweep(at_once=2)
    with pytest.raises(Problem, match=r"1 of 4 jobs failed:\n.*lora.r=16.*no memory"):
        jobs.run(launcher, "rank")
    assert batch.most == 2 and batch.order == [f"rank.{number}" for number in range(4)]
    assert [job.finished for job in jobs.jobs] == [True, False, True, True]


def test_detached_all_are_handed_over_and_none_is_waited_for(batch, sweep, capsys):
    jobs, launcher = sweep(at_once=2, detach=True)
    jobs.run(launcher, "rank")
    assert len(batch.going) == 4 and "4 jobs are on AWS Batch" in capsys.readouterr().out


def test_after_ctrl_c_what_goes_on_is_named_and_nothing_new_begins(batch, sweep, monkeypatch):
    def stop(seconds):
        raise KeyboardInterrupt

    jobs, launcher = sweep(at_once=2)
    monkeypatch.setattr(fleet_launcher.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt, match=r"rank.0, rank.1 go.* on, and no job begins"):
        jobs.run(launcher, "rank")
    assert len(batch.going) == 2


def test_a_job_that_cannot_be_handed_over_ends_the_sweep_with_what_goes_on_later(batch, sweep, monkeypatch):
    def refused(*words):
        raise Problem("this account has no fleet", "`inv init -- fleet=batch` makes it", "refused")

    jobs, launcher = sweep()
    monkeypatch.setattr(fleet_launcher, "perform", refused)
    with pytest.raises(Problem, match="no fleet") as caught:
        jobs.run(launcher, "rank")
    assert "`inv sweep --name rank` goes on with the sweep" in caught.value.hint
