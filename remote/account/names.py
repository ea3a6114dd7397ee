"""The names in Parameter Store: those that the stack makes, and those that were put there by hand before it."""

import contextlib
import json
import re
import shlex
import time

from conf.problem import Problem
from conf.process.screen import screen
from remote.account import stack
from remote.account.stack import ROOT, TEMPLATE
from remote.aws import session
from remote.aws.session import Aws, parameter_name, with_region

# In Parameter Store, that the stack makes; as the one without a name has them.
NAMES = [ROOT + end for end in re.findall(r'Name: !Sub "/[^/]+/([^"]+)", Value', TEMPLATE.read_text(encoding="utf-8"))]
NAME_DELAY = 30  # seconds: "wait for at least 30 seconds to create a parameter with the same name" (API, DeleteParameter)
BACKUP = f"{ROOT}init/kept"  # in Parameter Store: what was there by hand, while nothing else there says it


def fetch(names: list[str], cloud: dict) -> dict[str, str]:
    """What Parameter Store says, and for the rest the names that `init` will give."""
    stored = session.fetch([*names, BACKUP], cloud)
    backup = json.loads(stored.pop(BACKUP, "{}"))  # by an `init` that was killed
    return stack.default_names(cloud) | backup | stored


def fetch_or_defaults(names: list[str], cloud: dict) -> dict[str, str]:
    """The same, with the default names where the login may not read Parameter Store: who asks for their policy has none yet."""
    try:
        return fetch(names, cloud)
    except Exception as error:
        if not session.is_access_denied(error):
            raise
    screen.note("your login may not read Parameter Store (ssm:GetParameters): these are the default names")
    return stack.default_names(cloud)


def read_backup(aws: Aws) -> dict[str, str]:
    """Names that were put into Parameter Store by hand, with their values, as an interrupted `init` saved them."""
    parameters = aws.client("ssm").get_parameters(Names=[parameter_name(BACKUP, aws.cloud.stack)])["Parameters"]
    return json.loads(parameters[0]["Value"]) if parameters else {}


def set_by_hand(aws: Aws, made: stack.Stack) -> list[dict]:
    """The stack's names that somebody put into Parameter Store by hand, also those that an interrupted `init` saved."""
    wanted = {parameter_name(name, aws.cloud.stack) for name in NAMES} - set(made.resources.values())
    existing = [parameter for parameter in stored(aws) if parameter["Name"] in wanted]
    gone = wanted - {parameter["Name"] for parameter in existing}
    by_hand = existing + [{"Name": name, "Value": value, "Type": "String"} for name, value in read_backup(aws).items() if name in gone]
    if other := [parameter for parameter in by_hand if parameter["Type"] != "String"]:
        name, kind = other[0]["Name"], other[0]["Type"]
        again = f"`aws ssm delete-parameter --name {name}`, then `aws ssm put-parameter --type String --name {name} --value VALUE`"
        what = f"{name} in Parameter Store is a {kind}, and CloudFormation makes plain ones only"
        raise Problem(what, with_region(f"it is a name, and no secret: {again}", aws.cloud.region), reason="refused")
    return by_hand


def restore(aws: Aws, by_hand: list) -> None:
    """Put those names back once CloudFormation has settled: before that it could not create its own."""
    screen.note("  names in Parameter Store are put back as soon as CloudFormation has settled")
    ssm, missing = aws.client("ssm"), list(by_hand)
    try:
        stack.wait_until_settled(aws)
        wait_until_free()
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


def wait_until_free() -> None:
    screen.note(f"  {NAME_DELAY} seconds, until Parameter Store may make these names again")
    time.sleep(NAME_DELAY)


def stored(aws: Aws) -> list[dict]:
    pages = aws.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=aws.cloud.root.rstrip("/"), Recursive=True)
    return [parameter for page in pages for parameter in page["Parameters"]]
