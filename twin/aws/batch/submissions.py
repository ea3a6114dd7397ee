"""What callers do with jobs: submit, list, describe, cancel and terminate them."""

import uuid

from twin.aws import wire
from twin.aws.batch.definitions import Definitions, check_resources, check_strategy, check_variables
from twin.aws.batch.environments import NAME
from twin.aws.batch.jobs import Job, listed, millis, shown, summary
from twin.aws.batch.placement import Placement
from twin.aws.batch.queues import Queues
from twin.aws.batch.refusals import client_error

PAGE = 100  # jobs in one answer of ListJobs or DescribeJobs
UNKNOWN = ("arrayProperties", "nodeOverrides", "eksPropertiesOverride", "shareIdentifier", "consumableResourcePropertiesOverride")


class Submissions:
    def __init__(self, region: str, definitions: Definitions, queues: Queues, placement: Placement):
        self.region, self.definitions, self.queues, self.placement = region, definitions, queues, placement
        self.verbs = {
            "SubmitJob": self.submit,
            "DescribeJobs": self.describe,
            "ListJobs": self.listing,
            "CancelJob": self.cancel,
            "TerminateJob": self.terminate,
            "GetJobQueueSnapshot": self.snapshot,
        }

    def submit(self, content: dict) -> dict:
        """There is no client token: what is submitted twice is there twice."""
        if unknown := [name for name in UNKNOWN if name in content]:
            raise client_error(f"this emulation does not know {', '.join(unknown)}")
        if not NAME.fullmatch(content["jobName"]):
            raise client_error("Job name should match valid pattern: [0-9a-zA-Z]+[0-9a-zA-Z_-]{0,127}")
        queue, definition = self.queues.required(content["jobQueue"]), self.definitions.active(content["jobDefinition"])
        if queue.state != "ENABLED" or queue.status not in ("VALID", "UPDATING"):
            raise client_error(f"{queue.arn} is not enabled and valid.")
        id = str(uuid.uuid4())
        arn = f"arn:aws:batch:{self.region}:{wire.ACCOUNT}:job/{id}"
        job = Job(content["jobName"], arn, queue.arn, definition, content, self.placement.clock.now(), id, tags=content.get("tags", {}))
        check_resources(job.container)
        check_variables(job.container.get("environment", []))
        check_strategy(content.get("retryStrategy", {}), content.get("timeout", {}))
        self.placement.submit(job)
        return {"jobName": job.name, "jobId": job.id, "jobArn": job.arn}

    def find(self, id: str) -> Job | None:
        return next((one for one in self.placement.jobs if id in (one.id, one.arn)), None)

    def describe(self, content: dict) -> dict:
        """Of those that nobody knows nothing is said."""
        if len(content["jobs"]) > PAGE:
            raise client_error("Maximum number of jobs to describe is 100")
        return {"jobs": [shown(job) for id in content["jobs"] if (job := self.find(id))]}

    def listing(self, content: dict) -> dict:
        if "jobQueue" not in content:
            raise client_error("Job queue is required.")
        queue = self.queues.required(content["jobQueue"])
        known = listed([one for one in self.placement.jobs if one.queue == queue.arn], content)
        start, most = int(content.get("nextToken") or 0), min(content.get("maxResults") or PAGE, PAGE)
        more = {"nextToken": str(start + most)} if start + most < len(known) else {}
        return {"jobSummaryList": [summary(one) for one in known[start : start + most]]} | more

    def cancel(self, content: dict) -> dict:
        if job := self.find(content["jobId"]):
            self.placement.cancel(job, content["reason"])
        return {}

    def terminate(self, content: dict) -> dict:
        if job := self.find(content["jobId"]):
            self.placement.terminate(job, content["reason"])
        return {}

    def snapshot(self, content: dict) -> dict:
        """The first 100 jobs that wait, in their order."""
        queue = self.queues.required(content["jobQueue"])
        waiting = [one for one in self.placement.jobs if one.queue == queue.arn and one.status == "RUNNABLE"][:100]
        jobs = [{"jobArn": one.arn, "earliestTimeAtPosition": millis(one.blocked_since or one.created)} for one in waiting]
        return {"frontOfQueue": {"jobs": jobs, "lastUpdatedAt": millis(self.placement.clock.now())}}
