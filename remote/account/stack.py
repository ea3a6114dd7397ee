"""The stack: all that a run needs in an account but the box. The only file with boto3's cloudformation."""

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.session import Aws, is_access_denied, pauses, region, with_region

TEMPLATE = Path(__file__).with_name("stack.yaml")
ROOT = f"/{schema.TOOL}/"  # of every name in Parameter Store, where the stack has no name
TIMEOUT = 900  # seconds; a bucket, roles and parameters take one or two minutes
# States in which there is nothing yet that could be changed.
NOT_CREATED = ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")
BROKEN = ("FAILED", "ROLLBACK_COMPLETE")
ENDED = "`inv destroy` removes what is left of it and keeps the bucket; then `inv init`"
STUCK = {
    "DELETE_FAILED": ENDED,
    "CREATE_FAILED": ENDED,
    "ROLLBACK_FAILED": ENDED,
    "UPDATE_ROLLBACK_FAILED": "fix what `aws cloudformation describe-stack-events --stack-name {name}` shows, then "
    "`aws cloudformation continue-update-rollback --stack-name {name}`, then run the same command again",
}
# What no setting decides once the stack is made: `inv up` and `inv deploy` write these down, or somebody has once, by hand.
RECORDS = ("InstanceId", "VolumeId", "ImageDigest", "Registry", "AwsCredentialsName", "DockerTokenName")
# Those that no setting says at all, with what they are where nobody has put them there by hand.
BY_HAND = {"ecr/registry": "Registry", "secrets/aws-credentials-name": "AwsCredentialsName", "secrets/docker-token-name": "DockerTokenName"}
DEFAULTS = {"Registry": "none", "AwsCredentialsName": "aws/credentials", "DockerTokenName": "docker/token"}
# In the template; their rights are in a policy of their own.
FLEET_RESOURCES: tuple[str, ...] = ("FleetRole", "FleetProfile", "JobRole", "FleetLaunch", "SpotEnvironment", "OnDemandEnvironment")
FLEET_RESOURCES += ("SpotQueue", "OnDemandQueue", "SpotFirstQueue", "Ends", "EndsPolicy", "EndsRule")
# Where there is no fleet, no other setting of one changes the stack.
NO_FLEET = {"FleetMaxVcpus": "0", "FleetInstanceTypes": "none", "FleetSubnets": "none", "FleetDiskGb": "200", "FleetWaitSeconds": "3600"}
TAG = {"Key": "fine-tune-slm:made-by", "Value": "inv init"}  # of the stack; CloudFormation hands it on


@dataclass(frozen=True)
class Stack:
    """What an account has of the stack."""

    status: str = ""  # empty: there is none
    resources: dict[str, str] = field(default_factory=dict)  # name in the template to physical id
    kinds: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    id: str = ""  # as AWS gives it; it names the stack also when it is gone

    @property
    def created(self) -> bool:
        return bool(self.status) and self.status not in NOT_CREATED

    @property
    def change_set_type(self) -> str:
        """The type of a change set for it."""
        return "UPDATE" if self.created else "CREATE"

    def parameter_list(self, wanted: dict[str, str]) -> list[dict]:
        """The template's parameters as CloudFormation takes them; what is only written down stays as it is."""
        unchanged = [name for name in RECORDS if self.created and name in self.parameters]
        entries = [{"ParameterKey": key, "ParameterValue": value} for key, value in wanted.items() if key not in unchanged]
        return entries + [{"ParameterKey": key, "UsePreviousValue": True} for key in unchanged]


def find(aws: Aws) -> Stack:
    """The stack as it is; one without a status when there is none."""
    client = aws.client("cloudformation")
    try:
        stack = client.describe_stacks(StackName=aws.cloud.own)["Stacks"][0]
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":  # "Stack with id ... does not exist"
            return Stack()
        raise
    # By its id: a stack that an earlier `destroy` removes can be gone by its name from one call to the next.
    pages = client.get_paginator("list_stack_resources").paginate(StackName=stack["StackId"])
    resources = [
        resource for page in pages for resource in page["StackResourceSummaries"] if not resource["ResourceStatus"].startswith("DELETE")
    ]
    names = {resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "") for resource in resources}
    kinds = {resource["LogicalResourceId"]: resource["ResourceType"] for resource in resources}
    parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack.get("Parameters", [])}
    return Stack(stack["StackStatus"], names, kinds, parameters, stack["StackId"])


def parameters(run: schema.Run) -> dict[str, str]:
    """The template's parameters as the settings say; all but the network, and every resource to be made."""
    cloud, box = run.cloud, run.box
    values = {
        "Bucket": cloud.bucket,
        "Prefix": cloud.prefix.strip("/"),
        "Repository": cloud.repository,
        "LogGroup": cloud.log_group,
        "LogStreamPrefix": cloud.log_stream_prefix,
        "BoxNames": cloud.box_names[0],
        "OtherBoxes": cloud.box_names[1],
        "BoxRole": cloud.box_role,
        "InstanceProfile": cloud.instance_profile,
        "SchedulerRole": cloud.scheduler_role,
        "HubSecret": cloud.hub_secret,
        "HubReadSecret": cloud.hub_read_secret,
        "LaunchTemplate": cloud.launch_template,
        "Subnet": box.subnet,
        "InstanceId": cloud.instance_id,
        "VolumeId": cloud.volume_id,
        "InstanceType": ",".join(box.instance_types),
        "MountPath": box.mount,
        "VolumeType": box.disk_type,
        "VolumeGb": box.disk_gb,
        "HubRepository": cloud.hub_repository,
        "BudgetUsd": cloud.budget_usd,
        "BudgetEmail": cloud.budget_email,
        "NotifyEmail": run.notify.email,
        "GithubRepository": cloud.github,
        "GithubSubject": subjects(cloud.github)[0],
        "GithubSubjectById": subjects(cloud.github)[1],
        "ImageDigest": cloud.image_digest,
        **DEFAULTS,
        **fleet_parameters(run.fleet),
    }
    return {name: "none" if value is None else str(value) for name, value in values.items()}


def fleet_parameters(fleet: schema.Fleet) -> dict[str, str]:
    """Those of a fleet as the settings say; all but the subnets, which the account has."""
    if fleet.engine is schema.Engine.none or not fleet.max_vcpus:
        return dict(NO_FLEET)
    return NO_FLEET | {
        "FleetMaxVcpus": str(fleet.max_vcpus),
        "FleetInstanceTypes": ",".join(fleet.instance_type),
        "FleetDiskGb": str(fleet.disk_gb),
        "FleetWaitSeconds": str(fleet.wait_minutes * 60),
    }


def subjects(github: str | None) -> tuple[str | None, str | None]:
    """What GitHub writes into the token of a workflow on the main branch: as it always did, and for repositories made since 2026-07-15.

    The new form has numbers, which only who looks them up knows: https://github.com/aws-actions/configure-aws-credentials/issues/1888
    """
    if not github:
        return None, None
    (owner, name), branch = github.split("/"), "ref:refs/heads/main"
    if "@" in github:
        return (f"repo:{github}:{branch}",) * 2
    return f"repo:{github}:{branch}", f"repo:{owner}@*/{name}@*:{branch}"


def account(run: schema.Run) -> dict:
    """What an account is made of from the start where nobody needs to be asked: this stack, with a token in its secret. A fleet must be
    asked for, by `inv init`, which also knows the account's subnets."""
    wanted = parameters(run) | NO_FLEET
    stack = {"name": run.cloud.own, "template": TEMPLATE.read_text(encoding="utf-8"), "parameters": wanted, "tags": [TAG]}
    return {"region": run.cloud.region, "stack": stack, "secret": {run.cloud.hub_secret: None}, "webhook": run.notify.webhook}


def default_names(cloud: dict) -> dict[str, str]:
    """What an account's own name decides: a bucket's name must be nobody else's in the world."""
    import boto3

    where, name = region(cloud), cloud.get("stack")
    number = boto3.client("sts", region_name=where).get_caller_identity()["Account"]
    own = f"{schema.TOOL}-{name}" if name else schema.TOOL
    bucket = own if cloud["loopback"] else f"{own}-{number}-{where}"
    known = {"s3/bucket": bucket, "aws/region": where} | (_own_names(own) if name else {})
    return {f"{ROOT}{end}": value for end, value in known.items()}


def _own_names(own: str) -> dict[str, str]:
    """What is called after a stack with a name: all that another stack of the account may not touch."""
    secret = {"secrets/hf-token-name": f"{own}/api-token"}
    roles = {"ec2/role": f"{own}-box", "ec2/instance-profile": f"{own}-box", "scheduler/role": f"{own}-scheduler"}
    return roles | secret | {"s3/prefix": own, "ecr/repository": own, "ec2/launch-template": own, "cloudwatch/log-group": f"/{own}"}


def propose(aws: Aws, wanted: dict[str, str], validate: bool = True) -> tuple[str, list[dict]]:
    """A change set that makes the stack what it should be: its id, and what it would do; no id when there is nothing to do.

    CloudFormation validates it, and refuses one that makes what is there already; what is only to be looked at need not be validated.
    """
    client, current = aws.client("cloudformation"), find(aws)
    if current.status == "ROLLBACK_COMPLETE":
        remove(aws, current)  # of an attempt that failed; CloudFormation wants it gone before the next
    if current.status in STUCK:
        raise Problem(
            f"the stack `{aws.cloud.own}` cannot be changed ({current.status})",
            with_region(STUCK[current.status].format(name=aws.cloud.own), aws.cloud.region),
            "refused",
        )
    if current.status.endswith("IN_PROGRESS") and current.status not in NOT_CREATED:
        raise Problem(
            f"the stack `{aws.cloud.own}` is being changed ({current.status})", "wait for it, then run the same command again", "refused"
        )
    change_set = client.create_change_set(
        StackName=aws.cloud.own,
        ChangeSetName=f"init-{int(time.time() * 1000)}",
        ChangeSetType=current.change_set_type,
        TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
        Parameters=current.parameter_list(wanted),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=[TAG],
        **({} if validate else {"DisableValidation": True}),
    )
    for _ in pauses(TIMEOUT):
        answer = client.describe_change_set(StackName=aws.cloud.own, ChangeSetName=change_set["Id"])
        if answer["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            break
    else:
        what = f"CloudFormation has not said what would change within {TIMEOUT} s ({answer['Status']})"
        raise Problem(what, "run the same command again", "unreachable")
    if answer["Status"] == "FAILED":
        reason = answer.get("StatusReason", "")
        if "didn't contain changes" in reason or "No updates are to be performed" in reason:
            client.delete_change_set(StackName=aws.cloud.own, ChangeSetName=change_set["Id"])
            return "", []
        refusal = _refusal(aws, change_set["Id"], reason)
        withdraw(aws, change_set["Id"])
        raise refusal
    return change_set["Id"], [change["ResourceChange"] for change in answer["Changes"]]


def _refusal(aws: Aws, change_set: str, reason: str) -> Problem:
    """Why there is no such change set. Of what its validation found, its own reason names nothing; DescribeEvents does."""
    from botocore.exceptions import ClientError

    which = {"StackName": aws.cloud.own, "ChangeSetName": change_set, "Filters": {"FailedEvents": True}}
    pages = aws.client("cloudformation").get_paginator("describe_events").paginate(**which)
    try:
        events = [event for page in pages for event in page["OperationEvents"]]
    except ClientError as error:
        if not is_access_denied(error):
            raise
        hint = "add what `inv policy --who setup` prints to your policy (cloudformation:DescribeEvents); the same command then says which"
        return Problem(f"CloudFormation refuses the stack: {reason}", hint, "refused")
    because = [f"{event.get('LogicalResourceId', aws.cloud.own)}: {why}" for event in events if (why := _event_reason(event))]
    hint = "fix that, then run the same command again"
    if any(event.get("ValidationName") == "NAME_CONFLICT_VALIDATION" for event in events):
        hint = "a stack only creates what does not exist yet: remove it, or give it another name, then run the same command again"
    return Problem("CloudFormation refuses the stack: " + ("; ".join(because) or reason), hint, "refused")


def _event_reason(event: dict) -> str:
    return event.get("ValidationStatusReason") or event.get("HookStatusReason") or event.get("ResourceStatusReason") or ""


def withdraw(aws: Aws, change_set: str) -> None:
    """Delete the change set, and a stack that exists for it alone."""
    client = aws.client("cloudformation")
    if change_set:
        client.delete_change_set(StackName=aws.cloud.own, ChangeSetName=change_set)
    current = find(aws)
    if current.status == "REVIEW_IN_PROGRESS":
        remove(aws, current)


def execute(aws: Aws, change_set: str) -> None:
    """Execute the change set and wait for its end."""
    client, token = aws.client("cloudformation"), uuid.uuid4().hex
    client.execute_change_set(StackName=aws.cloud.own, ChangeSetName=change_set, ClientRequestToken=token)
    status = _wait(aws, aws.cloud.own)
    if status.endswith(BROKEN):
        why = _reason(aws, aws.cloud.own, token)
        raise Problem(f"the stack `{aws.cloud.own}` was not created: {why}", f"{_fix(why)}, then run `inv init` again", "refused")


def find_settled(aws: Aws) -> Stack:
    """The stack once CloudFormation does nothing with it any more: an `init` that was killed may have left it at work."""
    current = find(aws)
    if not current.status.endswith("IN_PROGRESS") or current.status in NOT_CREATED:
        return current
    screen.note(f"  the stack `{aws.cloud.own}` is {current.status}: waiting until CloudFormation is done")
    _wait(aws, current.id)
    return find(aws)


def wait_until_settled(aws: Aws) -> str:
    """Its status, once CloudFormation does nothing with it any more."""
    current = find(aws)
    return current.status if current.status in ("", *NOT_CREATED) else _wait(aws, current.id)


def remove(aws: Aws, current: Stack) -> None:
    """Delete the stack and wait for its end; what it retains stays."""
    client, token = aws.client("cloudformation"), uuid.uuid4().hex
    client.delete_stack(StackName=current.id, ClientRequestToken=token)
    status = _wait(aws, current.id)
    if status == "DELETE_FAILED":
        why = _reason(aws, current.id, token)
        raise Problem(
            f"the stack `{aws.cloud.own}` could not be removed: {why}", f"{_fix(why)}, then run the same command again", "refused"
        )


def _wait(aws: Aws, name: str) -> str:
    for _ in pauses(TIMEOUT):
        status = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        if not status.endswith("IN_PROGRESS"):
            return status
    raise Problem(f"the stack `{aws.cloud.own}` is still {status}", "run the same command again", "unreachable")


def _fix(why: str) -> str:
    if "not authorized to perform" not in why:
        return "fix that"
    who = "fleet-setup" if why.partition(":")[0] in FLEET_RESOURCES else "setup"
    return f"add what `inv policy --who {who}` prints to your policy"


def _reason(aws: Aws, stack: str, token: str) -> str:
    """The first thing that failed since we gave CloudFormation this token, in its words: a stack keeps the events of its whole life."""
    client = aws.client("cloudformation")
    pages = client.get_paginator("describe_stack_events").paginate(StackName=stack)
    ours = [event for page in pages for event in page["StackEvents"] if event.get("ClientRequestToken") == token]
    failed = [event for event in ours if event["ResourceStatus"].endswith("_FAILED") and event["LogicalResourceId"] != aws.cloud.own]
    if failed:
        return f"{failed[-1]['LogicalResourceId']}: {failed[-1].get('ResourceStatusReason', failed[-1]['ResourceStatus'])}"
    description = client.describe_stacks(StackName=stack)["Stacks"][0]
    return description.get("StackStatusReason", description["StackStatus"])
