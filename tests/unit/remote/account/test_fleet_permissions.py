"""Who runs on a fleet may use his own stack's queues, definitions and jobs, an image of its repository and the role of its runs."""

from pathlib import Path

import pytest

from conf import load
from remote.account import fleet_permissions, permissions
from remote.account.statement import Account, document
from twin import world
from twin.aws.iam import policy

IMAGE = f"{world.ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/fine-tune-slm@sha256:{'a' * 64}"
DIGITS = "0123456789abcdef"


def account(*words: str) -> Account:
    run = load.load(["cloud=aws", "cloud.bucket=b", *words], lambda names, cloud: {"/fine-tune-slm/s3/bucket": "b"}, Path("none"))
    return Account("aws", world.ACCOUNT, run.cloud, world.CALLER)


OURS, DEMO = account(), account("cloud.stack=demo")


def batch(name: str) -> str:
    return f"arn:aws:batch:us-east-1:{world.ACCOUNT}:{name}"


def allowed(action: str, resource: str, context: dict, who: Account = OURS) -> bool:
    return policy.decide([document(fleet_permissions.fleet(who))], action, resource, context) == policy.ALLOWED


def tag(where: str, value: str = "fine-tune-slm") -> dict:
    return {f"aws:{where}/{fleet_permissions.TAG}": value}


@pytest.mark.parametrize(
    ("resource", "may"),
    [
        (f"job-definition/fine-tune-slm-{DIGITS}", True),
        (f"job-definition/fine-tune-slm-{DIGITS}:3", True),
        (f"job-definition/fine-tune-slm-demo-{DIGITS}", False),
        (f"job-definition/fine-tune-slm-demo-{DIGITS}:1", False),
        ("job-definition/mine", False),
        ("job-queue/fine-tune-slm-spot", True),
        ("job-queue/fine-tune-slm-on-demand", True),
        ("job-queue/fine-tune-slm-spot-first", True),
        ("job-queue/fine-tune-slm-demo-spot", False),
        ("job-queue/other", False),
    ],
)
def test_runs_are_handed_over_to_this_stacks_queues_with_its_definitions_alone(resource, may):
    assert allowed("batch:SubmitJob", batch(resource), tag("RequestTag")) is may
    assert not allowed("batch:SubmitJob", batch(resource), tag("RequestTag", "fine-tune-slm-demo"))
    assert not allowed("batch:SubmitJob", batch(resource), {})
    assert not (may and allowed("batch:SubmitJob", batch(resource), tag("RequestTag", "fine-tune-slm-demo"), DEMO))


@pytest.mark.parametrize("action", ["batch:CancelJob", "batch:TerminateJob"])
def test_nobody_ends_a_job_of_another_stack(action):
    job = batch("job/0b3ea3d9-5e3c-4d5c-9c51-2b2f5c2b0f3a")
    assert allowed(action, job, tag("ResourceTag"))
    assert not allowed(action, job, tag("ResourceTag", "fine-tune-slm-demo"))
    assert not allowed(action, job, {})


GOOD = tag("RequestTag") | {"batch:Image": IMAGE, "batch:Privileged": "false", "batch:AWSLogsGroup": "/fine-tune-slm"}


@pytest.mark.parametrize(
    ("changed", "may"),
    [
        ({}, True),
        ({"batch:Privileged": None}, True),
        ({"batch:Privileged": "true"}, False),
        ({"batch:Image": "evil.example.com/fine-tune-slm@sha256:" + "a" * 64}, False),
        ({"batch:Image": IMAGE.replace("/fine-tune-slm@", "/fine-tune-slm-demo@")}, False),
        ({"batch:Image": IMAGE.replace(world.ACCOUNT, "999999999999")}, False),
        ({"batch:Image": IMAGE.partition("@")[0] + ":latest"}, False),
        ({"batch:Image": None}, False),
        ({"batch:AWSLogsGroup": "/somebody"}, False),
        (tag("RequestTag", "fine-tune-slm-demo"), False),
    ],
)
def test_nobody_registers_a_definition_that_is_privileged_or_of_a_foreign_image(changed, may):
    context = {key: value for key, value in (GOOD | changed).items() if value is not None}
    assert allowed("batch:RegisterJobDefinition", batch(f"job-definition/fine-tune-slm-{DIGITS}"), context) is may
    assert not allowed("batch:RegisterJobDefinition", batch(f"job-definition/fine-tune-slm-demo-{DIGITS}"), context)


@pytest.mark.parametrize(
    ("role", "may"), [("fine-tune-slm-job", True), ("fine-tune-slm-demo-job", False), ("fine-tune-slm-box", False), ("Admin", False)]
)
def test_a_run_is_given_its_own_role_and_no_other(role, may):
    assert allowed("iam:PassRole", f"arn:aws:iam::{world.ACCOUNT}:role/{role}", {}) is may


def test_definitions_are_forgotten_by_the_stack_that_has_made_them():
    assert allowed("batch:DeregisterJobDefinition", batch(f"job-definition/fine-tune-slm-{DIGITS}:2"), {})
    assert not allowed("batch:DeregisterJobDefinition", batch(f"job-definition/fine-tune-slm-demo-{DIGITS}:2"), {})


@pytest.mark.parametrize("at", [OURS, DEMO])
def test_an_instance_reads_nothing_of_s3_and_joins_the_clusters_of_its_own_stack_alone(at):
    statements = fleet_permissions.instance(at)
    assert {action.split(":")[0] for one in statements for action in one.actions} == {"ecs", "ecr", "logs"}
    cluster = f"arn:aws:ecs:us-east-1:{world.ACCOUNT}:cluster/AWSBatch-{{}}-0b3ea3d9-5e3c-4d5c-9c51-2b2f5c2b0f3a"
    for market in ("spot", "on-demand"):
        for stack_name in ("fine-tune-slm", "fine-tune-slm-demo"):
            own = stack_name == at.cloud.own
            decided = policy.decide([document(statements)], "ecs:RegisterContainerInstance", cluster.format(f"{stack_name}-{market}"), {})
            assert (decided == policy.ALLOWED) is own


def test_a_run_may_do_with_its_role_what_one_on_the_box_may_and_nothing_of_the_box_itself():
    actions = {action for one in permissions.job(OURS) for action in one.actions}
    assert actions < {action for one in permissions.box(OURS) for action in one.actions}
    assert not [action for action in actions if action.split(":")[0] in ("ec2", "ecr", "ssm", "ssmmessages", "ec2messages")]


def test_the_policy_of_a_fleet_is_printed_for_its_stack():
    policies = permissions.roles(DEMO.cloud, world.ACCOUNT, world.CALLER)
    text = str(policies["fleet"])
    assert "job-queue/fine-tune-slm-demo-spot" in text and "job-queue/fine-tune-slm-spot" not in text
