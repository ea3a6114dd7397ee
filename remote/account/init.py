"""From an account to one that a run can use: look, show what would change, ask, change it, read it back, write it down."""

import contextlib
import getpass
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conf import load, schema, yaml_file
from conf.problem import Problem
from conf.process.screen import screen
from conf.text import secret
from remote import confirm
from remote.account import stack
from remote.account.stack import ROOT, TEMPLATE
from remote.aws.session import Aws, parameter_name, with_region

# What the stack makes unless it is there already: the resource's name in the template, the parameter that decides, how to look.
ADOPTED = {
    "DataBucket": ("MakeBucket", "bucket", lambda aws, name: aws.client("s3").head_bucket(Bucket=name)),
    "Images": ("MakeRepository", "repository", lambda aws, name: aws.client("ecr").describe_repositories(repositoryNames=[name])),
    "Logs": ("MakeLogGroup", "log_group", lambda aws, name: _log_group(aws, name)),
    "Role": ("MakeBoxRole", "box_role", lambda aws, name: aws.client("iam").get_role(RoleName=name)),
    "Profile": ("MakeInstanceProfile", "instance_profile", lambda aws, name: _profile(aws, name)),
    "StopRole": ("MakeSchedulerRole", "scheduler_role", lambda aws, name: aws.client("iam").get_role(RoleName=name)),
    "HubToken": ("MakeHubSecret", "hub_secret", lambda aws, name: aws.client("secretsmanager").describe_secret(SecretId=name)),
}
ABSENT = ("404", "NoSuchBucket", "NoSuchEntity", "RepositoryNotFoundException", "ResourceNotFoundException")
TOKENS = "https://huggingface.co/settings/tokens shows yours"
GITHUB = "token.actions.githubusercontent.com"
# In Parameter Store, that the stack makes; as the one without a name has them.
NAMES = [ROOT + end for end in re.findall(r'Name: !Sub "/[^/]+/([^"]+)", Value', TEMPLATE.read_text(encoding="utf-8"))]
PARAMETER = "AWS::SSM::Parameter"
NAME_DELAY = 30  # seconds: "wait for at least 30 seconds to create a parameter with the same name" (API, DeleteParameter)
BACKUP = f"{ROOT}init/kept"  # in Parameter Store: what was there by hand, while nothing else there says it
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
    "GithubRole": "GithubRepository",
}
# Settings that say what things of the account are called.
SETTINGS = ("prefix", "launch_template", *(setting for _, setting, _ in ADOPTED.values()))
COLUMNS = {"Add": "+", "Modify": "~", "Remove": "-"}


TokenState = Literal["there", "stored", "none yet"]


@dataclass(frozen=True)
class Survey:
    wanted: dict[str, str]  # the template's parameters
    adopted: list[str]  # what is there and is used as it is, in words
    by_hand: list[dict[str, str]]  # names in Parameter Store that were put there by hand


@dataclass(frozen=True)
class Proposal:
    change_set: str
    changes: list[dict]
    changed: bool


@dataclass(frozen=True)
class Token:
    token: TokenState


@dataclass(frozen=True)
class Written:
    done: str
    summary: str  # the file


def survey(aws: Aws, run: schema.Run) -> Survey:
    """Look at what the account has already: it is used as it is, and left alone."""
    current, cloud = stack.find_settled(aws), run.cloud
    wanted, adopted = stack.parameters(run), []
    for name, (parameter, setting, describe) in ADOPTED.items():
        value = getattr(cloud, setting)
        exists = name not in current.resources and _exists(aws, describe, value)
        wanted[parameter] = "no" if exists else "yes"
        if exists:
            adopted.append(f"{setting.replace('_', ' ')} {value}")
    if cloud.github:
        providers = aws.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
        exists = any(provider["Arn"].endswith(GITHUB) for provider in providers) and "GithubProvider" not in current.resources
        wanted["MakeGithubProvider"] = "no" if exists else "yes"
    if not current.created and _launch_template(aws, cloud.launch_template):
        remove = f"`aws ec2 delete-launch-template --launch-template-name {cloud.launch_template}`"
        hint = f"name another, `cloud.launch_template=...`, or remove it: {remove}"
        raise Problem(f"there is a launch template `{cloud.launch_template}` that no stack of ours made", hint, reason="refused")
    if wanted["MakeInstanceProfile"] == "no":
        _check_profile_role(aws, cloud)
    wanted["Vpc"] = _network(aws, run.box.subnet)
    by_hand = _set_by_hand(aws, current)
    by_name = {record["Name"].removeprefix(cloud.root): record["Value"] for record in by_hand}
    wanted |= {parameter: by_name[name] for name, parameter in stack.BY_HAND.items() if name in by_name}
    return Survey(wanted, adopted, by_hand)


def read_backup(aws: Aws) -> dict[str, str]:
    """Names that were put into Parameter Store by hand, with their values, as an interrupted `init` saved them."""
    parameters = aws.client("ssm").get_parameters(Names=[parameter_name(BACKUP, aws.cloud.stack)])["Parameters"]
    return json.loads(parameters[0]["Value"]) if parameters else {}


def _set_by_hand(aws: Aws, made: stack.Stack) -> list[dict]:
    """The stack's names that somebody put into Parameter Store by hand, also those that an interrupted `init` saved."""
    wanted = {parameter_name(name, aws.cloud.stack) for name in NAMES} - set(made.resources.values())
    existing = [parameter for parameter in _parameters(aws) if parameter["Name"] in wanted]
    gone = wanted - {parameter["Name"] for parameter in existing}
    by_hand = existing + [{"Name": name, "Value": value, "Type": "String"} for name, value in read_backup(aws).items() if name in gone]
    if other := [parameter for parameter in by_hand if parameter["Type"] != "String"]:
        name, kind = other[0]["Name"], other[0]["Type"]
        again = f"`aws ssm delete-parameter --name {name}`, then `aws ssm put-parameter --type String --name {name} --value VALUE`"
        what = f"{name} in Parameter Store is a {kind}, and CloudFormation makes plain ones only"
        raise Problem(what, with_region(f"it is a name, and no secret: {again}", aws.cloud.region), reason="refused")
    return by_hand


def _check_profile_role(aws: Aws, cloud: schema.Cloud) -> None:
    """A Problem when the profile that is adopted hands out another role than the one that may be passed."""
    roles = [role["RoleName"] for role in _profile(aws, cloud.instance_profile)["InstanceProfile"]["Roles"]]
    if roles != [cloud.box_role]:
        what = f"the instance profile `{cloud.instance_profile}` hands out {', '.join(roles) or 'no role'}, not `{cloud.box_role}`"
        hint = f"`cloud.box_role={roles[0]}`" if roles else "put a role into it, or name another: `cloud.instance_profile=...`"
        raise Problem(what, hint, reason="refused")


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
        ssm.put_parameter(Name=parameter_name(BACKUP, aws.cloud.stack), Value=json.dumps(values), Type="String", Overwrite=True)
        for name in values:
            with contextlib.suppress(ssm.exceptions.ParameterNotFound):
                ssm.delete_parameter(Name=name)
        _wait_until_names_are_free()
        stack.execute(aws, stack.propose(aws, wanted)[0])
    except BaseException:
        _restore(aws, by_hand)
        raise


def _wait_until_names_are_free() -> None:
    screen.note(f"  {NAME_DELAY} seconds, until Parameter Store may make these names again")
    time.sleep(NAME_DELAY)


def _restore(aws: Aws, by_hand: list) -> None:
    """Put those names back once CloudFormation has settled: before that it could not create its own."""
    screen.note("  names in Parameter Store are put back as soon as CloudFormation has settled")
    ssm, missing = aws.client("ssm"), list(by_hand)
    try:
        stack.wait_until_settled(aws)
        _wait_until_names_are_free()
        for parameter in by_hand:
            with contextlib.suppress(ssm.exceptions.ParameterAlreadyExists):
                ssm.put_parameter(Name=parameter["Name"], Value=parameter["Value"], Type="String")
            missing.remove(parameter)
        delete_backup(aws)
    finally:
        for parameter in missing:
            value = shlex.quote(parameter["Value"])
            screen.note(
                with_region(
                    f"  if it is missing: `aws ssm put-parameter --type String --name {parameter['Name']} --value {value}`",
                    aws.cloud.region,
                )
            )


def delete_backup(aws: Aws) -> None:
    """Delete the backup: Parameter Store has the names again."""
    ssm = aws.client("ssm")
    with contextlib.suppress(ssm.exceptions.ParameterNotFound):
        ssm.delete_parameter(Name=parameter_name(BACKUP, aws.cloud.stack))


def store_token(aws: Aws, token: Path | None, ask_for_it: bool, decode: Callable[[bytes], str]) -> Token:
    """Put the Hub token into its secret, where one was given or there is none yet."""
    if token is None and has_token(aws):
        return Token("there")
    value = _read_token(token, ask_for_it, decode)
    if not value:
        name = aws.cloud.hub_secret
        screen.note(f"  the secret `{name}` has no value yet: `inv init --token FILE` puts a Hub token into it; `-` reads standard input")
        return Token("none yet")
    client = aws.client("secretsmanager")
    if token is None or not has_token(aws) or aws.secret(aws.cloud.hub_secret) != value:
        client.put_secret_value(SecretId=aws.cloud.hub_secret, SecretString=value)
        return Token("stored")
    return Token("there")


def read_back(aws: Aws, wanted: dict[str, str]) -> int:
    """Read every name and resource back from AWS; how many names there are in Parameter Store."""
    parameters = {parameter["Name"]: parameter["Value"] for parameter in _parameters(aws)}
    settings = {"s3/bucket": wanted["Bucket"], "ecr/repository": wanted["Repository"], "aws/region": aws.cloud.region}
    expected = {aws.cloud.root + end: value for end, value in settings.items()}
    wrong = [f"{name} is {parameters.get(name)!r}, not {value!r}" for name, value in expected.items() if parameters.get(name) != value]
    missing = [
        f"{setting.replace('_', ' ')} {getattr(aws.cloud, setting)}"
        for _, setting, describe in ADOPTED.values()
        if not _exists(aws, describe, getattr(aws.cloud, setting))
    ]
    if _launch_template(aws, aws.cloud.launch_template) is None:
        missing.append(f"launch template {aws.cloud.launch_template}")
    if wrong or missing:
        what = "; ".join([*wrong, *(f"there is no {one}" for one in missing)])
        raise Problem(f"the account is not what the stack says: {what}", "`inv destroy`, then `inv init`: both keep the bucket", "refused")
    if parameters.pop(parameter_name(BACKUP, aws.cloud.stack), None):
        delete_backup(aws)
    return len(parameters)


def write_settings(aws: Aws, run: schema.Run, folder: Path, local: Path, changed: bool, token: TokenState) -> Written:
    """Write the defaults of later commands, and a summary of the account for people."""
    region: dict[str, str | None] = {} if aws.cloud.loopback else {"cloud.region": aws.cloud.region}
    _set(local, {"cloud": aws.cloud.name} | region | _stack_name(aws.cloud, local) | _own_names(aws.cloud, local))
    (folder / "setup-summary.txt").write_text(summary(aws, run, token), encoding="utf-8")
    done = "nothing to do" if not changed and token != "stored" else f"account {aws.caller.split(':')[4]} is ready"
    return Written(done, str(folder / "setup-summary.txt"))


def _stack_name(cloud: schema.Cloud, local: Path) -> dict[str, str | None]:
    """Which stack later commands are about; the one without a name need not be named, unless another was before."""
    named = any(_key(line) == "cloud.stack" for line in _lines(local))
    return {"cloud.stack": cloud.stack} if cloud.stack or named else {}


def _own_names(cloud: schema.Cloud, local: Path) -> dict[str, str]:
    """Names that the user has given: when `inv destroy` has removed those in Parameter Store, nothing else knows of his bucket."""
    overrides = [f"cloud={cloud.name}", f"cloud.region={cloud.region}", f"cloud.stack={cloud.stack or 'null'}"]
    usual = load.load(overrides, lambda _, early: stack.default_names(early), Path("none")).cloud
    lines = _lines(local)
    written = [name for name in SETTINGS if any(_key(line) == f"cloud.{name}" for line in lines)]
    return {f"cloud.{name}": value for name in SETTINGS if (value := getattr(cloud, name)) != getattr(usual, name) or name in written}


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


def summary(aws: Aws, run: schema.Run, token: TokenState) -> str:
    """The account in words: which names, ids and places; no secret."""
    ecr, cloud = aws.client("ecr"), aws.cloud
    uri = ecr.describe_repositories(repositoryNames=[cloud.repository])["repositories"][0]["repositoryUri"]
    values = {parameter["Name"]: parameter["Value"] for parameter in _parameters(aws)}
    about = {
        "AWS account": aws.caller.split(":")[4],
        "who asked": aws.caller,
        "region": cloud.region,
        "stack": cloud.own,
        "bucket": f"s3://{cloud.bucket}/{cloud.prefix.strip('/')}",
        "image repository": uri,
        "log group": cloud.log_group,
        "box": f"{run.box.instance_type}, role {cloud.box_role}, launch template {cloud.launch_template}",
        "EC2 instance": values.get(f"{cloud.root}ec2/instance-id", "none"),
        "EBS volume": f"{values.get(f'{cloud.root}ebs/volume-id', 'none')} ({run.box.disk_gb} GB {run.box.disk_type} at {run.box.mount})",
        "Hub token": f"secret {cloud.hub_secret}: {'none yet' if token == 'none yet' else 'stored'}",
        "Hub repository": cloud.hub_repository or "OWNER/NAME of the run",
        "GitHub repository": f"{cloud.github}, with the variables {_variables(aws)}" if cloud.github else "none",
        "budget": f"{cloud.budget_usd} USD a month" if cloud.budget_usd else "none",
    }
    width = max(map(len, about))
    lines = ["fine-tune-slm in this account, as `inv init` found it when it was done", ""]
    lines += [f"{name:{width}}  {value}" for name, value in about.items()]
    lines += ["", f"{len(values)} names in Parameter Store:"]
    return "\n".join([*lines, *(f"  {name} = {value}" for name, value in sorted(values.items()))]) + "\n"


def _variables(aws: Aws) -> str:
    """The variables of .github/workflows/image.yml, under Settings, Secrets and variables, Actions, Variables."""
    _, partition, _, _, account, _ = aws.caller.split(":", 5)
    role = f"arn:{partition}:iam::{account}:role/{aws.cloud.own}-github"
    which = f" STACK={aws.cloud.own}" if aws.cloud.stack else ""
    return f"AWS_ROLE_ARN={role} AWS_REGION={aws.cloud.region} ECR_REPOSITORY={aws.cloud.repository}{which}"


def has_token(aws: Aws) -> bool:
    client = aws.client("secretsmanager")
    try:
        return bool(aws.secret(aws.cloud.hub_secret))
    except client.exceptions.ResourceNotFoundException:
        return False


def _read_token(token: Path | None, ask_for_it: bool, decode: Callable[[bytes], str]) -> str:
    if token is None:
        with screen.paused():
            typed = getpass.getpass("Hub token (https://huggingface.co/settings/tokens; empty: later): ") if ask_for_it else ""
        return _checked(typed) if typed.strip() else ""
    try:
        data = sys.stdin.buffer.read() if str(token) == "-" else token.expanduser().read_bytes()
    except OSError as error:
        raise Problem(f"cannot read the token: {error}", "`--token FILE`; `-` reads standard input", reason="refused") from error
    try:
        return _checked(decode(data))
    except ValueError as error:
        raise Problem(f"that is no Hub token: {error}", TOKENS, "refused") from error


def _checked(text: str) -> str:
    value = secret.value(text)
    if not secret.is_token(value):
        raise Problem("that is no Hub token: it is empty, more than the token itself, or has letters that no token has", TOKENS, "refused")
    return value


def _line(change: dict, wanted: dict) -> str:
    kind, name = change["ResourceType"].removeprefix("AWS::").replace("::", " "), change["LogicalResourceId"]
    name_or_id = change.get("PhysicalResourceId") or wanted.get(NAME_PARAMETERS.get(name, ""), name)
    what = f"{COLUMNS.get(change['Action'], change['Action'])} {kind:26} {name_or_id}"
    details = sorted({detail["Target"].get("Name", "") for detail in change.get("Details", [])})
    if details:
        what += f"  ({', '.join(details)})"
    return what + ("  REPLACED BY A NEW ONE" if change.get("Replacement") == "True" else "")


def _exists(aws: Aws, describe, name: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        return describe(aws, name) is not None
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ABSENT:
            return False
        if code == "403":
            raise Problem(f"`{name}` belongs to somebody else", "name another: `inv init -- cloud.bucket=...`", reason="refused") from error
        raise


def _log_group(aws: Aws, name: str) -> dict | None:
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return next((group for group in groups if group["logGroupName"] == name), None)


def _profile(aws: Aws, name: str) -> dict:
    return aws.client("iam").get_instance_profile(InstanceProfileName=name)


def _launch_template(aws: Aws, name: str) -> dict | None:
    templates = aws.client("ec2").describe_launch_templates(Filters=[{"Name": "launch-template-name", "Values": [name]}])["LaunchTemplates"]
    return templates[0] if templates else None


def _network(aws: Aws, subnet: str | None) -> str:
    ec2 = aws.client("ec2")
    if subnet:
        return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    networks = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not networks:
        hint = "name a subnet of yours, `box.subnet=subnet-...`, or make one: `aws ec2 create-default-vpc`"
        raise Problem(f"region {aws.cloud.region} has no default network", hint, reason="refused")
    return networks[0]["VpcId"]


def _parameters(aws: Aws) -> list[dict]:
    pages = aws.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=aws.cloud.root.rstrip("/"), Recursive=True)
    return [parameter for page in pages for parameter in page["Parameters"]]


def _set(path: Path, values: Mapping[str, str | None]) -> None:
    """Settings at the top of a YAML file; the rest of it stays as the user wrote it."""
    lines = _lines(path)
    for name, value in values.items():
        line = yaml_file.write({name: value}).strip()
        index = next((number for number, old in enumerate(lines) if _key(old) == name), None)
        if index is None:
            lines.append(line)
        else:
            lines[index] = line
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return ["# Your own defaults: `inv init` writes these lines, the rest is yours."]
    return yaml_file.decoded(path.read_bytes(), str(path)).splitlines()


def _key(line: str) -> str:
    return line.split(":")[0].strip()
