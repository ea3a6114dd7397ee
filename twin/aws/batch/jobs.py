"""Jobs: what was asked for, how far it has come, and how each attempt ended."""

import re
import uuid
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from twin.aws.batch.definitions import Definition, amount

REFERENCE = re.compile(r"Ref::([A-Za-z0-9_-]+)")
WAITING, ACTIVE, ENDED = ("SUBMITTED", "PENDING", "RUNNABLE"), ("STARTING", "RUNNING"), ("SUCCEEDED", "FAILED")
OVERRIDDEN = ("command", "environment", "resourceRequirements", "vcpus", "memory")


@dataclass
class Attempt:
    """Times are seconds of the world's clock."""

    host_arn: str
    task_arn: str
    started: float | None = None
    stopped: float | None = None
    exit_code: int | None = None
    reason: str = ""  # of the container
    status_reason: str = ""
    stream: str = ""
    alarm: float | None = None  # when it will have lasted too long

    @property
    def task_id(self) -> str:
        return self.task_arn.rpartition("/")[2]


@dataclass
class Job:
    name: str
    arn: str
    queue: str
    definition: Definition
    content: dict  # as it was submitted
    created: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "SUBMITTED"
    reason: str = ""
    attempts: list[Attempt] = field(default_factory=list)  # those that are over
    current: Attempt | None = None
    tags: dict = field(default_factory=dict)
    blocked: str = ""  # why it cannot be placed at the head of its queue
    blocked_since: float = 0.0
    ending: str = ""  # why somebody, or its timeout, ends it
    cancelled: bool = False
    terminated: bool = False

    @property
    def container(self) -> dict:
        """The definition's, with what the submission says instead."""
        own, wish = dict(self.definition.container), self.content.get("containerOverrides", {})
        if tasks := self.content.get("ecsPropertiesOverride", {}).get("taskProperties"):
            wish = tasks[0]["containers"][0]
        for name in OVERRIDDEN:
            if name in wish:
                own[name] = merged(own.get(name, []), wish[name]) if name in MERGED else wish[name]
        return own | {"command": [filled(word, self.parameters) for word in own.get("command", [])]}

    @property
    def parameters(self) -> dict:
        return self.definition.content.get("parameters", {}) | self.content.get("parameters", {})

    @property
    def strategy(self) -> dict:
        return {"attempts": 1, "evaluateOnExit": []} | (
            self.content.get("retryStrategy") or self.definition.content.get("retryStrategy", {})
        )

    @property
    def timeout(self) -> int | None:
        """Seconds that an attempt may take."""
        return (self.content.get("timeout") or self.definition.content.get("timeout", {})).get("attemptDurationSeconds")

    @property
    def needs(self) -> tuple[float, float, int]:
        """vCPUs, MiB and GPUs."""
        own = self.container
        return amount(own, "VCPU"), amount(own, "MEMORY"), int(amount(own, "GPU"))


MERGED = ("environment", "resourceRequirements")


def merged(own: list[dict], wish: list[dict]) -> list[dict]:
    """Entries of an override take the place of those of their name; all others stay."""
    key = "name" if any("name" in one for one in [*own, *wish]) else "type"
    named = {one[key] for one in wish}
    return [*(one for one in own if one[key] not in named), *wish]


def filled(word: str, parameters: dict) -> str:
    """A placeholder as the parameter that it names; one that none names stays: user guide, job_definition_parameters."""
    match = REFERENCE.fullmatch(word)
    return parameters.get(match[1], word) if match else word


def listed(jobs: list[Job], content: dict) -> list[Job]:
    """By status, RUNNING where none is named, or by one filter, which leaves the status aside: API, ListJobs."""
    (condition,) = content.get("filters") or [None]
    if not condition:
        return [one for one in jobs if one.status == (content.get("jobStatus") or "RUNNING")]
    name, value = condition["name"], condition["values"][0]
    tests = {
        "JOB_NAME": lambda job: fnmatchcase(job.name.lower(), value.lower()),
        "JOB_DEFINITION": lambda job: fnmatchcase(
            f"{job.definition.name}:{job.definition.revision}", value if ":" in value else f"{value}:*"
        ),
        "BEFORE_CREATED_AT": lambda job: millis(job.created) < int(value),
        "AFTER_CREATED_AT": lambda job: millis(job.created) > int(value),
    }
    return sorted((one for one in jobs if tests[name](one)), key=lambda job: job.created, reverse=True)


def millis(moment: float) -> int:
    return int(moment * 1000)


def times(job: Job) -> dict:
    started = (job.current or (job.attempts[-1] if job.attempts else None)) and (job.current or job.attempts[-1]).started
    stopped = job.attempts[-1].stopped if job.status in ENDED and job.attempts else None
    return {
        name: millis(moment) for name, moment in {"createdAt": job.created, "startedAt": started, "stoppedAt": stopped}.items() if moment
    }


def summary(job: Job) -> dict:
    about = {"jobArn": job.arn, "jobId": job.id, "jobName": job.name, "status": job.status, "jobDefinition": job.definition.arn}
    last = job.current or (job.attempts[-1] if job.attempts else None)
    return about | times(job) | {"statusReason": job.reason, "container": ended(last) if last else {}}


def ended(attempt: Attempt) -> dict:
    return ({} if attempt.exit_code is None else {"exitCode": attempt.exit_code}) | ({"reason": attempt.reason} if attempt.reason else {})


def shown_attempt(attempt: Attempt) -> dict:
    where = {"containerInstanceArn": attempt.host_arn, "taskArn": attempt.task_arn, "networkInterfaces": []}
    where |= {"logStreamName": attempt.stream} if attempt.stream else {}
    moments = {"startedAt": attempt.started, "stoppedAt": attempt.stopped}
    return {
        "container": where | ended(attempt),
        "statusReason": attempt.status_reason,
        **{name: millis(moment) for name, moment in moments.items() if moment},
    }


def shown(job: Job) -> dict:
    """As DescribeJobs tells it: of the attempt that runs, or of the last, where it is and how it ended."""
    about = summary(job) | {"jobQueue": job.queue, "attempts": [shown_attempt(one) for one in job.attempts], "tags": job.tags}
    about |= {"parameters": job.parameters, "retryStrategy": job.strategy, "dependsOn": job.content.get("dependsOn", [])}
    about |= {"timeout": {"attemptDurationSeconds": job.timeout}} if job.timeout else {}
    about |= {"isCancelled": job.cancelled, "isTerminated": job.terminated, "platformCapabilities": ["EC2"]}
    last = job.current or (job.attempts[-1] if job.attempts else None)
    where = shown_attempt(last)["container"] if last else {}
    own = {name: value for name, value in job.container.items() if name not in ("stopTimeout", "name", "ipcMode")}
    if "ecsProperties" not in job.definition.content:
        usual = {"environment": [], "mountPoints": [], "volumes": [], "ulimits": [], "secrets": [], "resourceRequirements": []}
        return about | {"container": usual | own | where}
    (task,) = job.definition.content["ecsProperties"]["taskProperties"]
    place = {name: where[name] for name in ("containerInstanceArn", "taskArn") if name in where}
    inner = {name: value for name, value in where.items() if name not in place}
    containers = [
        task["containers"][0] | {"command": job.container["command"], "environment": job.container.get("environment", [])} | inner
    ]
    return about | {"container": {}, "ecsProperties": {"taskProperties": [task | place | {"containers": containers}]}}
