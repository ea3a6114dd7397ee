"""Whether the fleet is still as `inv init` has made it: what somebody has changed by hand since, CloudFormation does not see by itself.

Where a thing is missing altogether with the fleet, the check of the fleet says so.
"""

import base64
import binascii
import json
import re
import textwrap

from conf import schema
from conf.finding import BROKEN, NOTE, OK, Finding
from remote.account import stack
from remote.aws import batch, fleet
from remote.aws.instance import METADATA
from remote.doctor.check import Context
from remote.doctor.drift import METADATA_REASONS

ANEW = "while no run is on it: `inv init -- fleet=batch fleet.max_vcpus=0` removes it, `inv init -- fleet=batch` makes it anew"
USER_DATA = re.compile(r"Fn::Base64: \|\n((?: {12}.*\n|\n)+)")
USER_DATA_REASON = "word of a spot instance's end, and the firewall between a run and the rights of its job, are in it"
CAPACITY = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"
PATTERN = {
    "source": ["aws.ec2"],
    "detail-type": ["EC2 Instance State-change Notification"],
    "detail": {"state": ["shutting-down", "terminated"]},
}


def user_data() -> str:
    """What stack.yaml lets an instance run at its start."""
    match = USER_DATA.search(stack.TEMPLATE.read_text(encoding="utf-8"))
    assert match
    return textwrap.dedent(match[1])


def launch(context: Context, environments: list[dict]) -> list[Finding]:
    """What the environments launch their instances with: the version that each names, whatever newer ones there are."""
    findings: list[Finding] = []
    for one in environments:
        named = one["computeResources"].get("launchTemplate") or {}
        wrong = _wrong(context, named)
        if wrong:
            what = f"`{one['computeEnvironmentName']}` launches instances with {', '.join(wrong)}"
            findings.append(Finding("fleet launch", BROKEN, what, "; ".join(wrong.values()), ANEW))
    return findings


def _wrong(context: Context, named: dict) -> dict[str, str]:
    """What differs, with why it matters; nothing where the template itself is gone: the environment is INVALID then."""
    ec2 = context.aws.client("ec2")
    if not named:
        return {"no launch template": USER_DATA_REASON}
    name = next(each for each in ("launchTemplateId", "launchTemplateName") if named.get(each))
    asked = {f"L{name[1:]}": named[name], "Versions": [named.get("version") or "$Default"]}
    try:
        data = ec2.describe_launch_template_versions(**asked)["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    except ec2.exceptions.ClientError as error:
        if not error.response["Error"]["Code"].startswith("InvalidLaunchTemplate"):
            raise
        return {}
    options = data.get("MetadataOptions", {})
    wrong = {
        f"{key} {options.get(key)}, not {METADATA[key]}": why for key, why in METADATA_REASONS.items() if options.get(key) != METADATA[key]
    }
    if _decoded(data.get("UserData", "")) != user_data():
        wrong["user data that `inv init` has not made"] = USER_DATA_REASON
    if not all(disk.get("Ebs", {}).get("Encrypted") for disk in data.get("BlockDeviceMappings", [{}])):
        wrong["a disk that is not encrypted"] = "rows, models and checkpoints are on it"
    return wrong


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode(errors="replace")
    except (ValueError, binascii.Error):
        return ""


def queue(context: Context) -> list[Finding]:
    """The queue that runs are handed to: open, of the environments of its market, and none that lets a job wait for ever."""
    name, client = batch.queue(context.run), context.aws.client("batch")
    there = client.describe_job_queues(jobQueues=[name])["jobQueues"]
    if not there:
        return [Finding("fleet queue", BROKEN, f"AWS Batch has no queue `{name}`", "a run is handed over to it", ANEW)]
    one, update = there[0], f"aws batch update-job-queue --job-queue {name}"
    if one["state"] != "ENABLED":
        return [Finding("fleet queue", BROKEN, f"`{name}` is {one['state']}", "it takes no run", f"`{update} --state ENABLED`")]
    if one["status"] == "INVALID":
        what = f"`{name}` is INVALID: {one.get('statusReason') or 'Batch says no reason'}"
        return [Finding("fleet queue", BROKEN, what, "it takes no run", ANEW)]
    return [*_order(context, one, update), *_limits(context, one, update)] or [Finding("fleet queue", OK, f"{name}: {one['status']}")]


def _order(context: Context, one: dict, update: str) -> list[Finding]:
    ordered = sorted(one["computeEnvironmentOrder"], key=lambda each: each["order"])
    has = [each["computeEnvironment"].rpartition("/")[2] for each in ordered]
    wanted = [f"{context.run.cloud.own}-{market}" for market in fleet.MARKETS[context.run.fleet.market]]
    if has == wanted:
        return []
    what = f"`{one['jobQueueName']}` leads to {', '.join(has)}, not to {', '.join(wanted)}"
    words = " ".join(f"order={number},computeEnvironment={each}" for number, each in enumerate(wanted, 1))
    return [Finding("fleet queue", BROKEN, what, "runs train, and are paid, elsewhere", f"`{update} --compute-environment-order {words}`")]


def _limits(context: Context, one: dict, update: str) -> list[Finding]:
    limits = {each["reason"]: each for each in one.get("jobStateTimeLimitActions", [])}
    if CAPACITY in limits and limits[CAPACITY]["action"] == "CANCEL":
        return []
    seconds = context.run.fleet.wait_minutes * 60
    words = f"state=RUNNABLE,action=CANCEL,maxTimeSeconds={seconds},reason={CAPACITY}"
    what = f"`{one['jobQueueName']}` cancels no job that gets no instance"
    command = f"`{update} --job-state-time-limit-actions {words}`"
    return [Finding("fleet queue", NOTE, what, "it would wait for ever, and `inv train` with it", command)]


def rule(context: Context) -> list[Finding]:
    """The rule that writes down when each instance ended."""
    client, name = context.aws.client("events"), f"{context.run.cloud.own}-fleet-ends"
    why = "`inv costs` reads there when an instance ended that EC2 has forgotten; what it cost would be unknown"
    try:
        there = client.describe_rule(Name=name)
        targets = client.list_targets_by_rule(Rule=name)["Targets"]
    except client.exceptions.ResourceNotFoundException:
        return [Finding("fleet ends", NOTE, f"EventBridge has no rule `{name}`", why, ANEW)]
    if there["State"] == "DISABLED":
        return [Finding("fleet ends", NOTE, f"the rule `{name}` is DISABLED", why, f"`aws events enable-rule --name {name}`")]
    log = f":log-group:/aws/events/{context.run.cloud.own}/fleet-ends"
    if not any(target["Arn"].removesuffix(":*").endswith(log) for target in targets):
        return [Finding("fleet ends", NOTE, f"the rule `{name}` writes nothing into its log", why, ANEW)]
    if json.loads(there.get("EventPattern") or "null") != PATTERN:
        return [Finding("fleet ends", NOTE, f"the rule `{name}` looks for other events than those of an instance's end", why, ANEW)]
    return [Finding("fleet ends", OK, name)]


def changed(context: Context, environments: list[dict]) -> list[Finding]:
    """All of it; nothing where the settings name no fleet, or there is none."""
    if context.run.fleet.engine is schema.Engine.none or not environments:
        return []
    return [*launch(context, environments), *queue(context)]
