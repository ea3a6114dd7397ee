"""Whether laptop, box and scheduler may do what they do, as IAM itself simulates it; each policy line that is missing."""

from conf.finding import BROKEN, OK, Finding
from remote.account import permissions
from remote.account.statement import Statement, line
from remote.aws.session import Aws
from remote.doctor.check import Context

INSTANCE = "i-0123456789abcdef0"  # an example


def laptop(context: Context) -> list[Finding]:
    account = permissions.account(context.aws)
    source = account.principal
    if source.endswith(":root"):
        return [Finding("permissions", OK, "the root user may do everything")]
    return _simulated(
        "permissions", context, source, [*permissions.laptop(account), *permissions.files(account)], f"the policy of {source}"
    )


def box_role(context: Context) -> list[Finding]:
    name = context.run.cloud.instance_profile
    iam = context.aws.client("iam")
    try:
        roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    except iam.exceptions.NoSuchEntityException:
        roles = None
    if not roles:
        what = f"there is no instance profile `{name}`" if roles is None else f"the instance profile `{name}` has no role"
        return [Finding("box role", BROKEN, what, "the box acts by it", "name another: `cloud.instance_profile=...`")]
    if (actual_role := roles[0]["RoleName"]) != context.run.cloud.box_role:
        what = f"the instance profile `{name}` hands out the role {actual_role}, and `cloud.box_role` is {context.run.cloud.box_role}"
        return [
            Finding(
                "box role", BROKEN, what, "your policy lets you pass that role to a box and no other", f"`cloud.box_role={actual_role}`"
            )
        ]
    return _simulated(
        "box role", context, roles[0]["Arn"], permissions.box(permissions.account(context.aws)), f"the role {roles[0]['RoleName']}"
    )


def scheduler_role(context: Context) -> list[Finding]:
    name, why = context.run.cloud.scheduler_role, "it is what stops a box that can no longer stop itself"
    iam = context.aws.client("iam")
    try:
        role = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return [Finding("stop role", BROKEN, f"there is no role `{name}`", why, "name another: `cloud.scheduler_role=...`")]
    if "scheduler.amazonaws.com" not in str(role["AssumeRolePolicyDocument"]):
        command = (
            f"let scheduler.amazonaws.com assume it: `aws iam update-assume-role-policy --role-name {name} --policy-document file://...`"
        )
        return [Finding("stop role", BROKEN, f"the scheduler may not take the role `{name}`", why, command)]
    return _simulated("stop role", context, role["Arn"], permissions.scheduler(permissions.account(context.aws)), f"the role {name}")


def _simulated(check: str, context: Context, source: str, wanted: list[Statement], where: str) -> list[Finding]:
    """One finding with every policy line that is missing."""
    lacking = [(statement, missing) for statement in wanted if (missing := _denied(context.aws, source, statement))]
    if not lacking:
        return [Finding(check, OK, f"{where} allows all {len({action for statement in wanted for action in statement.actions})} actions")]
    what = f"{where} lacks " + ", ".join(sorted({action for _, missing in lacking for action in missing}))
    lines = "\n".join(line(statement, missing) for statement, missing in lacking)
    return [Finding(check, BROKEN, what, "; ".join(dict.fromkeys(statement.why for statement, _ in lacking)), f"add to {where}:\n{lines}")]


def _denied(aws: Aws, source: str, statement: Statement) -> list[str]:
    context_values = {"ec2:InstanceID": (INSTANCE, "")}  # what a variable in a condition stands for
    for operator, tests in statement.condition.items():
        if "Not" not in operator:  # what must not be, is not there
            context_values |= {key: (_example(_first(value)), operator) for key, value in tests.items()}
    entries = [
        {"ContextKeyName": key, "ContextKeyType": "stringList" if operator.startswith("ForA") else "string", "ContextKeyValues": [value]}
        for key, (value, operator) in context_values.items()
    ]
    request = {
        "PolicySourceArn": source,
        "ActionNames": list(statement.actions),
        "ResourceArns": [_example(each) for each in statement.resources],
    }
    pages = aws.client("iam").get_paginator("simulate_principal_policy").paginate(**request, ContextEntries=entries)
    return [result["EvalActionName"] for page in pages for result in page["EvaluationResults"] if result["EvalDecision"] != "allowed"]


def _first(value: str | list[str]) -> str:
    return value if isinstance(value, str) else value[0]


def _example(pattern: str) -> str:
    return pattern if pattern == "*" else pattern.replace("??????", "AbCdEf").replace("${ec2:InstanceID}", INSTANCE).replace("*", "example")
