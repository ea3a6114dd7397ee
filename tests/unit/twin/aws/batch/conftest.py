"""A world of these tests' own with an environment and a queue of Batch, and jobs of a few words of bash."""

import itertools
import json
import sys
from pathlib import Path

import pytest

from twin import world

NUMBERS = itertools.count(1)
SPOT_DATA = """MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=="

--==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/bash
echo ECS_ENABLE_SPOT_INSTANCE_DRAINING={} >> /etc/ecs/ecs.config
--==--
"""


class Fleet:
    """What a test does with Batch in a world."""

    def __init__(self, cloud, until):
        self.cloud, self.until, self.batch = cloud, until, cloud.batch
        self.subnet = cloud.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        self.group = cloud.ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
        self.role = self.make_role("job", "ecs-tasks.amazonaws.com")
        allowed = [{"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::things/*"}]
        document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        cloud.iam.put_role_policy(RoleName="job", PolicyName="own", PolicyDocument=document)
        repository = cloud.ecr.describe_repositories(repositoryNames=["trainer"])["repositories"][0]["repositoryUri"]
        digest = world.register_image(cloud.state, "trainer", "bash", ["bash", "-c"], "", {})
        self.image = f"{repository}@{digest}"

    def make_role(self, name: str, service: str) -> str:
        trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        return self.cloud.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]

    def environment(self, market: str = "EC2", **resources) -> str:
        """The name of a new environment that is VALID."""
        name = f"place-{next(NUMBERS)}"
        usual = {"type": market, "minvCpus": 0, "maxvCpus": 16, "instanceTypes": ["g6.2xlarge"], "subnets": [self.subnet]}
        usual |= {"securityGroupIds": [self.group], "instanceRole": "box", "tags": {"of": "fleet"}}
        self.batch.create_compute_environment(computeEnvironmentName=name, type="MANAGED", computeResources=usual | resources)
        self.until(lambda: self.status(name) != "CREATING")
        return name

    def status(self, name: str) -> str:
        return self.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"][0]["status"]

    def queue(self, *environments: str, **more) -> str:
        name = f"queue-{next(NUMBERS)}"
        order = [{"order": number, "computeEnvironment": one} for number, one in enumerate(environments)]
        self.batch.create_job_queue(jobQueueName=name, priority=1, computeEnvironmentOrder=order, **more)
        self.until(lambda: self.batch.describe_job_queues(jobQueues=[name])["jobQueues"][0]["status"] == "VALID")
        return name

    def definition(self, script: str, vcpus: int = 4, memory: int = 1000, more: dict | None = None, **about) -> str:
        needs = [{"type": "VCPU", "value": str(vcpus)}, {"type": "MEMORY", "value": str(memory)}]
        own = {"image": self.image, "command": [script], "resourceRequirements": needs, "jobRoleArn": self.role} | (more or {})
        own["logConfiguration"] = {"logDriver": "awslogs", "options": {"awslogs-group": "/things", "awslogs-stream-prefix": "fleet"}}
        answer = self.batch.register_job_definition(
            jobDefinitionName=f"def-{next(NUMBERS)}", type="container", containerProperties=own, **about
        )
        return answer["jobDefinitionArn"]

    def submit(self, queue: str, script: str, **about) -> str:
        submission = {name: about.pop(name) for name in ("parameters", "containerOverrides", "dependsOn", "tags") if name in about}
        definition = self.definition(script, **about)
        return self.batch.submit_job(jobName="a-job", jobQueue=queue, jobDefinition=definition, **submission)["jobId"]

    def job(self, id: str) -> dict:
        return self.batch.describe_jobs(jobs=[id])["jobs"][0]

    def is_at(self, id: str, *statuses: str) -> dict:
        """The job, once it has one of these states."""
        return self.until(lambda: (job := self.job(id))["status"] in statuses and job)

    def ended(self, id: str) -> dict:
        return self.is_at(id, "SUCCEEDED", "FAILED")

    def log(self, job: dict) -> list[str]:
        stream = job["attempts"][-1]["container"]["logStreamName"]
        return [one["message"] for one in self.cloud.logs.get_log_events(logGroupName="/things", logStreamName=stream)["events"]]

    def lines(self, id: str) -> list[str]:
        """The log of the attempt that runs, so far."""
        stream = self.job(id)["container"].get("logStreamName")
        if not stream:
            return []
        return [one["message"] for one in self.cloud.logs.get_log_events(logGroupName="/things", logStreamName=stream)["events"]]

    def programs(self) -> str:
        """Where the AWS CLI is that these tests run with."""
        return str(Path(sys.executable).parent)

    def instances(self, *states: str) -> list[dict]:
        found = [one for group in self.cloud.ec2.describe_instances()["Reservations"] for one in group["Instances"]]
        tagged = [one for one in found if {"Key": "AWSBatchServiceTag", "Value": "batch"} in one.get("Tags", [])]
        return [one for one in tagged if not states or one["State"]["Name"] in states]

    def alone(self) -> None:
        """No instance of an earlier test is left."""
        world.forward(self.cloud.state, 60)
        self.until(lambda: not self.instances("pending", "running", "shutting-down"))

    def host(self, job: dict) -> str:
        """The instance that runs now; there is one."""
        (one,) = self.instances("running")
        return one["InstanceId"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, until, another, account):
    state = tmp_path_factory.mktemp("a world of batch")
    world.start(state, {}, account)
    yield Fleet(another(state), until)
    world.stop(state)


@pytest.fixture(scope="module")
def queue(fleet):
    return fleet.queue(fleet.environment())


@pytest.fixture(scope="session")
def spot_data():
    return SPOT_DATA
