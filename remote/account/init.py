"""From an account to one that a run can use: look, show what would change, ask, change it, read it back, write it down."""

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import confirm
from remote.account import names, stack
from remote.account.stack import TEMPLATE
from remote.account.survey import ADOPTED, exists, launch_template, survey
from remote.aws.session import Aws, parameter_name

PARAMETER = "AWS::SSM::Parameter"
# What a resource is called, where CloudFormation knows no id of it yet: the template's parameter that says so.
NAME_PARAMETERS = {
    "DataBucket": "Bucket",
    "DataBucketPolicy": "Bucket",
    "Images": "Repository",
    "Logs": "LogGroup",
    "Role": "BoxRole",
    "Profile": "InstanceProfile",
    "StopRole": "SchedulerRole",
    "HubToken": "HubSecret",
    "Launch": "LaunchTemplate",
    "Network": "Vpc",
    "Subscription": "NotifyEmail",
    "GithubRole": "GithubRepository",
}
COLUMNS = {"Add": "+", "Modify": "~", "Remove": "-"}


@dataclass(frozen=True)
class Proposal:
    change_set: str
    changes: list[dict]
    changed: bool


def propose(aws: Aws, wanted: dict[str, str], adopted: list[str], by_hand: list[dict[str, str]]) -> Proposal:
    """Ask CloudFormation what would change, and show it."""
    # CloudFormation takes no change set that makes names which are there: they are out of its way before the one that is carried out.
    change_set, changes = stack.propose(aws, wanted, validate=not by_hand)
    for what in adopted:
        screen.note(f"  = {what}: exists already, is used as it is, and is neither changed nor removed")
    new_names = [change for change in changes if change["Action"] == "Add" and change["ResourceType"] == PARAMETER]
    for change in changes:
        if change not in new_names:
            screen.note("  " + _line(change, wanted))
    if new_names:
        screen.note(f"  + {'SSM Parameter':26} {len(new_names)} names in Parameter Store, below {aws.cloud.root}")
    if by_hand and changes:
        screen.note(f"  = {len(by_hand)} names in Parameter Store keep their values; the stack takes them over")
    return Proposal(change_set, changes, bool(changes))


def confirm_changes(aws: Aws, change_set: str, changes: list[dict], yes: bool) -> None:
    """Ask before anything is changed."""
    try:
        confirm.ask(
            yes, f"make these {len(changes)} changes in account {aws.caller.split(':')[4]}, {aws.cloud.region}?", "nothing was changed"
        )
    except BaseException:
        stack.withdraw(aws, change_set)
        raise


def apply(aws: Aws, change_set: str, wanted: dict[str, str], by_hand: list[dict[str, str]]) -> None:
    """Let CloudFormation make the changes, and wait."""
    if not by_hand:
        stack.execute(aws, change_set)
        return
    ssm, values = aws.client("ssm"), {parameter["Name"]: parameter["Value"] for parameter in by_hand}
    try:
        # A laptop that dies from now on must not take the only copy with it.
        ssm.put_parameter(Name=parameter_name(names.BACKUP, aws.cloud.stack), Value=json.dumps(values), Type="String", Overwrite=True)
        for name in values:
            with contextlib.suppress(ssm.exceptions.ParameterNotFound):
                ssm.delete_parameter(Name=name)
        names.wait_until_free()
        stack.execute(aws, stack.propose(aws, wanted)[0])
    except BaseException:
        names.restore(aws, by_hand)
        raise


def read_back(aws: Aws, wanted: dict[str, str]) -> int:
    """Read every name and resource back from AWS.

    Answers how many names there are in Parameter Store.
    """
    parameters = {parameter["Name"]: parameter["Value"] for parameter in names.stored(aws)}
    settings = {"s3/bucket": wanted["Bucket"], "ecr/repository": wanted["Repository"], "aws/region": aws.cloud.region}
    expected = {aws.cloud.root + end: value for end, value in settings.items()}
    wrong = [f"{name} is {parameters.get(name)!r}, not {value!r}" for name, value in expected.items() if parameters.get(name) != value]
    missing = [
        f"{setting.replace('_', ' ')} {getattr(aws.cloud, setting)}"
        for _, setting, describe in ADOPTED.values()
        if not exists(aws, describe, getattr(aws.cloud, setting))
    ]
    if launch_template(aws, aws.cloud.launch_template) is None:
        missing.append(f"launch template {aws.cloud.launch_template}")
    if wrong or missing:
        what = "; ".join([*wrong, *(f"there is no {one}" for one in missing)])
        raise Problem(f"the account is not what the stack says: {what}", "`inv destroy`, then `inv init`: both keep the bucket", "refused")
    if parameters.pop(parameter_name(names.BACKUP, aws.cloud.stack), None):
        names.delete_backup(aws)
    return len(parameters)


def rehearse(aws: Aws, run: schema.Run, folder: Path) -> None:
    """What `inv init` would change, and the files with which somebody else may do it; the account stays as it is."""
    surveyed, current = survey(aws, run), stack.find(aws)
    written = _write_stack_files(folder, current, surveyed.wanted)
    commands = commands_for_admin(written, aws.cloud, current, [parameter["Name"] for parameter in surveyed.by_hand])
    if current.status == "ROLLBACK_COMPLETE":
        screen.print(f"nothing was changed. A stack whose making failed stands in the way ({current.status}): it holds nothing,")
        screen.print(f"and `inv init` removes it, then makes all anew. Somebody with the rights runs {commands}; then `inv init`")
        return
    proposed = propose(aws, surveyed.wanted, surveyed.adopted, surveyed.by_hand)
    stack.withdraw(aws, proposed.change_set)
    if not proposed.changed:
        screen.print("nothing to do")
        return
    screen.print(f"nothing was changed. Somebody with the rights runs {commands}; then `inv init`")


def _write_stack_files(folder: Path, current: stack.Stack, wanted: dict) -> Path:
    """Where template and parameters are now."""
    target = folder / "stack"
    target.mkdir(parents=True, exist_ok=True)
    (target / "template.yaml").write_text(TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")
    (target / "parameters.json").write_text(json.dumps(current.parameter_list(wanted), indent=2) + "\n", encoding="utf-8")
    return target


def commands_for_admin(folder: Path, cloud: schema.Cloud, current: stack.Stack, by_hand: list[str]) -> str:
    """The commands that do what `inv init` would, for somebody with the rights; parameters.json has the values of names in the way."""
    region = cloud.region
    which = f"--region {region} --stack-name {cloud.own} --change-set-name init"
    template, parameters = (shlex.quote(f"file://{folder / name}") for name in ("template.yaml", "parameters.json"))
    # Without the tags that `init` gives, it would find them missing, and have something to do again.
    tags = shlex.quote(f"Key={stack.TAG['Key']},Value={stack.TAG['Value']}")
    files = f"--template-body {template} --parameters {parameters} --tags {tags}"
    capable = f"--change-set-type {current.change_set_type} --capabilities CAPABILITY_NAMED_IAM"
    commands = [
        f"`aws cloudformation create-change-set {which} {capable} {files}`",
        f"`aws cloudformation execute-change-set {which}`",
    ]
    tens = [by_hand[start : start + 10] for start in range(0, len(by_hand), 10)]  # as many as one call takes
    commands = [*(f"`aws ssm delete-parameters --region {region} --names {' '.join(ten)}`" for ten in tens), *commands]
    if current.status == "ROLLBACK_COMPLETE":
        commands.insert(0, f"`aws cloudformation delete-stack --region {region} --stack-name {cloud.own}`")
    return ", then ".join(commands)


def _line(change: dict, wanted: dict) -> str:
    kind, name = change["ResourceType"].removeprefix("AWS::").replace("::", " "), change["LogicalResourceId"]
    name_or_id = change.get("PhysicalResourceId") or wanted.get(NAME_PARAMETERS.get(name, ""), name)
    what = f"{COLUMNS.get(change['Action'], change['Action'])} {kind:26} {name_or_id}"
    details = sorted({detail["Target"].get("Name", "") for detail in change.get("Details", [])})
    if details:
        what += f"  ({', '.join(details)})"
    return what + ("  REPLACED BY A NEW ONE" if change.get("Replacement") == "True" else "")
