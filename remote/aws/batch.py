"""Jobs on AWS Batch: how one is defined, handed over once, found again and ended. The only file with boto3's batch.

A job's definition is one for each image: `image` cannot be given with a job. It is written with `containerProperties`, as rights may look
into those alone (AWS Batch, User Guide, "Resource: restrict a user, image, privilege, role").
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from conf import schema
from conf.fleet_job import WORDS, Exit, job_name
from conf.problem import Problem
from remote.aws.session import Aws
from remote.aws.tags import FLEET

CACHE = "/var/cache/fine-tune-slm"  # on the instance and in its containers: models, and the runs that are made
TMPFS = "/run/fine-tune-slm"  # of the carrier: the Hub token
RUN, CONTENT = "fine-tune-slm:run", "fine-tune-slm:content"  # tags, besides the fleet's own
QUEUES = {schema.Market.spot: "spot", schema.Market.on_demand: "on-demand", schema.Market.spot_first: "spot-first"}
ENDED = ("SUCCEEDED", "FAILED")
# ECS and the kernel keep a part of an instance's memory, and a job that asks for all of it is never placed
# (AWS Batch, User Guide, "Compute resource memory management").
SHARE_OF_MEMORY = 0.9
# In their order; what no rule names is not tried again (AWS Batch, User Guide, "Automated job retries").
RETRIES = (
    {"onStatusReason": "Host EC2*", "action": "RETRY"},  # AWS took the instance back
    {"onReason": "CannotPullContainerError*", "action": "RETRY"},
    {"onExitCode": str(int(Exit.again)), "action": "RETRY"},
    {"onReason": "*", "action": "EXIT"},
)


@dataclass(frozen=True)
class Definition:
    definition: str  # ARN with its revision


@dataclass(frozen=True)
class FleetJob:
    id: str
    status: str
    reason: str  # of the job
    created: int  # milliseconds since 1970
    container: str = ""  # why its last container ended, where ECS says so
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def words(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status

    @property
    def why(self) -> str:
        """Why a job that has ended did so: of a container that failed its job's own reason says only that."""
        code = f"exit code {self.exit_code}" if self.exit_code else ""
        return "; ".join(filter(None, (self.reason, self.container, code))) or self.status


def queue(run: schema.Run) -> str:
    return f"{run.cloud.own}-{QUEUES[run.fleet.market]}"


def queues(cloud: schema.Cloud) -> list[str]:
    return [f"{cloud.own}-{market}" for market in QUEUES.values()]


def define(aws: Aws, run: schema.Run, image: str, tag: str) -> Definition:
    """Make sure that AWS Batch has this image's job definition."""
    wanted = definition(aws, run, image, tag)
    content = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:32]
    client, name = aws.client("batch"), str(wanted["jobDefinitionName"])
    for page in client.get_paginator("describe_job_definitions").paginate(jobDefinitionName=name, status="ACTIVE"):
        for there in page["jobDefinitions"]:
            if there.get("tags", {}).get(CONTENT) == content:
                return Definition(there["jobDefinitionArn"])
    made = client.register_job_definition(**wanted | {"tags": wanted["tags"] | {CONTENT: content}})
    return Definition(made["jobDefinitionArn"])


def definition(aws: Aws, run: schema.Run, image: str, tag: str) -> dict[str, Any]:
    """What a run's container is: its root, which starts the trainer as another user, writes into the cache and into memory alone."""
    _, partition, _, _, account, _ = aws.caller.split(":", 5)
    own = run.cloud.own
    environment = {
        "BUCKET": run.cloud.bucket,
        "PREFIX": run.cloud.prefix.strip("/"),
        "HUB_SECRET": run.cloud.box_secret,
        "HF_HOME": f"{CACHE}/hub-cache",
        "AWS_DEFAULT_REGION": run.cloud.region,
    }
    in_memory = {"containerPath": TMPFS, "size": 1, "mountOptions": ["rw", "noexec", "nosuid", "nodev"]}
    scratch = {"containerPath": "/tmp", "size": 2048, "mountOptions": ["rw", "exec", "nosuid", "nodev"]}  # Triton loads what it compiles
    container = {
        "image": image,
        "command": ["carrier", *(f"Ref::{word}" for word in WORDS)],
        "jobRoleArn": f"arn:{partition}:iam::{account}:role/{own}-job",
        "user": "0:0",
        "privileged": False,
        "readonlyRootFilesystem": True,
        "environment": [{"name": name, "value": value} for name, value in environment.items()],
        "volumes": [{"name": "cache", "host": {"sourcePath": CACHE}}],
        "mountPoints": [{"sourceVolume": "cache", "containerPath": CACHE, "readOnly": False}],
        "linuxParameters": {"tmpfs": [in_memory, scratch], "sharedMemorySize": 8192},
        "ulimits": [{"name": "core", "softLimit": 0, "hardLimit": 0}],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": run.cloud.log_group, "awslogs-stream-prefix": "fleet"},
        },
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}],  # each job says its own
    }
    return {
        "jobDefinitionName": f"{own}-{tag}",
        "type": "container",
        "containerProperties": container,
        "platformCapabilities": ["EC2"],
        "tags": {FLEET: own},
    }


def requirements(aws: Aws, run: schema.Run) -> list[dict[str, str]]:
    """The part of an instance that a run gets: by its GPUs, or a whole one; of the smallest of the types."""
    types = aws.client("ec2").describe_instance_types(InstanceTypes=list(run.fleet.instance_type))["InstanceTypes"]
    shares = []
    for each in types:
        cards = sum(card["Count"] for card in each.get("GpuInfo", {}).get("Gpus", []))
        if cards < run.fleet.gpus:
            what = f"{each['InstanceType']} has {cards} GPUs, and fleet.gpus is {run.fleet.gpus}"
            raise Problem(what, "`fleet.gpus=1`, or a larger type: 'fleet.instance_type=[g6.12xlarge]'")
        share = run.fleet.gpus / cards if run.fleet.gpus else 1
        vcpus, memory = each["VCpuInfo"]["DefaultVCpus"] * share, each["MemoryInfo"]["SizeInMiB"] * share * SHARE_OF_MEMORY
        shares.append((max(1, math.floor(vcpus)), math.floor(memory)))
    wanted = {"VCPU": min(vcpus for vcpus, _ in shares), "MEMORY": min(memory for _, memory in shares)}
    wanted |= {"GPU": run.fleet.gpus} if run.fleet.gpus else {}
    return [{"type": kind, "value": str(value)} for kind, value in wanted.items()]


def submit(aws: Aws, run: schema.Run, run_id: str, definition: str, parameters: dict[str, str], seconds: int) -> FleetJob:
    """Hand a run over. SubmitJob knows no token that would make a second one the same job: an answer that got lost is looked for."""
    from botocore.exceptions import HTTPClientError

    request = {
        "jobName": job_name(run_id),
        "jobQueue": queue(run),
        "jobDefinition": definition,
        "parameters": parameters,
        "containerOverrides": {"resourceRequirements": requirements(aws, run)},
        "retryStrategy": {"attempts": run.fleet.attempts, "evaluateOnExit": list(RETRIES)},
        "timeout": {"attemptDurationSeconds": max(60, seconds)},
        "tags": {FLEET: run.cloud.own, RUN: run_id},
    }
    client = aws.client("batch", once=True)
    for _ in range(3):
        try:
            return FleetJob(client.submit_job(**request)["jobId"], "SUBMITTED", "", 0)
        except (HTTPClientError, client.exceptions.ServerException):
            if there := live(aws, run.cloud, run_id):
                return there
    raise Problem(f"AWS Batch has not taken {run_id}", "the same command again: it is handed over once", "unreachable")


def jobs(aws: Aws, cloud: schema.Cloud, run_id: str) -> list[FleetJob]:
    """The run's jobs in all of the stack's queues, the newest last."""
    client, there = aws.client("batch"), []
    for name in queues(cloud):
        try:
            pages = client.get_paginator("list_jobs").paginate(jobQueue=name, filters=[{"name": "JOB_NAME", "values": [job_name(run_id)]}])
            there += [_job(summary) for page in pages for summary in page["jobSummaryList"]]
        except client.exceptions.ClientException as error:
            if "does not exist" not in str(error):
                raise
    return sorted(there, key=lambda job: job.created)


def _job(summary: dict) -> FleetJob:
    about = summary.get("status", ""), summary.get("statusReason", ""), summary.get("createdAt", 0)
    container = summary.get("container", {})
    return FleetJob(summary["jobId"], *about, container.get("reason", ""), container.get("exitCode"))


def live(aws: Aws, cloud: schema.Cloud, run_id: str) -> FleetJob | None:
    """The run's job that waits or runs, if there is one."""
    job = latest(aws, cloud, run_id)
    return job if job and not job.ended else None


def latest(aws: Aws, cloud: schema.Cloud, run_id: str) -> FleetJob | None:
    """The run's newest job that waits or runs; where all have ended, the newest of them. Of two the second ends at once."""
    return max(jobs(aws, cloud, run_id), key=lambda job: (not job.ended, job.created), default=None)


def end(aws: Aws, cloud: schema.Cloud, run_id: str, why: str) -> None:
    """End the run's jobs: one that waits is cancelled, one that runs is told to end."""
    for job in jobs(aws, cloud, run_id):
        if not job.ended:
            aws.client("batch").terminate_job(jobId=job.id, reason=why)


def check_queue(aws: Aws, run: schema.Run) -> None:
    """Nothing, or a Problem where there is no fleet to hand a run to."""
    name = queue(run)
    there = aws.client("batch").describe_job_queues(jobQueues=[name])["jobQueues"]
    if not there:
        raise Problem(f"this account has no fleet: AWS Batch has no queue `{name}`", "`inv init -- fleet=batch` makes it", "refused")
    if there[0]["state"] != "ENABLED" or there[0]["status"] != "VALID":
        what = f"AWS Batch's queue `{name}` is {there[0]['state']} and {there[0]['status']}: {there[0].get('statusReason', '')}"
        raise Problem(what.rstrip(": "), "`inv doctor` looks at the fleet", "refused")
