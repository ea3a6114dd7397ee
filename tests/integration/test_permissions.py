"""Least privilege, held against what is really asked: every verb passes with our policies, and no line of them is for nothing.

The whole way takes minutes and is a `system` test; the shorter one of docs/AWS.md runs with the same policies in
tests/repository/test_docs_aws.py.
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
from conf.problem import Problem
from remote.account import fleet_permissions, notice_permissions, permissions, setup_permissions, stack
from remote.account.statement import INLINE, Account, document, merge_statements, size
from twin import world
from twin.aws.cloudformation import handlers, templates
from twin.aws.iam import policy, policy_sizes
from twin.box.machine import prerequisites

RUN = load.load(["cloud=twin"], local=Path("none"))
POLICIES = permissions.roles(RUN.cloud, world.ACCOUNT, world.CALLER)
HELD = [POLICIES["laptop"], POLICIES["files"]]  # by who trains
AT = Account("aws", world.ACCOUNT, RUN.cloud, world.CALLER)
LAPTOP, SETUP, BOX = [*permissions.laptop(AT), *permissions.files(AT)], setup_permissions.setup(AT), permissions.box(AT)
NOTICES = notice_permissions.notices(AT)
# Asked only when the answer to a send was lost or nobody waits for the command any more (remote/transport/ssm.py), or a stack could not
# be made.
RARE = {("Answers", "ssm:ListCommands"), ("Answers", "ssm:CancelCommand"), ("Stack", "cloudformation:DescribeStackEvents")}
RARE |= {("Stack", "cloudformation:DescribeEvents")}
RARE |= {("UseCopy", "ec2:CreateVolume")}  # by hand, with the commands that remote/aws/capacity.py prints: its test enforces the policy
RARE |= {("UseBox", "ec2:RebootInstances")}  # of a silent agent's box: tests/unit/remote/transport/test_silent_agent.py enforces the policy
# Of a box that is open: tests/unit/remote/aws/test_closed_metadata.py enforces the policy.
RARE |= {("NoteBox", "ec2:ModifyInstanceMetadataOptions")}
RARE |= {("LookAtEc2", "ec2:DescribeCapacityReservations")}  # tests/unit/remote/aws/test_capacity.py enforces the policy
SSHD = prerequisites.program("sshd")
if not SSHD:  # without one no emulated box can be come to by SSH
    RARE |= {("OpenPort", action) for action in permissions.SSH_INGRESS} | {("UseBox", "ec2-instance-connect:SendSSHPublicKey")}
# Newer than what the linter knows of: https://docs.aws.amazon.com/service-authorization/latest/reference/ has each.
NEWER = ("cloudformation:DescribeEvents", "freetier:GetAccountPlanState", "billing:GetBillingViewData")
SPOT = ("box.spot=true",)
GIVEN = ("cloud.budget_usd=40", "cloud.github=me/mine", "notify.email=me@example.com")
WEBHOOK = "fine-tune-slm/webhook"


def stopped(laptop) -> bool:
    return next(box["state"] for box in snapshot(laptop)["boxes"]) == "stopped"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An account with nothing in it."""
    made = Story(tmp_path_factory.mktemp("an empty account"))
    yield made
    world.stop(made.state)


def wait(happened, otherwise: str) -> None:
    deadline = time.monotonic() + 900
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.5)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """From an empty account to an empty account, with laptop and boxes held to their policies all the way."""
    made = Story(tmp_path_factory.mktemp("a story"))
    world.enforce(made.state, [*HELD, POLICIES["setup"], POLICIES["notices"]])
    made.client("ssm").put_parameter(Name="/fine-tune-slm/ebs/size-gb", Value="100", Type="String")  # by hand, before
    made.twice("init", "--yes", "--token", str(made.token), overrides=GIVEN)
    world.confirm_mail(made.state)
    secrets = made.client("secretsmanager")
    secrets.create_secret(Name=WEBHOOK, SecretString=json.loads((made.state / "state.json").read_text())["webhook"])
    made.inv("notify.test", overrides=(f"notify.webhook={WEBHOOK}",))
    stand_in_trainer.register(made.state)
    made.twice("doctor")
    made.twice("plan")
    made.twice("up", overrides=(*SPOT, f"notify.webhook={WEBHOOK}"))
    made.twice("deploy")
    made.inv("train")
    wait(lambda: not any("/checkpoints/" in key for key in made.objects()), "the box has not removed the checkpoints of a run that is done")
    made.twice("publish")
    made.inv("status", "logs", "report", "costs")
    made.again("doctor")
    made.inv("down", "--snapshot")
    made.again("down")
    made.inv("up", "deploy", overrides=("box.disk_gb=101", "box.idle_minutes=0.02"))
    wait(lambda: stopped(made), "the box did not stop itself")
    made.inv("up", "down", "--purge", "--yes", overrides=("box.disk_gb=101",))
    if SSHD:
        made.inv("up", "down", "--purge", "--yes", overrides=("box.ssh=true",))
    secrets.delete_secret(SecretId=WEBHOOK, ForceDeleteWithoutRecovery=True)
    made.twice("destroy", "--yes")
    made.kept = snapshot(made)
    made.twice("destroy", "--data", "--yes")
    made.asked = world.used(made.state)
    world.enforce(made.state, None)
    yield made
    world.stop(made.state)


@pytest.mark.slow
def test_the_whole_story_passes_with_our_policies_and_the_doctor_finds_nothing_wrong(story):
    for printed in story.said["doctor"]:
        assert " 0 broken, 0 unknown, 0 to look at" in printed


@pytest.mark.slow
def test_a_command_that_is_given_twice_changes_nothing_the_second_time(story):
    assert set(story.changed) == {"init", "plan", "doctor", "up", "deploy", "publish", "down", "destroy"}
    assert {verb: change for verb, change in story.changed.items() if change} == {}


@pytest.mark.slow
def test_nothing_is_left_but_what_was_kept_on_purpose(story):
    retained = {name: things for name, things in story.kept.items() if things}
    assert set(retained) == {"buckets", "objects", "snapshots"}
    assert {name: things for name, things in snapshot(story).items() if things} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("who", "statements"), [("laptop", [*LAPTOP, *SETUP, *NOTICES]), ("box", BOX)])
def test_all_that_is_asked_for_is_allowed(story, who, statements):
    freely = ("sts:GetCallerIdentity", "batch:DescribeJobDefinitions")  # who may not see those has registered none: destroy goes on
    asked = [one for one in story.asked[who] if one["action"] not in freely]
    assert asked and [one for one in asked if not allowed(statements, one)] == []


def allowed(statements, one: dict) -> bool:
    return policy.decide([document(statements)], one["action"], one["resource"], one["context"]) == policy.ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "statements", "beside"),
    [("laptop", LAPTOP, []), ("laptop", SETUP, LAPTOP), ("laptop", NOTICES, [*LAPTOP, *SETUP]), ("box", BOX, [])],
)
def test_without_any_one_line_something_that_was_asked_for_would_be_denied(story, who, statements, beside):
    for one in statements:
        rest = [*(other for other in statements if other is not one), *beside]
        for action in () if one.implied else one.actions:
            asked = [each for each in story.asked[who] if each["action"] == action and allowed([*statements, *beside], each)]
            assert (one.sid, action) in RARE or not all(allowed(rest, each) for each in asked), (one.sid, action)


def test_what_no_request_names_has_its_page():
    every = [*LAPTOP, *SETUP, *NOTICES, *BOX, *permissions.workflow(AT)]
    assert all(one.implied.startswith("https://docs.aws.amazon.com/") for one in every if one.implied)


def without(who: str, action: str) -> dict:
    both = [*POLICIES[who]["Statement"], *(POLICIES["files"]["Statement"] if who == "laptop" else [])]
    taken = json.loads(json.dumps(POLICIES[who] | {"Statement": both}))
    for one in taken["Statement"]:
        one["Action"] = [name for name in one["Action"] if name != action]
    return taken | {"Statement": [one for one in taken["Statement"] if one["Action"]]}


def refused(done, action: str) -> bool:
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return f"not authorized to perform: {action}" in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("action", ["iam:PassRole", "s3:PutObject", "scheduler:CreateSchedule", "ssm:SendCommand"])
@pytest.mark.slow
def test_without_one_line_of_the_laptops_the_chain_fails_with_a_sentence(laptop, action):
    world.enforce(laptop.state, [without("laptop", action)])
    done = laptop.inv("up", ok=False)
    world.enforce(laptop.state, None)
    assert refused(done, action)


@pytest.mark.parametrize(("action", "verb"), [("ecr:GetAuthorizationToken", "deploy"), ("secretsmanager:GetSecretValue", "train")])
@pytest.mark.slow
def test_without_one_line_of_the_boxs_the_chain_fails_with_a_sentence(laptop, action, verb):
    stand_in_trainer.register(laptop.state)
    laptop.inv("up", *(["deploy"] if verb == "train" else []))
    held = {"RoleName": RUN.cloud.box_role, "PolicyName": "box"}
    laptop.client("iam").put_role_policy(**held, PolicyDocument=json.dumps(without("box", action)))
    done = laptop.inv(verb, ok=False)
    laptop.client("iam").put_role_policy(**held, PolicyDocument=json.dumps(POLICIES["box"]))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert action.split(":")[1] in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("action", ["cloudformation:CreateChangeSet", "iam:CreateRole", "ssm:PutParameter", "logs:GetDataProtectionPolicy"])
@pytest.mark.slow
def test_without_one_line_of_the_setups_init_fails_with_a_sentence_and_leaves_nothing(empty, action):
    world.enforce(empty.state, [*HELD, POLICIES["notices"], without("setup", action)])
    done = empty.inv("init", "--yes", overrides=GIVEN, ok=False)
    world.enforce(empty.state, None)
    assert refused(done, action) and "--who setup" in done.stderr
    left = {name: things for name, things in snapshot(empty).items() if things}
    assert set(left) - {"stacks"} == set()  # CloudFormation keeps the record of what it has rolled back
    printed = empty.inv("--dry", "init").stdout
    assert ("ROLLBACK_COMPLETE" in printed and "delete-stack" in printed) or "stacks" not in left
    assert {name: things for name, things in snapshot(empty).items() if things} == left


@pytest.mark.parametrize("who", sorted(POLICIES))
def test_the_linter_finds_nothing(who):
    # Making policies is what setup is for; and each of its lines is about one bucket, three roles, and through CloudFormation only.
    meant = {"RESOURCE_POLICY_PRIVILEGE_ESCALATION", "PRIVILEGE_ESCALATION"} if who == "setup" else set()
    findings = analyze_policy_string(json.dumps(POLICIES[who])).findings
    # Of any call with an instance's credentials, though the service lists it for few: AWS's own AWSEC2VssSnapshotPolicy asks for it so.
    findings = [one for one in findings if "ec2:SourceInstanceARN" not in str(one.detail)]
    unknown = {one.detail for one in findings if one.issue == "UNKNOWN_ACTION"}
    assert all(any(action.split(":")[1] in str(detail) or action in str(detail) for action in NEWER) for detail in unknown), unknown
    assert [one for one in findings if one.issue not in meant | {"RESOURCE_MISMATCH", "UNKNOWN_ACTION"}] == []
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


SSO = f"arn:aws:iam::{world.ACCOUNT}:role/aws-reserved/sso.amazonaws.com/ap-southeast-2/AWSReservedSSO_PowerUserAccess_0123456789abcdef"
USUAL = {"region": "ap-southeast-2", "bucket": f"fine-tune-slm-{world.ACCOUNT}-ap-southeast-2"}
# A bucket's name has 63 characters at most, a role's 64; nobody is expected to use the 512 of a log group.
ROLES = {"box_role": "r" * 64, "scheduler_role": "s" * 64, "instance_profile": "p" * 64}
LONGEST = ROLES | {
    "bucket": "b" * 63,
    "prefix": "x" * 32,
    "repository": f"team/{'i' * 59}",
    "hub_secret": "h" * 64,
    "log_group": f"/{'l' * 63}",
}


@pytest.mark.parametrize("names", [USUAL, USUAL | LONGEST], ids=["usual", "longest"])
@pytest.mark.parametrize("who", sorted(POLICIES))
def test_policies_fit_into_what_iam_takes(who, names):
    """An account's own names are longer than the emulated ones."""
    policy = permissions.roles(replace(RUN.cloud, **names), world.ACCOUNT, SSO)[who]
    assert policy_sizes.size(json.dumps(policy)) == size(policy) <= policy_sizes.MANAGED
    if who in ("box", "scheduler", "workflow"):  # stack.yaml has them as the only inline policy of a role
        assert size(policy) <= policy_sizes.INLINE["Role"]


def test_who_prints_a_policy_is_told_what_kind_of_policy_takes_it():
    text = permissions.how_to_attach("laptop", POLICIES["laptop"])
    assert "a managed policy" in text and "an inline policy of a user (2,048) or a group (5,120):" in text
    assert "`aws iam create-policy --policy-name fine-tune-slm-laptop --policy-document file://laptop.json`" in text
    assert "inline" not in permissions.how_to_attach("scheduler", POLICIES["scheduler"])
    with pytest.raises(Problem, match="IAM takes 6,144 in one"):
        permissions.how_to_attach(
            "files", permissions.roles(replace(RUN.cloud, log_group="l" * 512, prefix="x" * 5900), world.ACCOUNT, SSO)["files"]
        )
    assert {"User": 2048, "Group": 5120, "Role": 10240} == policy_sizes.INLINE == {k.title(): most for k, most in INLINE.items()}


SHORTENED = [(LAPTOP, (AT.ours_by_tag,)), *((each, (setup_permissions.VIA_CLOUDFORMATION,)) for each in (SETUP, NOTICES))]


@pytest.mark.parametrize(("statements", "conditions"), SHORTENED)
def test_what_is_written_in_fewer_words_allows_no_action_on_any_other_resource(statements, conditions):
    fitting = {f"{service['prefix']}:{each['privilege']}": types(each) for service in iam_definition for each in service["privileges"]}
    for one in merge_statements(statements, *conditions):
        allowed_before = {
            (action, each)
            for other in statements
            if other.condition in ({}, one.condition)
            for action in other.actions
            for each in other.resources
        }
        for action in one.actions:
            more = {each for each in one.resources if kind(each) in fitting.get(action, set())} - {
                each for known, each in allowed_before if known == action
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


def pseudo(cloud) -> dict[str, str]:
    """What CloudFormation itself says."""
    return {"AWS::Region": cloud.region, "AWS::AccountId": world.ACCOUNT, "AWS::StackName": cloud.own}


@pytest.mark.parametrize("names", [{}, {"stack": "demo"}, {"hub_read_secret": "huggingface/read-token"}])
def test_the_stacks_roles_have_exactly_these_policies(names):
    run = replace(RUN, cloud=replace(RUN.cloud, **names))
    policies = permissions.roles(run.cloud, world.ACCOUNT, world.CALLER)
    parameters = stack.parameters(run) | {
        "GithubRepository": "me/mine",
        "AWS::Region": RUN.cloud.region,
        "AWS::AccountId": world.ACCOUNT,
        "AWS::StackName": run.cloud.own,
    }
    template = templates.read(stack.TEMPLATE.read_text())
    scope = templates.Scope(parameters | {"AWS::Partition": "aws"}, template["Conditions"], str, str)
    resources = template["Resources"]
    for name, who in (("Role", "box"), ("StopRole", "scheduler"), ("GithubRole", "workflow")):
        (inline,) = scope.resolve(resources[name]["Properties"]["Policies"])
        assert lines(inline["PolicyDocument"]) == lines(policies[who])


def lines(document: dict) -> dict[str, dict]:
    """Each statement by its name; one action or resource is a list of one."""
    listed = {one["Sid"]: one | {key: sorted(policy.as_list(one[key])) for key in ("Action", "Resource")} for one in document["Statement"]}
    assert len(listed) == len(document["Statement"])
    return listed


def test_what_cloudformation_may_call_for_a_type_is_what_the_types_own_schema_lists():
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    types = [each.resource_types(AT) for each in (fleet_permissions, notice_permissions)]
    for made in [*setup_permissions._resource_types(AT), *types[0], *types[1]]:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", made.type).schema
        listed = {action.lower() for handler in schema["handlers"].values() for action in handler["permissions"]}
        for action in made.actions(f"{made.called} {made.implied}"):
            assert fnmatch.filter(listed, action.lower()), (made.type, action)


def resources() -> dict[str, dict]:
    """All that the template may make, with the properties that it gives."""
    parameters = stack.parameters(RUN) | {
        "GithubRepository": "me/mine",
        "AWS::Region": RUN.cloud.region,
        "AWS::AccountId": world.ACCOUNT,
        "AWS::StackName": RUN.cloud.own,
    }
    yes = {"BudgetUsd": "40", "BudgetEmail": "me@example.com", "NotifyEmail": "me@example.com", "Vpc": "vpc-1", "FleetMaxVcpus": "32"}
    template = templates.read(stack.TEMPLATE.read_text())
    yes |= {name: "yes" for name in template["Parameters"] if name.startswith("Make")}
    known = parameters | yes | {"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com"}
    called = {"DataBucket": RUN.cloud.bucket, "Topic": AT.topic}
    scope = templates.Scope(known, template["Conditions"], lambda name: called.get(name, name), lambda name, part: name)
    return {name: about | {"Properties": scope.resolve(about["Properties"])} for name, about in template["Resources"].items()}


def denied(documents: list[dict]) -> set[str]:
    """What handlers ask for, to make, read, change, remove and list what the template makes, and are not allowed."""
    return {
        f"{asked.action} for {about['Type']}"
        for about in resources().values()
        for handler in handlers.HANDLERS[about["Type"]]
        for asked in handlers.required_access(about["Type"], handler, about["Properties"], "", RUN.cloud.region)
        if policy.decide(documents, asked.action, asked.resource, asked.context) != policy.ALLOWED
    }


def test_setup_and_laptop_may_do_all_that_the_handlers_of_our_types_ask_for():
    besides = [POLICIES[who] for who in ("fleet", "fleet-setup", "notices")]
    assert denied([*HELD, POLICIES["setup"], *besides]) == set()
    lacking = denied([*HELD, without("setup", "logs:GetDataProtectionPolicy"), *besides])
    assert lacking == {"logs:GetDataProtectionPolicy for AWS::Logs::LogGroup"}
