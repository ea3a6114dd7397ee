"""A fleet in an account, with IAM enforced: `inv init` makes, keeps, changes and removes it, `inv doctor` looks, `inv destroy` leaves."""

import json
import re
from pathlib import Path

import loaded
import pytest
from whole_account import Story, snapshot

from conf import load
from conf.fleet_job import WORDS
from conf.text.quoting import quoted
from remote.account import permissions
from remote.aws import batch, fleet
from remote.aws.session import Aws, pauses
from twin import world

pytestmark = pytest.mark.slow  # an account is made ready five times
RUN = load.load(["cloud=twin"], local=Path("none"))
POLICIES = permissions.roles(RUN.cloud, world.ACCOUNT, world.CALLER)
BATCH = ("fleet=batch", "fleet.max_vcpus=32")


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account with nothing in it, whose user holds our policies and no other."""
    made = Story(tmp_path_factory.mktemp("a fleet"))
    world.enforce(made.state, [POLICIES[who] for who in ("laptop", "files", "setup", "fleet", "fleet-setup")])
    yield made
    world.stop(made.state)


def environments(account) -> dict[str, tuple]:
    there = account.client("batch").describe_compute_environments()["computeEnvironments"]
    return {one["computeEnvironmentName"]: (one["status"], one["computeResources"]["maxvCpus"]) for one in there}


def init(account, *overrides: str) -> str:
    done = account.inv("init", "--yes", "--token", str(account.token), overrides=overrides)
    return done.stdout + done.stderr


def test_a_fleet_is_made_only_when_asked_for_and_stays_until_it_is_asked_to_go(account):
    init(account)
    before = snapshot(account)
    assert environments(account) == {}
    printed = init(account, *BATCH)
    assert "Batch ComputeEnvironment" in printed and "Batch JobQueue" in printed
    assert environments(account) == {f"fine-tune-slm-{name}": ("VALID", 32) for name in fleet.ENVIRONMENTS}
    assert "nothing to do" in init(account, *BATCH)
    printed = init(account)
    assert "the fleet stays as it is" in printed and "nothing to do" in printed
    init(account, "fleet=batch", "fleet.max_vcpus=64", "fleet.instance_type=[g6.2xlarge,g5.2xlarge]", "fleet.disk_gb=300")
    assert environments(account) == {f"fine-tune-slm-{name}": ("VALID", 64) for name in fleet.ENVIRONMENTS}
    init(account, "fleet=batch", "fleet.max_vcpus=0")
    assert environments(account) == {} and snapshot(account) == before


def findings(account, *overrides: str) -> dict[str, dict]:
    done = account.inv("doctor", "--json", overrides=overrides, ok=None)
    return {one["check"]: one for one in json.loads(done.stdout)["findings"] if one["check"].startswith("fleet")}


def test_the_doctor_names_what_keeps_a_fleet_from_running(account):
    assert findings(account) == {}
    there = findings(account, *BATCH)
    assert there["fleet"]["verdict"] == "broken" and "inv init" in there["fleet"]["command"]
    init(account, *BATCH)
    there = findings(account, *BATCH)
    assert there["fleet"]["verdict"] == "ok" and there["fleet network"]["verdict"] == "ok"
    assert there["fleet image"]["verdict"] == "broken" and "inv image.push" in there["fleet image"]["command"]
    assert there["fleet memory"]["verdict"] == "ok"
    assert findings(account, *BATCH, "fleet.max_vcpus=16")["fleet"]["verdict"] == "note"


TAG = "0123456789abcdef"


def hand_over(account, *run_ids: str) -> None:
    """Jobs of the fleet that go on until they are told to end, defined and submitted as the verbs do it, with no more rights."""
    run = load.load(["cloud=twin", f"cloud.state={quoted(account.state)}", *BATCH], local=Path("none"))
    with pytest.MonkeyPatch.context() as patch:
        loaded.enter(patch, account.state)
        aws = Aws(run.cloud)
        repository = aws.client("ecr").describe_repositories(repositoryNames=[run.cloud.repository])["repositories"][0]["repositoryUri"]
        digest = world.register_image(account.state, run.cloud.repository, TAG, ["bash", "-c", "sleep 600"], "", {})
        defined = batch.define(aws, run, f"{repository}@{digest}", TAG)
        words = dict.fromkeys(WORDS, "none")
        for run_id in run_ids:
            batch.submit(aws, run, run_id, defined.definition, words | {"run": run_id}, 3600)
        for _ in pauses(300):
            if [job.status for run_id in run_ids for job in batch.jobs(aws, run.cloud, run_id)] == ["RUNNING"] * len(run_ids):
                return
    raise AssertionError("the jobs do not run")


def test_down_ends_every_job_and_waits_until_nothing_is_paid_for_any_more_and_the_ledger_is_the_meters(account):
    init(account, *BATCH)
    hand_over(account, "20261130-120000-one-0001", "20261130-120000-one-0002")
    refused = account.inv("destroy", "--yes", ok=False)
    assert refused.returncode == 1 and "20261130-120000-one-0001" in refused.stderr and "inv down" in refused.stderr
    done = account.inv("down", "--fleet")
    assert "2 jobs of the fleet have ended" in done.stdout + done.stderr
    states = [one["State"]["Name"] for group in account.client("ec2").describe_instances()["Reservations"] for one in group["Instances"]]
    assert states and set(states) == {"terminated"}
    every = world.costs(account.state)["rows"]
    assert [row for row in every if row["kind"] in ("instance", "volume") and row["until"] is None] == [], "an idle fleet costs nothing"
    costs = account.inv("costs").stdout
    rows = [row for row in every if row["kind"] == "instance"]
    lines = re.findall(r"^(i-\w+) g6.2xlarge spot in \S+ from \S+ +(\d+) s +\S+ a hour +(\S+) *$", costs, re.M)
    assert len(lines) == len(rows) == len(states)
    assert sum(float(usd) for _, _, usd in lines) == pytest.approx(sum(row["usd"] for row in rows), abs=0.01)


def test_destroy_leaves_nothing_of_it(account):
    printed = account.inv("destroy", "--yes")
    assert "Batch ComputeEnvironment" in printed.stdout + printed.stderr
    assert "Batch JobDefinition" in printed.stdout + printed.stderr
    assert environments(account) == {} and not snapshot(account)["roles"]
    assert not account.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
