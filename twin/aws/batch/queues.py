"""Job queues: which compute environments a job may run in, in which order, and how long it may wait for what reason."""

import time
from dataclasses import dataclass, field

from twin.aws import wire
from twin.aws.batch.environments import NAME, UNSETTLED, Environment, Environments
from twin.aws.batch.refusals import client_error, known_by

# https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable_time_limit_actions.html
CAPACITY = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"
TOO_LARGE = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE"
NO_FIT = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
REASONS = (CAPACITY, TOO_LARGE, NO_FIT, "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED")
SECONDS = (600, 86_400)  # API, JobStateTimeLimitAction: maxTimeSeconds


@dataclass
class Queue:
    name: str
    arn: str
    priority: int
    order: list[dict]  # computeEnvironmentOrder
    limits: list[dict] = field(default_factory=list)  # jobStateTimeLimitActions
    state: str = "ENABLED"
    tags: dict = field(default_factory=dict)
    passing: str = "CREATING"
    settled: float = 0.0

    def unsettled(self, passing: str) -> None:
        self.passing, self.settled = passing, time.monotonic() + UNSETTLED

    @property
    def status(self) -> str:
        return self.passing if self.passing == "DELETING" or time.monotonic() < self.settled else "VALID"

    def patience(self, reason: str) -> int | None:
        """Seconds that a job may wait at the head for this reason; None: for ever."""
        return next((one["maxTimeSeconds"] for one in self.limits if one["reason"] == reason), None)


class Queues:
    def __init__(self, region: str, environments: Environments):
        self.region, self.environments = region, environments
        self.all: dict[str, Queue] = {}  # by name
        self.end = lambda queue: None  # all of its jobs are terminated
        environments.used_by = self.of
        self.verbs = {
            "CreateJobQueue": self.create,
            "UpdateJobQueue": self.update,
            "DeleteJobQueue": self.delete,
            "DescribeJobQueues": self.describe,
        }

    def of(self, environment: Environment) -> list[Queue]:
        return [one for one in self.all.values() if environment.name in self.names(one)]

    def names(self, queue: Queue) -> list[str]:
        """The environments of a queue by name, in their order."""
        ordered = sorted(queue.order, key=lambda one: one["order"])
        return [one["computeEnvironment"].rpartition("/")[2] for one in ordered]

    def create(self, content: dict) -> dict:
        name = content["jobQueueName"]
        if not NAME.fullmatch(name):
            raise client_error("jobQueueName should match valid pattern: [0-9a-zA-Z]+[0-9a-zA-Z_-]{0,127}")
        if name in self.all:
            raise client_error("Object already exists")
        if content.get("schedulingPolicyArn") or content.get("serviceEnvironmentOrder"):
            raise client_error("this emulation knows queues that are first in, first out")
        order, limits = self.checked_order(content.get("computeEnvironmentOrder", [])), content.get("jobStateTimeLimitActions", [])
        check(limits)
        arn = f"arn:aws:batch:{self.region}:{wire.ACCOUNT}:job-queue/{name}"
        queue = Queue(name, arn, content["priority"], order, limits, content.get("state", "ENABLED"), content.get("tags", {}))
        queue.unsettled("CREATING")
        self.all[name] = queue
        return {"jobQueueName": name, "jobQueueArn": arn}

    def update(self, content: dict) -> dict:
        queue = self.required(content["jobQueue"])
        if queue.status != "VALID":
            raise client_error("Cannot update, resource is being modified.")
        if "computeEnvironmentOrder" in content:
            queue.order = self.checked_order(content["computeEnvironmentOrder"])
        check(content.get("jobStateTimeLimitActions", []))
        queue.limits = content.get("jobStateTimeLimitActions", queue.limits)
        queue.state, queue.priority = content.get("state", queue.state), content.get("priority", queue.priority)
        queue.unsettled("UPDATING")
        return {"jobQueueName": queue.name, "jobQueueArn": queue.arn}

    def delete(self, content: dict) -> dict:
        """All jobs of the queue are terminated with it: API, DeleteJobQueue."""
        queue = known_by(self.all, content["jobQueue"])
        if not queue:
            return {}
        if queue.state != "DISABLED":
            raise client_error("Cannot delete, resource should be disabled before it is deleted")
        if queue.status in ("CREATING", "UPDATING"):
            raise client_error("Cannot delete, resource is being modified.")
        queue.unsettled("DELETING")
        self.end(queue)
        return {}

    def describe(self, content: dict) -> dict:
        wanted = content.get("jobQueues")
        for queue in [one for one in self.all.values() if one.passing == "DELETING" and time.monotonic() > one.settled]:
            del self.all[queue.name]
        known = [one for one in self.all.values() if wanted is None or one.name in wanted or one.arn in wanted]
        return {"jobQueues": [shown(one) for one in known]}

    def required(self, name: str) -> Queue:
        if queue := known_by(self.all, name):
            return queue
        raise client_error(f"Job queue {name} does not exist")

    def checked_order(self, order: list[dict]) -> list[dict]:
        if not 1 <= len(order) <= 3:
            raise client_error("a job queue has one to three compute environments")
        environments = [self.environments.required(one["computeEnvironment"]) for one in order]
        for environment in environments:
            if self.environments.status(environment)[0] not in ("VALID", "UPDATING"):
                raise client_error(f"{environment.arn} is not valid.")
        return [one | {"computeEnvironment": environment.arn} for one, environment in zip(order, environments, strict=True)]


def check(limits: list[dict]) -> None:
    for one in limits:
        if one["reason"] not in REASONS:
            raise client_error(f"jobStateTimeLimitActions: {one['reason']} is no reason of theirs; these are {', '.join(REASONS)}")
        if not SECONDS[0] <= one["maxTimeSeconds"] <= SECONDS[1]:
            raise client_error(f"jobStateTimeLimitActions: maxTimeSeconds is from {SECONDS[0]} to {SECONDS[1]}")
        if (one["state"], one["action"]) != ("RUNNABLE", "CANCEL"):
            raise client_error("jobStateTimeLimitActions: jobs on EC2 are cancelled in the state RUNNABLE, and nothing else")


def shown(queue: Queue) -> dict:
    about = {"jobQueueName": queue.name, "jobQueueArn": queue.arn, "state": queue.state, "status": queue.status}
    about |= {"statusReason": "JobQueue Healthy" if queue.status == "VALID" else "", "priority": queue.priority}
    about |= {"computeEnvironmentOrder": queue.order, "jobStateTimeLimitActions": queue.limits, "jobQueueType": "ECS", "tags": queue.tags}
    return about | {"serviceEnvironmentOrder": []}
