"""A fleet in an account, with IAM enforced: `inv init` makes, keeps, changes and removes it, `inv doctor` looks, `inv destroy` leaves."""

import json
from pathlib import Path

import pytest
from whole_account import Story, snapshot

from conf import load
from remote.account import permissions
from remote.aws import fleet
from twin import world

pytestmark = pytest.mark.slow  # an account is made ready five times
RUN = load.load(["cloud=twin"], local=Path("none"))
POLICIES = permissions.roles(RUN.cloud, world.ACCOUNT, world.CALLER)
BATCH = ("fleet=batch", "fleet.max_vcpus=32")


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account with nothing in it, whose user holds our policies and no other."""
    made = Story(tmp_path_factory.mktemp("a fleet"))
    held = [POLICIES[who] for who in ("laptop", "files", "setup", "fleet", "fleet-setup")]
    # The twin asks for these on `*`: tests/unit/remote/account/test_fleet_permissions.py holds what they are about.
    asked = {"Effect": "Allow", "Action": ["batch:*", "events:*", "logs:PutResourcePolicy"], "Resource": "*"}
    world.enforce(made.state, [*held, {"Version": "2012-10-17", "Statement": [asked]}])
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


def test_destroy_leaves_nothing_of_it(account):
    init(account, *BATCH)
    account.inv("down", "--fleet")
    printed = account.inv("destroy", "--yes")
    assert "Batch ComputeEnvironment" in printed.stdout + printed.stderr
    assert environments(account) == {} and not snapshot(account)["roles"]
