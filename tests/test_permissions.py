"""Least privilege, held against what is really asked: every verb passes with our policies, and no line of them is for nothing.

The whole way takes minutes and is a `system` test; the shorter one of docs/AWS.md runs with the same policies in tests/test_docs_aws.py.
"""

import fnmatch
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import stand_in_trainer
from parliament import analyze_policy_string, iam_definition
from whole_account import Story, snapshot

from conf import load
from remote import permissions, setup_rights, stack
from remote.statement import Place, document, together
from twin import policy, templates, world
from twin.machine import ground

RUN = load.load(["cloud=twin"], local=Path("none"))
POLICIES = permissions.roles(RUN.cloud, world.ACCOUNT, world.CALLER)
AT = Place("aws", world.ACCOUNT, RUN.cloud, world.CALLER)
LAPTOP, SETUP, BOX = permissions.laptop(AT), setup_rights.setup(AT), permissions.box(AT)
# Asked only when the answer to a send was lost or nobody waits for the command any more (remote/ssm.py), or a stack could not be made.
RARE = {("Answers", "ssm:ListCommands"), ("Answers", "ssm:CancelCommand"), ("Stack", "cloudformation:DescribeStackEvents")}
RARE |= {("UseCopy", "ec2:CreateVolume")}  # by hand, with the commands that remote/capacity.py prints: its test enforces the policy
RARE |= {("UseBox", "ec2:RebootInstances")}  # of a silent agent's box: tests/remote/test_silent_agent.py enforces the policy
SSHD = ground.program("sshd")
if not SSHD:  # without one no emulated box can be come to by SSH
    RARE |= {("OpenPort", action) for action in permissions.DOOR} | {("UseBox", "ec2-instance-connect:SendSSHPublicKey")}
SPOT = ("box.spot=true",)
GIVEN = ("cloud.budget_usd=40", "cloud.github=me/mine")


def stopped(laptop) -> bool:
    return next(box["state"] for box in snapshot(laptop)["boxes"]) == "stopped"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An account with nothing in it."""
    made = Story(tmp_path_factory.mktemp("an empty account"))
    yield made
    world.stop(made.state)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """From an empty account to an empty account, with laptop and boxes held to their policies all the way."""
    made = Story(tmp_path_factory.mktemp("a story"))
    world.enforce(made.state, [POLICIES["laptop"], POLICIES["setup"]])
    made.client("ssm").put_parameter(Name="/fine-tune-slm/ebs/size-gb", Value="100", Type="String")  # by hand, before
    made.twice("init", "--yes", "--token", str(made.token), overrides=GIVEN)
    stand_in_trainer.register(made.state)
    made.twice("doctor")
    made.twice("plan")
    made.twice("up", overrides=SPOT)
    made.twice("deploy")
    made.inv("train")
    made.twice("publish")
    made.inv("status", "logs", "report", "costs")
    made.again("doctor")
    made.inv("down", "--snapshot")
    made.again("down")
    made.inv("up", "deploy", overrides=("box.disk_gb=101", "box.idle_minutes=0.02"))
    deadline = time.monotonic() + 300
    while not stopped(made):
        assert time.monotonic() < deadline, "the box did not stop itself"
        time.sleep(0.5)
    made.inv("up", "down", "--purge", "--yes", overrides=("box.disk_gb=101",))
    if SSHD:
        made.inv("up", "down", "--purge", "--yes", overrides=("box.ssh=true",))
    made.twice("destroy", "--yes")
    made.kept = snapshot(made)
    made.twice("destroy", "--data", "--yes")
    made.asked = world.used(made.state)
    world.enforce(made.state, None)
    yield made
    world.stop(made.state)


@pytest.mark.slow
def test_the_whole_story_passes_with_our_policies_and_the_doctor_finds_nothing_wrong(story):
    for said in story.said["doctor"]:
        assert " 0 broken, 0 unknown, 0 to look at" in said


@pytest.mark.slow
def test_a_command_that_is_given_twice_changes_nothing_the_second_time(story):
    assert set(story.changed) == {"init", "plan", "doctor", "up", "deploy", "publish", "down", "destroy"}
    assert {verb: change for verb, change in story.changed.items() if change} == {}


@pytest.mark.slow
def test_nothing_is_left_but_what_was_kept_on_purpose(story):
    kept = {name: things for name, things in story.kept.items() if things}
    assert set(kept) == {"buckets", "objects", "snapshots"}
    assert {name: things for name, things in snapshot(story).items() if things} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("who", "statements"), [("laptop", [*LAPTOP, *SETUP]), ("box", BOX)])
def test_all_that_is_asked_for_is_allowed(story, who, statements):
    asked = [one for one in story.asked[who] if one["action"] != "sts:GetCallerIdentity"]
    assert asked and [one for one in asked if not allowed(statements, one)] == []


def allowed(statements, one: dict) -> bool:
    return policy.decide([document(statements)], one["action"], one["resource"], one["context"]) == policy.ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize(("who", "statements", "beside"), [("laptop", LAPTOP, []), ("laptop", SETUP, LAPTOP), ("box", BOX, [])])
def test_without_any_one_line_something_that_was_asked_for_would_be_denied(story, who, statements, beside):
    for one in statements:
        rest = [*(other for other in statements if other is not one), *beside]
        for action in () if one.implied else one.actions:
            asked = [each for each in story.asked[who] if each["action"] == action and allowed([*statements, *beside], each)]
            assert (one.sid, action) in RARE or not all(allowed(rest, each) for each in asked), (one.sid, action)


def test_what_no_request_names_has_its_page():
    every = [*LAPTOP, *SETUP, *BOX, *permissions.workflow(AT)]
    assert all(one.implied.startswith("https://docs.aws.amazon.com/") for one in every if one.implied)


def without(who: str, action: str) -> dict:
    taken = json.loads(json.dumps(POLICIES[who]))
    for one in taken["Statement"]:
        one["Action"] = [name for name in one["Action"] if name != action]
    return taken | {"Statement": [one for one in taken["Statement"] if one["Action"]]}


def refused(done, action: str) -> bool:
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return f"not authorized to perform: {action}" in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("action", ["iam:PassRole", "s3:PutObject", "scheduler:CreateSchedule", "ssm:SendCommand"])
def test_without_one_line_of_the_laptops_the_chain_fails_with_a_sentence(laptop, action):
    world.enforce(laptop.state, [without("laptop", action)])
    done = laptop.inv("up", ok=False)
    world.enforce(laptop.state, None)
    assert refused(done, action)


@pytest.mark.parametrize(("action", "verb"), [("ecr:GetAuthorizationToken", "deploy"), ("secretsmanager:GetSecretValue", "train")])
def test_without_one_line_of_the_boxs_the_chain_fails_with_a_sentence(laptop, action, verb):
    stand_in_trainer.register(laptop.state)
    laptop.inv("up", *(["deploy"] if verb == "train" else []))
    held = {"RoleName": RUN.cloud.box_role, "PolicyName": "box"}
    laptop.client("iam").put_role_policy(**held, PolicyDocument=json.dumps(without("box", action)))
    done = laptop.inv(verb, ok=False)
    laptop.client("iam").put_role_policy(**held, PolicyDocument=json.dumps(POLICIES["box"]))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert action.split(":")[1] in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("action", ["cloudformation:CreateChangeSet", "iam:CreateRole", "ssm:PutParameter"])
def test_without_one_line_of_the_setups_init_fails_with_a_sentence_and_leaves_nothing(empty, action):
    world.enforce(empty.state, [POLICIES["laptop"], without("setup", action)])
    done = empty.inv("init", "--yes", overrides=GIVEN, ok=False)
    world.enforce(empty.state, None)
    assert refused(done, action) and "--who setup" in done.stderr
    left = {name: things for name, things in snapshot(empty).items() if things}
    assert set(left) - {"stacks"} == set()  # CloudFormation keeps the record of what it has rolled back
    said = empty.inv("--dry", "init").stdout
    assert ("ROLLBACK_COMPLETE" in said and "delete-stack" in said) or "stacks" not in left
    assert {name: things for name, things in snapshot(empty).items() if things} == left


@pytest.mark.parametrize("who", sorted(POLICIES))
def test_the_linter_finds_nothing(who):
    # Making policies is what setup is for; and each of its lines is about one bucket, three roles, and through CloudFormation only.
    meant = {"RESOURCE_POLICY_PRIVILEGE_ESCALATION", "PRIVILEGE_ESCALATION"} if who == "setup" else set()
    found = [one for one in analyze_policy_string(json.dumps(POLICIES[who])).findings if one.issue not in meant | {"RESOURCE_MISMATCH"}]
    assert found == []
    # It looks at one statement at a time; here an action may have its resources in several.
    for one in analyze_policy_string(json.dumps(POLICIES[who])).findings:
        for lack in one.detail if one.issue == "RESOURCE_MISMATCH" else []:
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


@pytest.mark.parametrize("who", sorted(POLICIES))
def test_policies_fit_into_what_iam_takes(who):
    """A managed policy has 6,144 characters at most, not counting white space; an account's own names are longer than the emulated ones."""
    cloud = replace(RUN.cloud, region="ap-southeast-2", bucket=f"fine-tune-slm-{world.ACCOUNT}-ap-southeast-2")
    login = f"arn:aws:iam::{world.ACCOUNT}:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_PowerUserAccess_0123456789abcdef"
    assert len(json.dumps(permissions.roles(cloud, world.ACCOUNT, login)[who], separators=(",", ":"))) <= 6144


SHORTENED = [(LAPTOP, (permissions.MINE, permissions.BORN)), (SETUP, (setup_rights.THROUGH_STACK,))]


@pytest.mark.parametrize(("statements", "conditions"), SHORTENED)
def test_what_is_written_in_fewer_words_allows_no_action_on_any_other_resource(statements, conditions):
    fitting = {f"{service['prefix']}:{each['privilege']}": types(each) for service in iam_definition for each in service["privileges"]}
    for one in together(statements, *conditions):
        said = {
            (action, each)
            for other in statements
            if other.condition in ({}, one.condition)
            for action in other.actions
            for each in other.resources
        }
        for action in one.actions:
            more = {each for each in one.resources if kind(each) in fitting.get(action, set())} - {
                each for known, each in said if known == action
            }
            # Who may delete our volume may delete its tags.
            assert not more or action == "ec2:DeleteTags", (one.sid, action, more)


def types(privilege: dict) -> set[str]:
    return {each["resource_type"].rstrip("*").lower() for each in privilege["resource_types"]}


def kind(resource: str) -> str:
    """The type of what an ARN names, as the Service Authorization Reference calls it."""
    service, rest = resource.split(":")[2] if ":" in resource else "", resource.split(":", 5)[-1]
    if service == "s3":
        return "object" if "/" in rest else "bucket"
    return rest.replace(":", "/").split("/")[0]


def test_the_stacks_roles_have_exactly_these_policies():
    given = stack.parameters(RUN) | {"GithubRepository": "me/mine", "AWS::Region": RUN.cloud.region, "AWS::AccountId": world.ACCOUNT}
    scope = templates.Scope(given | {"AWS::Partition": "aws"}, {}, str, str)
    resources = templates.read(stack.TEMPLATE.read_text())["Resources"]
    for name, who in (("Role", "box"), ("StopRole", "scheduler"), ("GithubRole", "workflow")):
        (inline,) = scope.resolve(resources[name]["Properties"]["Policies"])
        assert lines(inline["PolicyDocument"]) == lines(POLICIES[who])


def lines(document: dict) -> dict[str, dict]:
    """Each statement by its name; one action or resource is a list of one."""
    listed = {one["Sid"]: one | {key: sorted(policy.listed(one[key])) for key in ("Action", "Resource")} for one in document["Statement"]}
    assert len(listed) == len(document["Statement"])
    return listed


def test_what_cloudformation_may_call_for_a_type_is_what_the_types_own_schema_lists():
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    for made in setup_rights._made(AT):
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", made.type).schema["handlers"]
        listed = {action for handler in handlers.values() for action in handler["permissions"]}
        assert set(made.actions(f"{made.called} {made.implied}")) <= listed, made.type
