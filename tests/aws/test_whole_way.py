"""The whole way of a real account: told here on the emulated one, as if it were AWS; on AWS where somebody gives it a limit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aws import record, whole_way
from conftest import ROOT, Laptop

from twin import world

PROGRAM = [sys.executable, str(ROOT / "tests/aws/whole_way.py")]


@pytest.mark.aws
def test_the_whole_way_on_a_real_account():
    """AWS_LIMIT=5 HUB_TOKEN=~/.hub-token make test-aws"""
    if not os.environ.get("AWS_LIMIT") or not os.environ.get("HUB_TOKEN"):
        pytest.skip("it costs money: AWS_LIMIT says how many dollars it may cost, HUB_TOKEN which file has a Hub token")
    token = Path(os.environ["HUB_TOKEN"]).expanduser()
    command = [*PROGRAM, "--limit", os.environ["AWS_LIMIT"], "--token", str(token), "--", *os.environ.get("OVERRIDES", "").split()]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account with nothing in it, and how the whole way is gone in it."""
    laptop = Laptop(tmp_path_factory.mktemp("an account"))
    laptop.inv("twin.start", "--empty")
    laptop.token = laptop.folder / "token"
    laptop.token.write_text(laptop.environment["HF_TOKEN"])

    def go(*words: str, limit: str = "5") -> subprocess.CompletedProcess:
        own = ["--limit", limit, "--token", str(laptop.token), "--into", str(laptop.folder / "recorded")]
        command = [*PROGRAM, *own, *laptop.words(*words)]
        return subprocess.run(command, cwd=ROOT, env=laptop.environment, text=True, capture_output=True, timeout=900)

    laptop.go = go
    yield laptop
    world.stop(laptop.state)


def nothing_is_left(laptop) -> bool:
    volumes, roles = laptop.client("ec2").describe_volumes()["Volumes"], laptop.client("iam").list_roles()["Roles"]
    return not volumes and not roles and not laptop.client("s3").list_buckets()["Buckets"]


@pytest.mark.slow
def test_a_type_whose_price_nobody_says_is_refused_before_anything_is_made(account):
    done = account.go("box.instance_type=p5.48xlarge")
    assert done.returncode == 1 and "nobody says what an hour of p5.48xlarge costs" in done.stderr
    assert nothing_is_left(account)


@pytest.mark.slow
def test_a_limit_that_pays_no_box_is_refused_before_anything_is_made(account):
    done = account.go("box.instance_type=g4dn.xlarge", limit="0.1")
    assert done.returncode == 1 and "$0.1 pays 11 minutes of g4dn.xlarge" in done.stderr
    assert nothing_is_left(account)


@pytest.mark.slow
def test_the_whole_way_is_gone_recorded_and_leaves_nothing(account):
    done = account.go("box.instance_type=g4dn.xlarge")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = re.findall(r"^== ([a-z]+): well", done.stdout, re.M)
    assert steps == ["init", "doctor", "up", "deploy", "train", "publish", "status", "costs", "report", "down", "down", "destroy"]
    assert nothing_is_left(account)
    recorded = {path.stem: path.read_text() for path in (account.folder / "recorded").glob("*.json")}
    assert {"ec2.CreateVolume", "ec2.RunInstances", "ssm.SendCommand", "ssm.GetCommandInvocation", "cloudformation.DescribeStacks"} <= set(
        recorded
    )
    secrets = [world.ACCOUNT, account.environment["HF_TOKEN"], "fine-tune-slm", "vol-", "arn:"]
    assert [(name, secret) for name, text in recorded.items() for secret in secrets if secret in text] == []
    assert not any(record.IDENTITY.search(text) for text in recorded.values())
    (volume,) = json.loads(recorded["ec2.CreateVolume"])
    assert volume["State"] in ("creating", "available") and volume["VolumeId"] == record.TEXT and "Attachments" not in volume


@pytest.mark.slow
def test_where_a_verb_fails_what_was_made_is_removed(account):
    world.fault(account.state, "capacity", count=0)
    done = account.go("box.instance_type=g4dn.xlarge")
    world.clear_faults(account.state)
    assert done.returncode == 1 and "== up: exit code 1" in done.stdout and "== destroy: well" in done.stdout
    assert nothing_is_left(account)


@pytest.mark.slow
def test_an_account_that_is_in_use_is_refused_and_stays_as_it_is(account):
    """Last in this file: afterwards the account is in use."""
    account.inv("init", "--yes", "--token", str(account.token))
    done = account.go("box.instance_type=g4dn.xlarge")
    assert done.returncode == 1 and "has a stack `fine-tune-slm`" in done.stderr
    assert [bucket["Name"] for bucket in account.client("s3").list_buckets()["Buckets"]] == ["fine-tune-slm"]


def test_the_way_is_that_of_the_readme():
    verbs = [verb[0] for verb in whole_way.WAY]
    assert [verb for verb in verbs if verb not in ("status", "costs", "report")] == ["up", "deploy", "train", "publish", "down"]
