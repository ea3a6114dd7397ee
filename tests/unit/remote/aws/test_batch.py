"""Jobs on AWS Batch: a definition for each image, a run handed over once, whatever becomes of an answer; in shapes that AWS documents."""

from pathlib import Path
from types import SimpleNamespace

import botocore.session
import pytest
from botocore.exceptions import ConnectionClosedError
from botocore.validate import ParamValidator

from conf import load
from conf.fleet_job import WORDS
from conf.problem import Problem
from remote.aws import batch

IMAGE = "1.dkr.ecr.us-east-1.amazonaws.com/fine-tune-slm@sha256:1"
TYPES = {
    "g6.2xlarge": {"VCpuInfo": {"DefaultVCpus": 8}, "MemoryInfo": {"SizeInMiB": 32768}, "GpuInfo": {"Gpus": [{"Count": 1}]}},
    "g6.12xlarge": {"VCpuInfo": {"DefaultVCpus": 48}, "MemoryInfo": {"SizeInMiB": 196608}, "GpuInfo": {"Gpus": [{"Count": 4}]}},
}


class Service:
    """AWS Batch and EC2, as far as they are asked; each request is held to the models of the API."""

    exceptions = SimpleNamespace(ServerException=type("ServerException", (Exception,), {}), ClientException=type("C", (Exception,), {}))

    def __init__(self):
        self.jobs, self.definitions, self.lose, self.refuse = [], [], 0, 0
        self.model = botocore.session.get_session().get_service_model("batch")

    def checked(self, operation, request):
        report = ParamValidator().validate(request, self.model.operation_model(operation).input_shape)
        assert not report.has_errors(), report.generate_report()

    def submit_job(self, **request):
        self.checked("SubmitJob", request)
        if self.refuse:
            self.refuse -= 1
            raise ConnectionClosedError(endpoint_url="batch")
        self.jobs.append({"jobId": f"j{len(self.jobs)}", "jobName": request["jobName"], "status": "RUNNABLE", "createdAt": len(self.jobs)})
        self.request = request
        if self.lose:
            self.lose -= 1
            raise ConnectionClosedError(endpoint_url="batch")
        return {"jobName": request["jobName"], "jobId": self.jobs[-1]["jobId"]}

    def register_job_definition(self, **request):
        self.checked("RegisterJobDefinition", request)
        arn = f"arn:aws:batch:us-east-1:1:job-definition/{request['jobDefinitionName']}:{len(self.definitions) + 1}"
        self.definitions.append(request | {"jobDefinitionArn": arn})
        return {"jobDefinitionArn": arn}

    def get_paginator(self, name):
        pages = {
            "list_jobs": lambda jobQueue, filters: [
                {"jobSummaryList": [job for job in self.jobs if job["jobName"] in filters[0]["values"] and jobQueue.endswith("-spot")]}
            ],
            "describe_job_definitions": lambda jobDefinitionName, status: [{"jobDefinitions": self.definitions}],
        }
        return SimpleNamespace(paginate=pages[name])

    def terminate_job(self, **request):
        self.checked("TerminateJob", request)
        (job,) = [job for job in self.jobs if job["jobId"] == request["jobId"]]
        job |= {"status": "FAILED", "statusReason": request["reason"]}

    def describe_job_queues(self, jobQueues):
        return {"jobQueues": [{"state": "ENABLED", "status": "VALID"} for name in jobQueues if name == "fine-tune-slm-spot"]}

    def describe_instance_types(self, InstanceTypes):
        return {"InstanceTypes": [TYPES[kind] | {"InstanceType": kind} for kind in InstanceTypes]}


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def aws(service):
    return SimpleNamespace(client=lambda name, once=False: service, caller="arn:aws:iam::123456789012:user/me")


def settings(*words):
    return load.load(["cloud=twin", "fleet=batch", *words], local=Path("none"))


def submit(aws, run):
    return batch.submit(aws, run, "a.b.3", "arn:d:1", dict.fromkeys(WORDS, "x"), 7200)


def test_a_run_is_handed_over_with_the_part_of_an_instance_that_its_gpus_are(aws, service):
    job = submit(aws, settings("fleet.instance_type=[g6.2xlarge,g6.12xlarge]"))
    assert (job.id, service.request["jobName"], service.request["jobQueue"]) == ("j0", "a-b-3", "fine-tune-slm-spot")
    wanted = {each["type"]: each["value"] for each in service.request["containerOverrides"]["resourceRequirements"]}
    assert wanted == {"VCPU": "8", "MEMORY": "29491", "GPU": "1"}
    assert service.request["tags"] == {"fine-tune-slm:fleet": "fine-tune-slm", "fine-tune-slm:run": "a.b.3"}


def test_an_answer_that_is_lost_makes_no_second_job(aws, service):
    service.lose = 1
    assert submit(aws, settings()).id == "j0"
    assert len(service.jobs) == 1


def test_a_job_that_is_taken_and_not_listed_yet_is_taken(aws, service, monkeypatch):
    monkeypatch.setattr(batch, "jobs", lambda *about: [])
    assert submit(aws, settings()).id == "j0"
    assert len(service.jobs) == 1


def test_a_request_that_is_lost_is_sent_again(aws, service):
    service.refuse = 2
    assert submit(aws, settings()).id == "j0"
    assert len(service.jobs) == 1


def test_a_request_that_never_arrives_is_said(aws, service):
    service.refuse = 9
    with pytest.raises(Problem, match="has not taken a.b.3"):
        submit(aws, settings())


def test_a_run_with_more_gpus_than_the_type_has_is_refused(aws):
    with pytest.raises(Problem, match="g6.2xlarge has 1 GPUs, and fleet.gpus is 4"):
        batch.requirements(aws, settings("fleet.gpus=4"))


def test_retries_are_at_most_as_many_rules_as_batch_takes_and_end_with_one_for_all():
    assert len(batch.RETRIES) <= 5 and batch.RETRIES[-1] == {"onReason": "*", "action": "EXIT"}


def test_an_image_has_one_definition_until_something_in_it_changes(aws, service):
    run = settings()
    first = batch.define(aws, run, IMAGE, "0123456789abcdef")
    assert batch.define(aws, run, IMAGE, "0123456789abcdef") == first
    assert len(service.definitions) == 1
    assert batch.define(aws, settings("cloud.bucket=other"), IMAGE, "0123456789abcdef") != first


def test_no_secret_and_no_right_over_the_host_is_in_a_definition(aws):
    container = batch.definition(aws, settings(), IMAGE, "0123456789abcdef")["containerProperties"]
    names = {each["name"] for each in container["environment"]}
    assert names == {"BUCKET", "PREFIX", "HUB_SECRET", "HF_HOME", "AWS_DEFAULT_REGION"}
    assert container["readonlyRootFilesystem"] and not container["privileged"]
    assert container["jobRoleArn"] == "arn:aws:iam::123456789012:role/fine-tune-slm-job"
    assert container["command"] == ["carrier", "Ref::run", "Ref::config", "Ref::seconds", "Ref::limit", "Ref::attempts"]
