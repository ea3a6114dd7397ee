"""The resource types of a fleet: Batch's compute environments and queues, rules of EventBridge, resource policies of CloudWatch Logs."""

import json
import time
from collections.abc import Callable
from typing import Any

from twin.aws.cloudformation.resource_type import AlreadyExists, Client, Properties, ResourceType

PATIENCE = 600.0  # seconds that CloudFormation waits for Batch
NUMBERS = ("minvCpus", "maxvCpus", "desiredvCpus", "bidPercentage", "minScaleDownDelayMinutes", "priority", "order", "maxTimeSeconds")
# conditionalCreateOnlyProperties of the registry's schema: by default an environment is replaced where they change.
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-batch-computeenvironment.html, ReplaceComputeEnvironment
REPLACING = ("AllocationStrategy", "BidPercentage", "Ec2Configuration", "Ec2KeyPair", "ImageId", "InstanceRole", "InstanceTypes")
REPLACING += ("LaunchTemplate", "PlacementGroup", "ScalingPolicy", "SecurityGroupIds", "Subnets", "Tags", "Type")
ONLY_MADE = ("spotIamFleetRole", "type")  # what an update does not take, unless it changes them


def api(value: Any, name: str = "") -> Any:
    """Properties as Batch's API names them: minvCpus for MinvCpus; the names of tags are the user's own."""
    if isinstance(value, dict):
        return value if name == "tags" else {camel(key): api(one, camel(key)) for key, one in value.items()}
    if isinstance(value, list):
        return [api(one) for one in value]
    return int(value) if name in NUMBERS else value


def camel(name: str) -> str:
    return name[0].lower() + name[1:]


def settled(describe: Callable[[], list[dict]], wanted: Callable[[list[dict]], bool]) -> list[dict]:
    """What is there once Batch is done with it; an invalid one is, too."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(found := describe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Batch did not stabilize: {found}")
        time.sleep(0.05)
    return found


def is_valid(found: list[dict]) -> bool:
    if found and found[0]["status"] == "INVALID":
        raise RuntimeError(f"{found[0].get('statusReason')} (HandlerErrorCode: NotStabilized)")
    return bool(found) and found[0]["status"] == "VALID"


def is_settled(found: list[dict]) -> bool:
    return not found or found[0]["status"] in ("VALID", "INVALID")


def environments(client: Client, arn: str) -> Callable[[], list[dict]]:
    return lambda: client("batch").describe_compute_environments(computeEnvironments=[arn])["computeEnvironments"]


def create_environment(client: Client, properties: Properties, default_name: str) -> str:
    content = {"computeEnvironmentName": default_name} | environment_content(properties)
    if environments(client, content["computeEnvironmentName"])():
        raise AlreadyExists(f"{content['computeEnvironmentName']} already exists")
    arn = client("batch").create_compute_environment(**content)["computeEnvironmentArn"]
    try:
        settled(environments(client, arn), is_valid)
    except RuntimeError:
        delete_environment(client, arn, properties)
        raise
    return arn


def environment_content(properties: Properties) -> dict:
    return api({name: value for name, value in properties.items() if name not in ("ReplaceComputeEnvironment", "UpdatePolicy")})


def update_environment(client: Client, arn: str, properties: Properties) -> None:
    content = environment_content(properties)
    resources = {name: value for name, value in content.get("computeResources", {}).items() if name not in ONLY_MADE}
    more = {name: content[name] for name in ("state", "serviceRole") if name in content}
    client("batch").update_compute_environment(computeEnvironment=arn, computeResources=resources, **more)
    settled(environments(client, arn), is_valid)


def delete_environment(client: Client, arn: str, properties: Properties) -> None:
    batch, describe = client("batch"), environments(client, arn)
    if settled(describe, is_settled):
        batch.update_compute_environment(computeEnvironment=arn, state="DISABLED")
        settled(describe, is_settled)
        batch.delete_compute_environment(computeEnvironment=arn)
        settled(describe, lambda found: not found)


def queues(client: Client, arn: str) -> Callable[[], list[dict]]:
    return lambda: client("batch").describe_job_queues(jobQueues=[arn])["jobQueues"]


def create_queue(client: Client, properties: Properties, default_name: str) -> str:
    content = {"jobQueueName": default_name} | api(properties)
    if queues(client, content["jobQueueName"])():
        raise AlreadyExists(f"{content['jobQueueName']} already exists")
    arn = client("batch").create_job_queue(**content)["jobQueueArn"]
    settled(queues(client, arn), is_valid)
    return arn


def update_queue(client: Client, arn: str, properties: Properties) -> None:
    content = {name: value for name, value in api(properties).items() if name not in ("jobQueueName", "jobQueueType", "tags")}
    client("batch").update_job_queue(jobQueue=arn, **content)
    settled(queues(client, arn), is_valid)


def delete_queue(client: Client, arn: str, properties: Properties) -> None:
    batch, describe = client("batch"), queues(client, arn)
    if settled(describe, is_settled):
        batch.update_job_queue(jobQueue=arn, state="DISABLED")
        settled(describe, is_settled)
        batch.delete_job_queue(jobQueue=arn)
        settled(describe, lambda found: not found)


def create_rule(client: Client, properties: Properties, default_name: str) -> str:
    name = properties.get("Name", default_name)
    update_rule(client, name, properties)
    return name


def update_rule(client: Client, name: str, properties: Properties) -> None:
    events = client("events")
    rule = {key: properties[key] for key in ("Description", "State") if key in properties}
    events.put_rule(Name=name, EventPattern=json.dumps(properties["EventPattern"]), **rule)
    targets = properties.get("Targets", [])
    old = {one["Id"] for one in events.list_targets_by_rule(Rule=name)["Targets"]} - {one["Id"] for one in targets}
    if old:
        events.remove_targets(Rule=name, Ids=sorted(old))
    if targets:
        events.put_targets(Rule=name, Targets=targets)


def delete_rule(client: Client, name: str, properties: Properties) -> None:
    events = client("events")
    if ids := [one["Id"] for one in events.list_targets_by_rule(Rule=name)["Targets"]]:
        events.remove_targets(Rule=name, Ids=ids)
    events.delete_rule(Name=name)


def put_resource_policy(client: Client, name: str, properties: Properties) -> None:
    document = properties["PolicyDocument"]
    client("logs").put_resource_policy(policyName=name, policyDocument=document if isinstance(document, str) else json.dumps(document))


def create_resource_policy(client: Client, properties: Properties, default_name: str) -> str:
    put_resource_policy(client, properties["PolicyName"], properties)
    return properties["PolicyName"]


def resource_policy(client: Client, name: str) -> bool:
    return any(one["policyName"] == name for one in client("logs").describe_resource_policies()["resourcePolicies"])


TYPES = {
    "AWS::Batch::ComputeEnvironment": ResourceType(
        create_environment,
        update_environment,
        delete_environment,
        ("ComputeEnvironmentName", "Type", "State", "ServiceRole", "ComputeResources", "ReplaceComputeEnvironment", "UpdatePolicy", "Tags"),
        create_only=("ComputeEnvironmentName", "Type", "Tags", "ComputeResources.SpotIamFleetRole"),
        create_only_at_times=lambda properties: (
            ()
            if str(properties.get("ReplaceComputeEnvironment", True)).lower() == "false"
            else tuple(f"ComputeResources.{name}" for name in REPLACING)
        ),
        attributes={"ComputeEnvironmentArn": lambda client, arn: arn},
        tagged=False,  # its tags cannot change (schema, tagUpdatable), and a stack's own are not put on it
    ),
    "AWS::Batch::JobQueue": ResourceType(
        create_queue,
        update_queue,
        delete_queue,
        ("JobQueueName", "Priority", "State", "ComputeEnvironmentOrder", "JobStateTimeLimitActions", "Tags"),
        create_only=("JobQueueName",),
        attributes={"JobQueueArn": lambda client, arn: arn},
    ),
    "AWS::Events::Rule": ResourceType(
        create_rule,
        update_rule,
        delete_rule,
        ("Name", "Description", "EventPattern", "State", "Targets"),
        create_only=("Name",),
        attributes={"Arn": lambda client, name: client("events").describe_rule(Name=name)["Arn"]},
    ),
    "AWS::Logs::ResourcePolicy": ResourceType(
        create_resource_policy,
        put_resource_policy,
        lambda client, name, properties: client("logs").delete_resource_policy(policyName=name),
        ("PolicyName", "PolicyDocument"),
        create_only=("PolicyName",),
        primary_identifier="PolicyName",
        find=resource_policy,
        tagged=False,
    ),
}
