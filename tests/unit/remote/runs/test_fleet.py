"""Runs on a fleet: handed over once, followed though nothing is there yet, ended in words of their own when Batch gives them up."""

import json
from datetime import timedelta

import pytest

from conf import paths
from conf.fleet_job import HOLDER
from conf.problem import Problem
from remote.runs import clean, fleet, fleet_stop, runs, start
from remote.runs.fleet import Watcher, as_box
from tests.unit.remote.aws.test_batch import Service

EXITED = "Essential container in task exited"


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def account(aws, service, monkeypatch):
    """The emulated account, but for Batch: its answers are the test's."""
    client = type(aws).client
    monkeypatch.setattr(type(aws), "client", lambda self, name, once=False: service if name == "batch" else client(self, name, once))
    return aws


@pytest.fixture
def run(settings):
    return settings("fleet=batch")


@pytest.fixture
def run_id(account, store, run):
    prepared = start.prepare(account, as_box(run), "image@sha256:1", paths.ROOT, None)
    return prepared.run_id


def hand_over(account, run, run_id):
    return fleet.hand_over(account, as_box(run), run_id, "sha", "arn:d:1", 1.0)


def state(store, run_id):
    return store.json(f"runs/{run_id}/state.json")


def test_a_run_is_nobodys_until_it_is_handed_over_and_then_it_is_once(account, service, store, run, run_id):
    assert store.get(f"runs/{run_id}/box.json") is None
    assert hand_over(account, run, run_id).changed
    assert store.json(f"runs/{run_id}/box.json") == {"name": HOLDER, "instance": ""}
    assert not hand_over(account, run, run_id).changed
    assert len(service.jobs) == 1
    assert service.request["parameters"] == {
        "run": run_id,
        "config": "sha",
        "seconds": "43200",
        "limit": "fleet.max_hours",
        "attempts": "5",
    }


def test_a_job_that_runs_keeps_its_claim(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    taken = json.dumps({"name": HOLDER, "instance": "j0"}).encode()
    store.put(f"runs/{run_id}/box.json", taken)
    again = start.prepare(account, as_box(run), "image@sha256:1", paths.ROOT, None)
    assert again.run_id == run_id
    hand_over(account, run, run_id)
    assert store.get(f"runs/{run_id}/box.json") == taken and len(service.jobs) == 1


def test_money_ends_a_run_sooner_than_time(account, service, settings, run_id):
    hand_over(account, settings("fleet=batch", "cost.limit=2"), run_id)
    assert (service.request["parameters"]["seconds"], service.request["parameters"]["limit"]) == ("7200", "cost.limit")


def test_a_run_whose_job_has_ended_without_a_word_is_lost_and_says_what_batch_said(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    watcher = Watcher(account, run.cloud, run_id)
    assert watcher.words() == "waiting for an instance (RUNNABLE)"
    service.jobs[0] |= {"status": "FAILED", "statusReason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"}
    with pytest.raises(Problem, match="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY") as caught:
        Watcher(account, run.cloud, run_id).check()
    assert "`inv train -- fleet.market=on_demand`" in caught.value.hint and "`inv init -- 'fleet.instance_type=[" in caught.value.hint
    assert (state(store, run_id)["phase"], state(store, run_id)["reason"]) == ("failed", "unreachable")


@pytest.mark.parametrize(
    ("ended", "reason", "says", "hint"),
    [
        (
            {"statusReason": "Task failed to start", "container": {"reason": "CannotPullContainerError: manifest unknown"}},
            "unreachable",
            "CannotPullContainerError: manifest unknown",
            "`inv image.push`",
        ),
        (
            {"statusReason": EXITED, "container": {"exitCode": 137, "reason": "OutOfMemoryError: Container killed"}},
            "out_of_memory",
            "OutOfMemoryError: Container killed; exit code 137",
            "train.pack_tokens",
        ),
        (
            {"statusReason": EXITED, "container": {"exitCode": 75}},
            "unreachable",
            "exit code 75",
            "`aws logs tail /fine-tune-slm --log-stream-name-prefix fleet/",
        ),
        ({"statusReason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too large"}, "unreachable", "MISCONFIGURATION", "`inv doctor`"),
        ({"statusReason": "Host EC2 (instance i-1) terminated."}, "unreachable", "Host EC2 (instance i-1)", "`inv train` hands it over"),
    ],
)
def test_each_kind_of_end_is_told_with_what_helps(account, service, store, run, run_id, ended, reason, says, hint):
    hand_over(account, run, run_id)
    service.jobs[0] |= {"status": "FAILED"} | ended
    with pytest.raises(Problem) as caught:
        Watcher(account, run.cloud, run_id).check()
    assert says in caught.value.what and hint in caught.value.hint and caught.value.reason == reason
    assert (state(store, run_id)["phase"], state(store, run_id)["reason"]) == ("failed", reason)


def test_a_job_that_has_ended_its_run_and_is_still_there_is_not_taken_for_one_that_trains(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    start.set_state(store, run_id, "failed", "stopped", "AWS takes this spot instance back")
    prepared = start.prepare(account, as_box(run), "image@sha256:1", paths.ROOT, None)
    assert prepared.run_id == run_id and state(store, run_id)["phase"] == "failed", "who is interrupted here finds it as it was"
    assert hand_over(account, run, run_id).changed
    assert [job["status"] for job in service.jobs] == ["FAILED", "RUNNABLE"] and state(store, run_id)["phase"] == "created"


def test_a_run_whose_job_has_ended_is_cancelled_though_its_state_says_that_it_runs(account, service, store, run, run_id, monkeypatch):
    """S3 did not take the job's last words, and as long as a container may take to its end nobody has seen a sign of life."""
    monkeypatch.setattr(fleet_stop, "GONE", timedelta(seconds=-1))
    hand_over(account, run, run_id)
    start.set_state(store, run_id, "running")
    assert fleet_stop.stop(account, as_box(run), run_id) == fleet_stop.Ended(run_id, "cancelled")


def test_a_run_whose_job_could_not_read_that_it_is_to_end_for_good_is_cancelled(account, service, store, run, run_id, monkeypatch):
    hand_over(account, run, run_id)
    start.set_state(store, run_id, "running")
    end = fleet_stop.batch.end
    ended = lambda *about: (end(*about), start.set_state(store, run_id, "failed", "stopped", "AWS Batch ended the job"))  # noqa: E731
    monkeypatch.setattr(fleet_stop.batch, "end", ended)
    assert fleet_stop.stop(account, as_box(run), run_id) == fleet_stop.Ended(run_id, "cancelled")


def test_a_run_whose_job_is_not_listed_yet_is_waited_for_and_not_for_ever(account, service, store, run, run_id, monkeypatch):
    hand_over(account, run, run_id)
    service.jobs.clear()
    watcher = Watcher(account, run.cloud, run_id)
    assert watcher.words() == "" and state(store, run_id)["phase"] == "created"
    monkeypatch.setattr(fleet, "UNSEEN", 0)
    with pytest.raises(Problem, match="there is none"):
        watcher.check()


def test_a_run_with_two_jobs_is_that_of_the_one_that_goes_on(account, service, store, run, run_id):
    """A second one, handed over by another laptop in the same moment, ends at once."""
    hand_over(account, run, run_id)
    service.jobs.append(service.jobs[0] | {"jobId": "j1", "status": "SUCCEEDED", "createdAt": 1})
    assert Watcher(account, run.cloud, run_id).look().id == "j0"
    Watcher(account, run.cloud, run_id).check()
    assert state(store, run_id)["phase"] == "created"


def test_a_run_that_has_ended_is_not_lost_whatever_its_job_says(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    start.set_state(store, run_id, "done")
    service.jobs[0] |= {"status": "FAILED"}
    Watcher(account, run.cloud, run_id).check()
    assert state(store, run_id)["phase"] == "done"


@pytest.mark.parametrize(("phase", "to_do"), [("done", False), ("cancelled", True)])
def test_a_run_that_ends_while_another_laptop_takes_it_up_stays_as_it_ended(account, store, run, run_id, monkeypatch, phase, to_do):
    def end_just_then(store, run_id):
        """After it was looked at for the first time."""
        seen = look(store, run_id)
        start.set_state(store, run_id, phase)
        if phase == "done":
            store.put(f"runs/{run_id}/manifest.json", b"{}")
        return seen

    look = runs.state
    monkeypatch.setattr(runs, "state", end_just_then)
    prepared = start.prepare(account, as_box(run), "image@sha256:1", paths.ROOT, None)
    assert (prepared.run_id, prepared.to_do, state(store, run_id)["phase"]) == (run_id, to_do, phase)


def test_a_run_that_waits_is_cancelled_with_its_job(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    assert fleet_stop.stop(account, as_box(run), run_id) == fleet_stop.Ended(run_id, "cancelled")
    assert service.jobs[0]["statusReason"] == "inv stop-run"
    assert state(store, run_id)["phase"] == "cancelled" and store.get(f"runs/{run_id}/stop.json")
    assert fleet_stop.stop(account, as_box(run), run_id).phase == "cancelled"


def test_a_run_that_its_search_has_given_up_says_so_where_its_job_is_gone_without_a_word(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    start.set_state(store, run_id, "running")
    wish = fleet_stop.Wish("pruned", "loss 3 after step 8")
    fleet_stop.ask_to_end(account, run.cloud, run_id, wish, "inv sweep --prune")
    assert store.json(f"runs/{run_id}/stop.json") == {"reason": "pruned", "evidence": "loss 3 after step 8"}
    assert fleet_stop.phase_after(account, run.cloud, run_id, wish) == "", "it may still write a checkpoint"
    start.set_state(store, run_id, "created")  # AWS has taken its instance back just then
    assert fleet_stop.phase_after(account, run.cloud, run_id, wish) == "cancelled"
    assert (state(store, run_id)["reason"], state(store, run_id)["evidence"]) == ("pruned", "loss 3 after step 8")


def test_who_watches_a_run_that_is_asked_to_end_takes_its_end_for_no_failure(account, service, store, run, run_id):
    """Whoever saw first that its job is gone wrote its state: beside `inv stop-run`, `inv train` wrote that it had failed."""
    hand_over(account, run, run_id)
    start.set_state(store, run_id, "running")
    fleet_stop.ask_to_end(account, run.cloud, run_id, fleet_stop.Wish(), "inv stop-run")
    service.jobs[0] |= {"status": "FAILED", "statusReason": "Host EC2 (instance i-1) terminated."}
    Watcher(account, run.cloud, run_id).check()
    assert (state(store, run_id)["phase"], state(store, run_id)["evidence"]) == ("cancelled", "somebody asked for it")


def test_a_run_on_a_box_is_not_ended_as_one_of_a_fleet(account, store, run, run_id):
    store.put(f"runs/{run_id}/box.json", b'{"name": "mine", "instance": "i-1"}')
    with pytest.raises(Problem, match="is on no fleet"):
        fleet_stop.stop(account, as_box(run), run_id)


def test_status_says_what_a_run_waits_for(account, service, store, run, run_id):
    hand_over(account, run, run_id)
    service.jobs[0] |= {"statusReason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"}
    (line,) = fleet.waiting(account, run, [runs.state(store, run_id)], store)
    assert line == f"{run_id} is on AWS Batch: RUNNABLE: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"


def test_clean_leaves_a_run_alone_while_a_job_of_it_waits(account, service, store, run, run_id, monkeypatch):
    hand_over(account, run, run_id)
    monkeypatch.setattr(runs.State, "age", property(lambda self: runs.SILENT * 2))  # it has waited for long
    report = clean.VolumeReport("mine", (), (), sure=False)
    verdict = lambda: clean._verdict(account, store, run_id, runs.listing(store)[run_id], None, report)  # noqa: E731
    assert verdict() == ("goes on", False)
    service.jobs[0] |= {"status": "FAILED"}
    assert verdict() == ("created, never finished", True)


def test_an_account_without_a_fleet_is_named_before_anything_else(account, settings):
    fleet.check(account, settings("fleet=batch"))
    with pytest.raises(Problem, match="no fleet") as caught:
        fleet.check(account, settings("fleet=batch", "fleet.market=on_demand"))
    assert caught.value.hint == "`inv init -- fleet=batch` makes it"


def test_the_dearest_type_is_planned_with(account, settings, monkeypatch):
    prices = {"g6.2xlarge": 1.0, "g6.12xlarge": 4.6}
    monkeypatch.setattr(fleet.pricing, "planned", lambda aws, kind, configured: (prices[kind], "a table"))
    assert fleet.price(account, settings("fleet=batch", "fleet.instance_type=[g6.2xlarge,g6.12xlarge]")) == fleet.Price(4.6)
