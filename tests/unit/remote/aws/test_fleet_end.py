"""The fleet as a whole: every job of this stack ends, and none of another; the verb comes back when no instance is left."""

import re
from types import SimpleNamespace

import pytest

from conf.problem import Problem
from remote.aws import fleet_end


class Account:
    """Batch and EC2 as far as a fleet is asked about; a job takes a moment to end, and an instance a moment longer."""

    def __init__(self, jobs: dict[str, list[dict]], instances: list[str] = (), definitions: list[str] = ()):
        self.cloud, self.caller = SimpleNamespace(own="fine-tune-slm"), "arn:aws:iam::1:user/me"
        self.jobs, self.present, self.registered = jobs, list(instances), list(definitions)
        self.told, self.stubborn, self.forgotten, self.asked = [], False, [], []

    def client(self, service):
        return self

    def describe_job_queues(self, jobQueues):
        self.asked += jobQueues
        return {"jobQueues": [{"jobQueueName": name} for name in jobQueues if name in self.jobs]}

    def get_paginator(self, operation):
        return SimpleNamespace(paginate=getattr(self, operation))

    def list_jobs(self, jobQueue, jobStatus):
        yield {"jobSummaryList": [job for job in self.jobs[jobQueue] if job["status"] == jobStatus]}

    def terminate_job(self, jobId, reason):
        self.told.append(jobId)
        if not self.stubborn:
            for queue in self.jobs:
                self.jobs[queue] = [job for job in self.jobs[queue] if job["jobId"] != jobId]

    def describe_instances(self, Filters):
        there, self.present = self.present, [] if self.stubborn is False else self.present
        assert {"Name": "tag:fine-tune-slm:fleet", "Values": ["fine-tune-slm"]} in Filters
        yield {"Reservations": [{"Instances": [{"InstanceId": name, "InstanceType": "g6.2xlarge"} for name in there]}]}

    def describe_job_definitions(self, status):
        yield {"jobDefinitions": [{"jobDefinitionName": re.sub(":.*", "", name), "jobDefinitionArn": name} for name in self.registered]}

    def deregister_job_definition(self, jobDefinition):
        self.forgotten.append(jobDefinition)


def job(name: str, status: str) -> dict:
    return {"jobId": f"id-of-{name}", "jobName": name, "status": status}


def test_every_job_of_the_stacks_queues_ends_whatever_it_does_just_now(capsys):
    names = {state: state.lower() for state in fleet_end.UNFINISHED}
    account = Account(
        {
            "fine-tune-slm-spot": [job(name, state) for state, name in names.items()] + [job("old", "SUCCEEDED")],
            "fine-tune-slm-on-demand": [job("last", "RUNNING")],
            "fine-tune-slm-demo-spot": [job("theirs", "RUNNING")],
        }
    )
    assert fleet_end.end_jobs(account) == fleet_end.EndedJobs(6)
    assert set(account.told) == {f"id-of-{name}" for name in [*names.values(), "last"]}
    assert "running ends (RUNNING)" in capsys.readouterr().err


def test_where_there_is_no_fleet_nothing_is_asked_of_it_but_its_queues():
    account = Account({})
    assert fleet_end.end_jobs(account) == fleet_end.EndedJobs(0) and account.asked
    assert fleet_end.wait_until_empty(account) == fleet_end.Emptied(0)


def test_a_job_is_told_once_and_one_that_does_not_end_is_named(monkeypatch):
    monkeypatch.setattr(fleet_end, "JOBS_END", 0.5)
    account = Account({"fine-tune-slm-spot": [job("stuck", "RUNNING")]})
    account.stubborn = True
    with pytest.raises(Problem, match="stuck has not ended within"):
        fleet_end.end_jobs(account)
    assert account.told == ["id-of-stuck"]


def test_what_is_left_of_the_fleet_is_waited_for_and_told(capsys, monkeypatch):
    assert fleet_end.wait_until_empty(Account({}, ["i-1", "i-2"])) == fleet_end.Emptied(2)
    assert "i-1 (g6.2xlarge) is gone" in capsys.readouterr().err
    monkeypatch.setattr(fleet_end, "SCALE_IN", 0.3)
    account = Account({}, ["i-3"])
    account.stubborn = True
    with pytest.raises(Problem, match="i-3 of the fleet is still there") as raised:
        fleet_end.wait_until_empty(account)
    assert "`inv down --fleet`" in raised.value.hint


def test_only_definitions_of_this_stack_are_forgotten():
    tag = "0123456789abcdef"
    account = Account({}, definitions=[f"fine-tune-slm-{tag}:1", f"fine-tune-slm-{tag}:2", f"fine-tune-slm-demo-{tag}:1", "somebodys:4"])
    fleet_end.forget_definitions(account, fleet_end.definitions(account))
    assert account.forgotten == [f"fine-tune-slm-{tag}:1", f"fine-tune-slm-{tag}:2"]
