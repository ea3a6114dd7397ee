"""Least privilege, held against what is really asked: every verb passes with our policies, and no line of them is for nothing."""

import fnmatch
import json
import time
from pathlib import Path

import pytest
import stand_in_trainer
from parliament import analyze_policy_string, iam_definition

from conf import load
from remote import aws, permissions
from twin import world

CLOUD = load.load(["cloud=twin"], local=Path("none")).cloud
POLICIES = permissions.roles(CLOUD, world.ACCOUNT, world.CALLER)
AT = permissions.Place("aws", world.ACCOUNT, CLOUD, world.CALLER)

# Asked only when the answers to eight sends in a row were lost; see remote/ssm.py.
RARE = {"ssm:ListCommands"}


def stopped(laptop) -> bool:
    boxes = laptop.client("ec2").describe_instances()["Reservations"][-1]["Instances"]
    return boxes[0]["State"]["Name"] == "stopped"


@pytest.fixture(scope="module")
def used(laptop):
    """The actions that laptop and box ask for in all that the verbs do, with the laptop held to its policy."""
    stand_in_trainer.register(laptop.state)
    world.enforce(laptop.state, [POLICIES["laptop"]])
    laptop.inv("up", "deploy", "train", "publish", "status", "logs", "report", "costs", "doctor", "down", "--snapshot")
    laptop.inv("up", "deploy", overrides=("box.disk_gb=101", "box.idle_minutes=0.02"))
    deadline = time.monotonic() + 90
    while not stopped(laptop):
        assert time.monotonic() < deadline, "the box did not stop itself"
        time.sleep(0.5)
    laptop.inv("up", "down", "--purge", "--yes", overrides=("box.disk_gb=101",))
    laptop.inv("up", "down", "--purge", "--yes", overrides=("box.spot=true",))
    fetched(laptop)
    asked = world.used(laptop.state)
    world.enforce(laptop.state, None)
    return {who: set(actions) - {"sts:GetCallerIdentity"} for who, actions in asked.items()}


def fetched(laptop) -> None:
    """Settings from Parameter Store, which the twin's own settings name none of."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment(laptop.state).items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
        assert aws.fetch(["/fine-tune-slm/aws/region"], {}) == {"/fine-tune-slm/aws/region": "us-east-1"}


def allowed(statements, implied: bool) -> set[str]:
    return {action for one in statements if bool(one.implied) is implied for action in one.actions}


@pytest.mark.parametrize("who", ["laptop", "box"])
def test_all_that_is_called_is_allowed_and_all_that_is_allowed_is_called(used, who):
    statements = {"laptop": permissions.laptop, "box": permissions.box}[who](AT)
    named, implied = allowed(statements, False), allowed(statements, True)
    assert used[who] <= named | implied
    assert named - RARE <= used[who]


def test_what_no_request_names_has_its_page():
    every = [*permissions.laptop(AT), *permissions.box(AT), *permissions.workflow(AT)]
    assert all(one.implied.startswith("https://docs.aws.amazon.com/") for one in every if one.implied)


@pytest.mark.parametrize("action", ["ssm:SendCommand", "s3:PutObject", "iam:PassRole", "scheduler:CreateSchedule"])
def test_without_one_line_the_chain_fails_with_a_sentence(used, laptop, action):
    policy = json.loads(json.dumps(POLICIES["laptop"]))
    for one in policy["Statement"]:
        one["Action"] = [name for name in one["Action"] if name != action]
    world.enforce(laptop.state, [policy])
    done = laptop.inv("up", ok=False)
    world.enforce(laptop.state, None)
    laptop.inv("down", ok=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"not authorized to perform: {action}" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize("who", sorted(POLICIES))
def test_the_linter_finds_nothing(who):
    found = [one for one in analyze_policy_string(json.dumps(POLICIES[who])).findings if one.issue != "RESOURCE_MISMATCH"]
    assert found == []
    # It looks at one statement at a time; here an action may have its resources in several.
    for one in analyze_policy_string(json.dumps(POLICIES[who])).findings:
        for lack in one.detail:
            named = [each for line in POLICIES[who]["Statement"] if lack["action"] in line["Action"] for each in line["Resource"]]
            assert any(fnmatch.fnmatchcase(each, lack["required_format"]) for each in named), lack


@pytest.mark.parametrize("who", sorted(POLICIES))
def test_everything_is_named_only_where_nothing_can_be(who):
    kinds = {
        f"{service['prefix']}:{each['privilege']}".lower(): [one["resource_type"] for one in each["resource_types"] if one["resource_type"]]
        for service in iam_definition
        for each in service["privileges"]
    }
    for line in POLICIES[who]["Statement"]:
        if line["Resource"] == ["*"]:
            assert [action for action in line["Action"] if kinds.get(action.lower())] == [], line


def test_policies_fit_into_what_iam_takes():
    """A managed policy has 6,144 characters at most, not counting white space."""
    assert all(len(json.dumps(policy, separators=(",", ":"))) <= 6144 for policy in POLICIES.values())
