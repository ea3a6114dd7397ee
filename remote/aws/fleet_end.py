"""How all of a fleet ends: every job of the stack's queues, then its instances, and with the stack the definitions of its jobs."""

from dataclasses import dataclass

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import fleet
from remote.aws.session import Aws, pauses

# ListJobs takes one of these at a time: https://docs.aws.amazon.com/batch/latest/APIReference/API_ListJobs.html
UNFINISHED = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
JOBS_END = 300  # seconds; a container has two minutes after SIGTERM
SCALE_IN = 1800  # seconds; Batch ends an instance that has no job some minutes later
DIGITS = 16  # of an image's tag, which ends a definition's name


@dataclass(frozen=True)
class EndedJobs:
    jobs: int


@dataclass(frozen=True)
class Emptied:
    instances: int  # that were there, and are gone


def unfinished_jobs(aws: Aws) -> list[dict]:
    """Every job of the stack's queues that waits or runs, whoever has submitted it."""
    batch, names = aws.client("batch"), [f"{aws.cloud.own}-{name}" for name in fleet.QUEUES]
    queues = [queue["jobQueueName"] for queue in batch.describe_job_queues(jobQueues=names)["jobQueues"]]
    pages = batch.get_paginator("list_jobs")
    return [
        job
        for queue in queues
        for state in UNFINISHED
        for page in pages.paginate(jobQueue=queue, jobStatus=state)
        for job in page["jobSummaryList"]
    ]


def end_jobs(aws: Aws) -> EndedJobs:
    """End every job of the stack's queues: what waits is cancelled, what runs writes a checkpoint and stops."""
    batch, told = aws.client("batch"), set()
    for _ in pauses(JOBS_END):
        jobs = unfinished_jobs(aws)
        for job in jobs:
            if job["jobId"] not in told:
                told.add(job["jobId"])
                batch.terminate_job(jobId=job["jobId"], reason="inv down --fleet")
                screen.note(f"  {job['jobName']} ends ({job.get('status', 'of no known status')})")
        if not jobs:
            return EndedJobs(len(told))
        screen.status(f"{len(jobs)} jobs are ending")
    left = ", ".join(job["jobName"] for job in jobs)
    raise Problem(f"{left} has not ended within {JOBS_END // 60} minutes", "run the same command again", reason="unreachable")


def wait_until_empty(aws: Aws) -> Emptied:
    """Wait until no instance of the fleet is left: Batch ends those that have no job."""
    seen: dict[str, str] = {}
    for _ in pauses(SCALE_IN):
        present = {one["InstanceId"]: one["InstanceType"] for one in fleet.instances(aws)}
        for name in [name for name in seen if name not in present]:
            screen.note(f"  {name} ({seen[name]}) is gone")
        if not present:
            return Emptied(len(seen))
        seen |= present
        screen.status(f"{', '.join(present)}: Batch ends what has no job any more")
    what = f"{', '.join(present)} of the fleet is still there, {SCALE_IN // 60} minutes after its last job"
    raise Problem(what, "`inv down --fleet` waits again, `inv doctor` looks at the fleet", reason="unreachable")


def definitions(aws: Aws) -> list[str]:
    """The ARNs of the job definitions that this stack's verbs have registered: another stack's names are longer."""
    pages, own = aws.client("batch").get_paginator("describe_job_definitions").paginate(status="ACTIVE"), f"{aws.cloud.own}-"
    every = [one for page in pages for one in page["jobDefinitions"]]
    return [
        one["jobDefinitionArn"]
        for one in every
        if one["jobDefinitionName"].startswith(own) and len(one["jobDefinitionName"]) == len(own) + DIGITS
    ]


def forget_definitions(aws: Aws, arns: list[str]) -> None:
    """Deregister them; Batch shows them as inactive for half a year."""
    for arn in arns:
        aws.client("batch").deregister_job_definition(jobDefinition=arn)
