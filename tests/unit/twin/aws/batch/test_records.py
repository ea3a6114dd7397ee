"""What Batch keeps and refuses, without a job that runs: environments, queues, definitions, tags and rules of retrying."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from twin import world
from twin.aws.batch import containers, retries
from twin.aws.batch.definitions import Definition
from twin.aws.batch.hosts import settings
from twin.aws.batch.jobs import Job
from twin.aws.ec2 import instances
from twin.aws.iam.keys import LAPTOP, is_box

HERE = Path(__file__).parent
SPOT_END = {"action": "RETRY", "onStatusReason": "Host EC2*"}


@pytest.mark.parametrize(
    ("rules", "status_reason", "reason", "code", "retried"),
    [
        ([], "Essential container in task exited", "", 1, True),
        ([SPOT_END, {"action": "EXIT", "onReason": "*"}], "Host EC2 (instance i-1) terminated.", "", None, True),
        ([SPOT_END, {"action": "EXIT", "onReason": "*"}], "Essential container in task exited", "", 1, False),
        ([{"action": "RETRY", "onExitCode": "75"}, {"action": "EXIT", "onExitCode": "*"}], "x", "", 75, True),
        ([{"action": "RETRY", "onExitCode": "75"}, {"action": "EXIT", "onExitCode": "*"}], "x", "", 7, False),
        ([{"action": "EXIT", "onExitCode": "7*"}], "x", "", 75, False),
        ([{"action": "EXIT", "onExitCode": "1", "onReason": "Out*"}], "x", "", 1, True),  # both must hold; none fits, so it is retried
        ([{"action": "exit", "onReason": "CannotPull*"}], "Task failed to start", "CannotPullContainerError: gone", None, False),
    ],
)
def test_the_first_rule_that_fits_decides_and_without_one_a_job_is_retried(rules, status_reason, reason, code, retried):
    assert retries.again(rules, status_reason, reason, code) is retried


def test_settings_of_the_ecs_agent_are_read_in_user_data_and_paths_of_a_container_are_the_boxs(spot_data):
    assert settings(spot_data.format("true").encode()) == {"ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true"}
    assert settings(b"") == {}
    places = {"/var/cache/x": "/box/var/cache/x"}
    assert [containers.moved(word, places) for word in ("/var/cache/x/hub", "/var/cache/xyz", "plain")] == [
        "/box/var/cache/x/hub",
        "/var/cache/xyz",
        "plain",
    ]


def test_cloud_init_runs_a_script_or_those_of_an_archive(spot_data):
    (script,) = instances.scripts(spot_data.format("true").encode())
    assert script == b"#!/bin/bash\necho ECS_ENABLE_SPOT_INSTANCE_DRAINING=true >> /etc/ecs/ecs.config"
    assert instances.scripts(script) == [script]
    assert instances.scripts(b"#cloud-config\n") == instances.scripts(b"") == []


def test_a_container_of_a_task_counts_as_a_box():
    assert is_box("i-1") and is_box(f"arn:aws:sts::123456789012:assumed-role/job/{'a' * 32}")
    assert not is_box("arn:aws:sts::123456789012:assumed-role/admin/me") and not is_box(LAPTOP)


def refusal(call, **request) -> str:
    with pytest.raises(ClientError) as error:
        call(**request)
    return error.value.response["Error"]["Message"]


def test_an_environment_is_invalid_with_its_reason(fleet):
    def reason(**resources) -> str:
        name = fleet.environment(**resources)
        (found,) = fleet.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"]
        return f"{found['status']} {found['statusReason']}"

    assert reason() == "VALID ComputeEnvironment Healthy"
    assert reason(subnets=["subnet-12345678"]) == "INVALID CLIENT_ERROR - The subnet ID 'subnet-12345678' does not exist"
    assert reason(securityGroupIds=["sg-12345678"]) == "INVALID CLIENT_ERROR - The security group 'sg-12345678' does not exist"
    assert reason(instanceRole="nobody") == "INVALID CLIENT_ERROR - Invalid IAM Instance Profile: nobody"
    assert "INVALID CLIENT_ERROR - You must use a valid fully-formed launch template" in reason(
        launchTemplate={"launchTemplateName": "none"}
    )


def test_the_first_environment_makes_batch_s_own_role_and_a_role_is_made_once(fleet):
    fleet.environment()
    iam = fleet.cloud.iam
    assert iam.get_role(RoleName="AWSServiceRoleForBatch")["Role"]["Path"] == "/aws-service-role/batch.amazonaws.com/"
    with pytest.raises(ClientError, match="AWSServiceRoleForBatch has been taken"):
        iam.create_service_linked_role(AWSServiceName="batch.amazonaws.com")
    iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    assert iam.get_role(RoleName="AWSServiceRoleForEC2Spot")["Role"]["Path"] == "/aws-service-role/spot.amazonaws.com/"
    with pytest.raises(ClientError, match="AWSServiceRoleForEC2Spot has been taken"):
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")


def test_an_environment_goes_after_its_queue_and_both_after_they_were_disabled(fleet, until):
    place = fleet.environment()
    queue = fleet.queue(place)
    assert "existing JobQueue relationship" in refusal(fleet.batch.delete_compute_environment, computeEnvironment=place)
    assert "disabled" in refusal(fleet.batch.delete_job_queue, jobQueue=queue)
    fleet.batch.update_job_queue(jobQueue=queue, state="DISABLED")
    assert "not enabled" in refusal(fleet.batch.submit_job, jobName="a", jobQueue=queue, jobDefinition=fleet.definition("true"))
    until(lambda: fleet.batch.describe_job_queues(jobQueues=[queue])["jobQueues"][0]["status"] == "VALID")
    fleet.batch.delete_job_queue(jobQueue=queue)
    until(lambda: not fleet.batch.describe_job_queues(jobQueues=[queue])["jobQueues"])
    assert "disabled" in refusal(fleet.batch.delete_compute_environment, computeEnvironment=place)
    fleet.batch.update_compute_environment(computeEnvironment=place, state="DISABLED")
    until(lambda: fleet.status(place) == "VALID")
    fleet.batch.delete_compute_environment(computeEnvironment=place)
    until(lambda: not fleet.batch.describe_compute_environments(computeEnvironments=[place])["computeEnvironments"])


def test_a_definition_has_revisions_and_one_that_was_deregistered_takes_no_job(fleet):
    own = {"image": "busybox", "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "10"}]}
    register = {"jobDefinitionName": "twice", "type": "container", "containerProperties": own}
    first, second = (fleet.batch.register_job_definition(**register, tags={"n": str(n)}) for n in (1, 2))
    assert (first["revision"], second["jobDefinitionArn"][-8:]) == (1, "/twice:2")
    fleet.batch.deregister_job_definition(jobDefinition="twice:2")
    shown = fleet.batch.describe_job_definitions(jobDefinitionName="twice")["jobDefinitions"]
    assert [(one["revision"], one["status"], one["tags"]) for one in shown] == [(1, "ACTIVE", {"n": "1"}), (2, "INACTIVE", {"n": "2"})]
    assert "not in ACTIVE state" in refusal(
        fleet.batch.submit_job, jobName="a", jobQueue=fleet.queue(fleet.environment()), jobDefinition="twice:2"
    )


def test_what_batch_refuses(fleet, queue):
    def registering(**change) -> str:
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "10"}]
        own = {"image": "busybox", "resourceRequirements": needs} | change.pop("own", {})
        return refusal(fleet.batch.register_job_definition, jobDefinitionName="no", type="container", containerProperties=own, **change)

    assert "cannot start with AWS_BATCH" in registering(own={"environment": [{"name": "AWS_BATCH_X", "value": "1"}]})
    assert "VCPU is required" in registering(own={"resourceRequirements": []})
    assert "at least 60 seconds" in registering(timeout={"attemptDurationSeconds": 59})
    assert "between 1 and 10" in registering(retryStrategy={"attempts": 11})
    assert "attempts must be specified" in registering(retryStrategy={"evaluateOnExit": [{"action": "EXIT", "onReason": "*"}]})
    arn = fleet.definition("true")
    assert "Job name should match" in refusal(fleet.batch.submit_job, jobName="a.b", jobQueue=queue, jobDefinition=arn)
    assert "does not exist" in refusal(fleet.batch.submit_job, jobName="a", jobQueue="nowhere", jobDefinition=arn)
    limit = {"reason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", "state": "RUNNABLE", "maxTimeSeconds": 599, "action": "CANCEL"}
    order = [{"order": 1, "computeEnvironment": fleet.environment()}]
    asked = {"jobQueueName": "no", "priority": 1, "computeEnvironmentOrder": order, "jobStateTimeLimitActions": [limit]}
    assert "from 600 to 86400" in refusal(fleet.batch.create_job_queue, **asked)
    assert "does not know CreateSchedulingPolicy" in refusal(fleet.batch.create_scheduling_policy, name="fair")


def test_tags_are_put_shown_and_taken_away(fleet):
    arn = fleet.definition("true", tags={"first": "1"})
    fleet.batch.tag_resource(resourceArn=arn, tags={"second": "2"})
    assert fleet.batch.list_tags_for_resource(resourceArn=arn)["tags"] == {"first": "1", "second": "2"}
    fleet.batch.untag_resource(resourceArn=arn, tagKeys=["first"])
    assert fleet.batch.list_tags_for_resource(resourceArn=arn)["tags"] == {"second": "2"}


def test_iam_decides_by_queue_definition_role_image_and_tag(fleet, queue):
    """A user who may register and submit what is his own, and end the jobs that bear his tag."""
    own = "arn:aws:batch:us-east-1:123456789012"
    statements = [
        {"Action": "batch:SubmitJob", "Resource": [f"{own}:job-queue/{queue}", f"{own}:job-definition/mine*"]},
        {"Action": ["batch:TagResource", "batch:Describe*"], "Resource": "*"},
        {
            "Action": "batch:RegisterJobDefinition",
            "Resource": f"{own}:job-definition/mine*",
            "Condition": {"StringLike": {"batch:Image": "good*"}},
        },
        {
            "Action": "iam:PassRole",
            "Resource": fleet.role,
            "Condition": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        },
        {"Action": "batch:TerminateJob", "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/of": "me"}}},
    ]
    world.enforce(fleet.cloud.state, [{"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | one for one in statements]}])
    laptop = world.client(fleet.cloud.state, "batch", LAPTOP, retries={"total_max_attempts": 1})
    needs = [{"type": "VCPU", "value": "100"}, {"type": "MEMORY", "value": "10"}]  # no job of it ever runs

    def register(name: str, image: str = "good", role: str = fleet.role):
        properties = {"image": image, "resourceRequirements": needs, "jobRoleArn": role}
        return laptop.register_job_definition(jobDefinitionName=name, type="container", containerProperties=properties)

    def submit(definition: str, place: str = queue, **more) -> dict:
        return laptop.submit_job(jobName="a", jobQueue=place, jobDefinition=definition, **more)

    try:
        register("mine")
        for wrong in (
            {"name": "yours"},
            {"name": "mine", "image": "bad"},
            {"name": "mine", "role": "arn:aws:iam::123456789012:role/other"},
        ):
            assert "is not authorized to perform" in refusal(register, **wrong)
        mine, other = submit("mine", tags={"of": "me"})["jobId"], submit("mine")["jobId"]
        assert "job-definition/yours" in refusal(submit, definition="yours")
        assert "job-queue/other" in refusal(submit, definition="mine", place="other")
        laptop.terminate_job(jobId=mine, reason="enough")
        assert "batch:TerminateJob" in refusal(laptop.terminate_job, jobId=other, reason="enough")
    finally:
        world.enforce(fleet.cloud.state, None)
    fleet.batch.terminate_job(jobId=other, reason="enough")
    assert fleet.job(mine)["statusReason"] == "enough" and fleet.job(mine)["isTerminated"]


def test_every_rule_of_the_page_has_its_test():
    page = (Path(world.__file__).parent / "aws/batch/BATCH.md").read_text(encoding="utf-8")
    named = {word for line in page.splitlines() if line.startswith("| ") for word in line.split("`") if word.startswith("test_")}
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    assert len(named) > 15 and [one for one in named if f"def {one}(" not in tests] == []


def test_a_mounted_folder_is_one_of_the_box_and_what_the_job_says_of_it_names_that_folder():
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}, {"type": "GPU", "value": "1"}]
    own = {"image": "i", "command": ["Ref::word"], "resourceRequirements": needs, "user": "0:0", "readonlyRootFilesystem": True}
    own |= {"volumes": [{"name": "cache", "host": {"sourcePath": "/var/cache/x"}}]}
    own |= {"mountPoints": [{"sourceVolume": "cache", "containerPath": "/cache", "readOnly": True}]}
    own |= {
        "environment": [{"name": "HF_HOME", "value": "/cache/hub"}],
        "linuxParameters": {"tmpfs": [{"containerPath": "/tmp", "size": 1, "mountOptions": ["rw", "exec"]}]},
    }
    definition = Definition("d", "arn:d:1", 1, {"containerProperties": own})
    job = Job("j", "arn:j", "arn:queue/q", definition, {"parameters": {"word": "go"}}, 0.0)

    def run(root: str) -> tuple[str, dict[str, str]]:
        of_box = {"BOX_ROOT": root, "AWS_CONFIG_FILE": "/tmp/world/none", "PATH": "/usr/bin"}
        variables = containers.environment(job, 2, "place", of_box, "us-east-1")
        return " ".join(containers.words(job, "name", variables, root, 30)), variables

    words, variables = run("/box")
    assert "--volume /box/var/cache/x:/box/var/cache/x:ro" in words and "--tmpfs /box/tmp:size=1m,rw,exec " in words
    assert variables["HF_HOME"] == "/box/var/cache/x/hub" and variables["AWS_CONFIG_FILE"] == "/tmp/world/none"
    assert variables["AWS_BATCH_JOB_ATTEMPT"] == "2" and "PATH" not in variables
    assert "--gpus all" in words and "--read-only" in words and words.endswith(" i go")
    words, variables = run("")  # a box that has a root of its own
    assert "--volume /var/cache/x:/cache:ro" in words and variables["HF_HOME"] == "/cache/hub"
