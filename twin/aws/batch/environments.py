"""Compute environments: where jobs run. One whose launch template, subnet, group or role is missing is INVALID, with the reason."""

import re
import time
import uuid
from dataclasses import dataclass, field

from twin.aws import wire
from twin.aws.batch import launch
from twin.aws.batch.refusals import client_error, known_by
from twin.aws.iam import linked_roles

NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
UNSETTLED = 0.1  # seconds that an environment is CREATING or UPDATING, so that a client that does not wait fails here
HEALTHY = "ComputeEnvironment Healthy"
NEEDED = ("maxvCpus", "instanceTypes", "subnets", "instanceRole")


@dataclass
class Environment:
    name: str
    arn: str
    resources: dict  # computeResources, as the caller gave them
    state: str = "ENABLED"
    service_role: str = ""
    tags: dict = field(default_factory=dict)
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    passing: str = "CREATING"
    settled: float = 0.0

    @property
    def kind(self) -> str:
        return self.resources["type"]

    def unsettled(self, passing: str) -> None:
        self.passing, self.settled = passing, time.monotonic() + UNSETTLED


class Environments:
    def __init__(self, region: str):
        self.region = region
        self.all: dict[str, Environment] = {}  # by name
        self.used_by = lambda environment: []  # the queues that name it
        self.end = lambda environment: None  # all of its instances are terminated
        self.vcpus = lambda environment: 0  # of its instances
        self.verbs = {
            "CreateComputeEnvironment": self.create,
            "UpdateComputeEnvironment": self.update,
            "DeleteComputeEnvironment": self.delete,
            "DescribeComputeEnvironments": self.describe,
        }

    def create(self, content: dict) -> dict:
        name, resources = content["computeEnvironmentName"], content.get("computeResources", {})
        if not NAME.fullmatch(name):
            raise client_error("computeEnvironmentName should match valid pattern: [0-9a-zA-Z]+[0-9a-zA-Z_-]{0,127}")
        if name in self.all:
            raise client_error("Object already exists")
        if content["type"] != "MANAGED" or resources.get("type") not in ("EC2", "SPOT"):
            raise client_error("this emulation knows managed compute environments of type EC2 and SPOT only")
        check(resources)
        arn = f"arn:aws:batch:{self.region}:{wire.ACCOUNT}:compute-environment/{name}"
        if not content.get("serviceRole"):
            linked_roles.ensure("batch.amazonaws.com")
        role = content.get("serviceRole") or f"arn:aws:iam::{wire.ACCOUNT}:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
        usual = {"minvCpus": 0, "desiredvCpus": 0, "allocationStrategy": "BEST_FIT"}
        environment = Environment(name, arn, usual | resources, content.get("state", "ENABLED"), role, content.get("tags", {}))
        environment.unsettled("CREATING")
        self.all[name] = environment
        return {"computeEnvironmentName": name, "computeEnvironmentArn": arn}

    def update(self, content: dict) -> dict:
        environment = self.required(content["computeEnvironment"])
        if self.status(environment)[0] in ("CREATING", "UPDATING", "DELETING"):
            raise client_error("Cannot update, resource is being modified.")
        resources = environment.resources | content.get("computeResources", {})
        check(resources)
        environment.resources, environment.state = resources, content.get("state", environment.state)
        environment.service_role = content.get("serviceRole", environment.service_role)
        environment.unsettled("UPDATING")
        return {"computeEnvironmentName": environment.name, "computeEnvironmentArn": environment.arn}

    def delete(self, content: dict) -> dict:
        environment = known_by(self.all, content["computeEnvironment"])
        if not environment:
            return {}
        if self.used_by(environment):
            raise client_error("Cannot delete, found existing JobQueue relationship")
        if environment.state != "DISABLED":
            raise client_error("Cannot delete, resource should be disabled before it is deleted")
        if self.status(environment)[0] in ("CREATING", "UPDATING"):
            raise client_error("Cannot delete, resource is being modified.")
        environment.unsettled("DELETING")
        self.end(environment)
        return {}

    def describe(self, content: dict) -> dict:
        wanted = content.get("computeEnvironments")
        for environment in [one for one in self.all.values() if one.passing == "DELETING"]:
            if time.monotonic() > environment.settled and not self.vcpus(environment):
                del self.all[environment.name]
        known = [one for one in self.all.values() if wanted is None or one.name in wanted or one.arn in wanted]
        return {"computeEnvironments": [self.shown(one) for one in known]}

    def required(self, name: str) -> Environment:
        if environment := known_by(self.all, name):
            return environment
        raise client_error(f"Compute environment {name} does not exist")

    def status(self, environment: Environment) -> tuple[str, str]:
        """Its status and the reason."""
        if environment.passing == "DELETING" or time.monotonic() < environment.settled:
            return environment.passing, ""
        problem = launch.problem(environment.resources, environment.service_role, self.region)
        return ("INVALID", f"CLIENT_ERROR - {problem}") if problem else ("VALID", HEALTHY)

    def shown(self, environment: Environment) -> dict:
        status, reason = self.status(environment)
        cluster = f"arn:aws:ecs:{self.region}:{wire.ACCOUNT}:cluster/AWSBatch-{environment.name}-{environment.uuid}"
        resources = environment.resources | {"desiredvCpus": self.vcpus(environment)}
        about = {"computeEnvironmentName": environment.name, "computeEnvironmentArn": environment.arn, "ecsClusterArn": cluster}
        about |= {"type": "MANAGED", "state": environment.state, "status": status, "computeResources": resources}
        about |= {"serviceRole": environment.service_role, "tags": environment.tags, "uuid": environment.uuid}
        return about | {"containerOrchestrationType": "ECS", "statusReason": reason}


def check(resources: dict) -> None:
    if missing := [name for name in NEEDED if not resources.get(name) and resources.get(name) != 0]:
        raise client_error(f"Error executing request, Exception : {missing[0]} is required.")
    if not resources.get("securityGroupIds") and not resources.get("launchTemplate"):
        raise client_error("Error executing request, Exception : securityGroupIds is required.")
    if unknown := [one for one in resources["instanceTypes"] if not launch.types_of(one)]:
        raise client_error(f"Error executing request, Exception : Invalid instance type/family: {', '.join(unknown)}.")
