"""Jobs of Batch on the twin: placed on instances that are launched for them, run there by docker, retried, timed out and ended."""

import base64
import re
import time

import pytest

from twin import world

pytestmark = pytest.mark.slow
STAY = 'trap "echo told; exit 75" TERM; echo up; while sleep 0.2; do :; done'  # says that it got SIGTERM, and leaves
DEAF = 'trap "echo told" TERM; echo up; while sleep 0.2; do :; done'


def test_a_job_gets_an_instance_runs_with_its_roles_credentials_and_leaves_nothing(fleet, queue):
    job = fleet.ended(fleet.submit(queue, "env | sort; sleep 1; echo done"))
    assert (job["status"], job["statusReason"], job["container"]["exitCode"]) == ("SUCCEEDED", "Essential container in task exited", 0)
    lines = fleet.log(job)
    said = dict(line.partition("=")[::2] for line in lines[:-1])
    assert lines[-1] == "done" and said["AWS_BATCH_JOB_ID"] == job["jobId"] and said["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert said["AWS_BATCH_JQ_NAME"] == queue and said["AWS_EXECUTION_ENV"] == "AWS_ECS_EC2" and "AWS_ACCESS_KEY_ID" not in said
    assert job["container"]["logStreamName"] == f"fleet/default/{job['container']['taskArn'].rpartition('/')[2]}"
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    (instance,) = fleet.instances()
    assert {"Key": "of", "Value": "fleet"} in instance["Tags"] and instance["InstanceType"] == "g6.2xlarge"
    fleet.alone()
    (row,) = [one for one in world.costs(fleet.cloud.state)["rows"] if one["id"] == instance["InstanceId"]]
    assert row["until"] and row["seconds"] >= 60 and row["usd"] == pytest.approx(row["seconds"] * 0.9776 / 3600)


def test_the_container_acts_by_the_jobs_role_and_by_no_other(fleet, queue):
    name = "made-$AWS_BATCH_JOB_ID"
    script = f"""
    aws sts get-caller-identity --query Arn --output text
    echo x | aws s3 cp - "s3://things/{name}" && aws s3 ls s3://things/ || echo denied
    """
    job = fleet.ended(fleet.submit(queue, script, more={"environment": [{"name": "PATH", "value": f"{fleet.programs()}:/usr/bin:/bin"}]}))
    lines = fleet.log(job)
    assert lines[0] == f"arn:aws:sts::123456789012:assumed-role/job/{job['container']['taskArn'].rpartition('/')[2]}"
    assert "denied" in lines and any("s3:ListBucket" in line for line in lines), "\n".join(lines)  # which the instance's role may do
    assert fleet.cloud.s3.head_object(Bucket="things", Key=f"made-{job['jobId']}")


def test_a_role_that_ecs_cannot_assume_starts_nothing(fleet, queue):
    role = fleet.make_role("untrusting", "ec2.amazonaws.com")
    job = fleet.ended(fleet.submit(queue, "true", more={"jobRoleArn": role}))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    assert job["attempts"][0]["container"]["reason"].startswith(f"ECS was unable to assume the role '{role}'")


def test_an_image_that_is_gone_ends_the_attempt_before_it_starts(fleet, queue):
    gone = fleet.image.partition("@")[0] + ":never"
    rules = {"attempts": 2, "evaluateOnExit": [{"action": "RETRY", "onReason": "CannotPullContainerError*"}]}
    job = fleet.ended(fleet.submit(queue, "true", more={"image": gone}, retryStrategy=rules))
    assert (job["status"], job["statusReason"], len(job["attempts"])) == ("FAILED", "Task failed to start", 2)
    assert job["container"]["reason"].startswith("CannotPullContainerError: Error response from daemon: manifest for")
    assert "startedAt" not in job["attempts"][0] and "exitCode" not in job["container"]


def test_parameters_and_overrides_reach_the_container(fleet, queue):
    arn = fleet.definition(
        "true", more={"environment": [{"name": name, "value": "definition"} for name in ("A", "B")]}, parameters={"x": "old"}
    )
    override = {"command": ["echo $A $B $0 $1", "Ref::x", "Ref::none"], "environment": [{"name": "B", "value": "submission"}]}
    override["resourceRequirements"] = [{"type": "VCPU", "value": "2"}]
    id = fleet.batch.submit_job(jobName="a", jobQueue=queue, jobDefinition=arn, parameters={"x": "new"}, containerOverrides=override)[
        "jobId"
    ]
    job = fleet.ended(id)
    assert fleet.log(job) == ["definition submission new Ref::none"]
    assert {one["type"]: one["value"] for one in job["container"]["resourceRequirements"]} == {"VCPU": "2", "MEMORY": "1000"}


def test_a_job_is_retried_by_rule_and_each_attempt_is_kept(fleet, queue):
    rules = {"attempts": 5, "evaluateOnExit": [{"action": "RETRY", "onExitCode": "75"}, {"action": "EXIT", "onReason": "*"}]}
    job = fleet.ended(fleet.submit(queue, "[ $AWS_BATCH_JOB_ATTEMPT = 1 ] && exit 75; exit 3", retryStrategy=rules))
    assert [one["container"]["exitCode"] for one in job["attempts"]] == [75, 3]
    assert (job["status"], job["container"]["exitCode"]) == ("FAILED", 3)
    assert len({one["container"]["taskArn"] for one in job["attempts"]}) == 2


def test_an_attempt_that_takes_too_long_is_stopped_and_not_retried(fleet, queue):
    about = {"timeout": {"attemptDurationSeconds": 60}, "retryStrategy": {"attempts": 3}}
    id = fleet.submit(queue, STAY, **about)
    fleet.is_at(id, "RUNNING")
    fleet.until(lambda: fleet.lines(id) == ["up"])
    world.forward(fleet.cloud.state, 61)
    job = fleet.ended(id)
    assert (job["status"], job["statusReason"], len(job["attempts"])) == ("FAILED", "Job attempt duration exceeded timeout", 1)
    assert fleet.log(job) == ["up", "told"] and job["container"]["exitCode"] == 75


def test_terminated_and_cancelled_jobs_end_with_the_callers_reason(fleet, queue):
    own = {"image": fleet.image, "command": [DEAF], "name": "main", "stopTimeout": 2}
    own["resourceRequirements"] = [{"type": "VCPU", "value": "8"}, {"type": "MEMORY", "value": "1000"}]
    task = {"taskProperties": [{"containers": [own], "taskRoleArn": fleet.role}]}
    arn = fleet.batch.register_job_definition(jobDefinitionName="main", type="container", ecsProperties=task)["jobDefinitionArn"]
    first, second, third = (fleet.batch.submit_job(jobName="a", jobQueue=queue, jobDefinition=arn)["jobId"] for _ in range(3))
    fleet.is_at(first, "RUNNING")
    fleet.is_at(second, "RUNNING")  # maxvCpus 16 holds two
    fleet.batch.cancel_job(jobId=first, reason="too late")
    fleet.batch.cancel_job(jobId=third, reason="not now")
    waiting = fleet.job(third)
    assert (waiting["status"], waiting["statusReason"], waiting["isCancelled"]) == ("FAILED", "not now", True)
    for id in (first, second):
        fleet.batch.terminate_job(jobId=id, reason="enough")
        job = fleet.ended(id)
        assert (job["status"], job["statusReason"], job["isTerminated"], job["isCancelled"]) == ("FAILED", "enough", True, False)
        (container,) = job["ecsProperties"]["taskProperties"][0]["containers"]
        assert container["exitCode"] == 137  # it would not leave in its two seconds
        assert re.fullmatch(r"main/main/[0-9a-f]{32}", container["logStreamName"])


def test_the_ceiling_holds_and_the_next_job_takes_the_same_instance(fleet):
    fleet.alone()
    queue = fleet.queue(fleet.environment(maxvCpus=8))
    ids = [fleet.submit(queue, "sleep 1", vcpus=8) for _ in range(2)]
    fleet.is_at(ids[0], "RUNNING", "SUCCEEDED")
    jobs = [fleet.ended(id) for id in ids]
    assert jobs[1]["startedAt"] >= jobs[0]["stoppedAt"]
    assert len({job["container"]["containerInstanceArn"] for job in jobs}) == 1 and len(fleet.instances("running")) == 1


def spot_queue(fleet, spot_data, draining: str) -> str:
    data = {"UserData": base64.b64encode(spot_data.format(draining).encode()).decode(), "MetadataOptions": {"HttpTokens": "required"}}
    name = f"spot-{draining}-{time.time_ns()}"
    fleet.cloud.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    return fleet.queue(fleet.environment("SPOT", maxvCpus=8, launchTemplate={"launchTemplateName": name, "version": "$Latest"}))


def test_a_spot_interruption_ends_the_attempt_and_the_next_one_is_elsewhere(fleet, spot_data):
    fleet.alone()
    rules = {"attempts": 3, "evaluateOnExit": [{"action": "RETRY", "onStatusReason": "Host EC2*"}, {"action": "EXIT", "onReason": "*"}]}
    script = f"[ $AWS_BATCH_JOB_ATTEMPT = 2 ] && exit 0; {DEAF}"
    id = fleet.submit(spot_queue(fleet, spot_data, "false"), script, retryStrategy=rules)
    fleet.is_at(id, "RUNNING")
    instance = fleet.host(fleet.job(id))
    assert fleet.instances("running")[0]["InstanceLifecycle"] == "spot"
    world.fault(fleet.cloud.state, "spot-notice", instance=instance, seconds=1)
    job = fleet.ended(id)
    assert (
        job["attempts"][0]["statusReason"] == f"Host EC2 (instance {instance}) terminated."
        and "exitCode" not in job["attempts"][0]["container"]
    )
    assert (job["status"], len(job["attempts"])) == ("SUCCEEDED", 2)
    assert job["attempts"][1]["container"]["containerInstanceArn"] != job["attempts"][0]["container"]["containerInstanceArn"]


def test_a_notice_reaches_the_container_only_where_draining_is_on(fleet, spot_data):
    fleet.alone()
    id = fleet.submit(spot_queue(fleet, spot_data, "true"), STAY, retryStrategy={"attempts": 2})
    fleet.until(lambda: fleet.lines(id) == ["up"])
    instance = fleet.host(fleet.job(id))
    world.fault(fleet.cloud.state, "spot-notice", instance=instance)
    job = fleet.until(lambda: (job := fleet.job(id)).get("attempts") and job)
    assert (job["attempts"][0]["container"]["exitCode"], job["attempts"][0]["statusReason"]) == (75, "Essential container in task exited")
    time.sleep(1)  # nothing new is placed there, and the environment has no room for another
    assert fleet.job(id)["status"] == "RUNNABLE"
    world.forward(fleet.cloud.state, 121)
    fleet.is_at(id, "RUNNING")
    assert fleet.host(job) != instance
    fleet.batch.terminate_job(jobId=id, reason="enough")
    assert fleet.ended(id)["statusReason"] == "enough"


def test_a_container_that_draining_has_to_kill_ends_as_with_its_host(fleet, spot_data):
    fleet.alone()
    needs = [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "1000"}]
    own = {"image": fleet.image, "command": [DEAF], "stopTimeout": 2, "resourceRequirements": needs}
    task = {"taskProperties": [{"containers": [own]}]}
    fleet.batch.register_job_definition(jobDefinitionName="deaf", type="container", ecsProperties=task)
    id = fleet.batch.submit_job(jobName="a", jobQueue=spot_queue(fleet, spot_data, "true"), jobDefinition="deaf")["jobId"]
    fleet.is_at(id, "RUNNING")
    instance = fleet.host(fleet.job(id))
    world.fault(fleet.cloud.state, "spot-notice", instance=instance)
    job = fleet.ended(id)
    assert (job["status"], job["statusReason"]) == ("FAILED", f"Host EC2 (instance {instance}) terminated.")


def test_capacity_that_is_refused_once_is_asked_for_again(fleet):
    fleet.alone()
    world.fault(fleet.cloud.state, "capacity", only="ec2.RunInstances")
    id = fleet.submit(fleet.queue(fleet.environment()), "true")
    assert fleet.ended(id)["status"] == "SUCCEEDED"
    world.clear_faults(fleet.cloud.state)
    launches = [line for line in fleet.cloud.journal().splitlines() if '"by": "AWSBATCH"' in line and '"RunInstances"' in line]
    assert [re.search(r'"status": (\d+)', line)[1] for line in launches[-2:]] == ["500", "200"]


def test_a_job_goes_to_the_next_environment_of_its_queue_where_the_first_gets_no_instance(fleet):
    fleet.alone()
    world.fault(fleet.cloud.state, "quota", code="L-3819A6DF", value=0)
    id = fleet.submit(fleet.queue(fleet.environment("SPOT"), fleet.environment("EC2")), "true")
    job = fleet.until(lambda: (job := fleet.job(id))["status"] == "SUCCEEDED" and job)
    world.fault(fleet.cloud.state, "quota", code="L-3819A6DF", value=1024)
    assert [one.get("InstanceLifecycle") for one in fleet.instances("running")] == [None] and len(job["attempts"]) == 1


def test_a_job_that_finds_no_capacity_is_cancelled_after_its_time(fleet):
    fleet.alone()
    reason = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"
    limit = {"reason": reason, "state": "RUNNABLE", "maxTimeSeconds": 600, "action": "CANCEL"}
    world.fault(fleet.cloud.state, "batch-capacity-never")
    id = fleet.submit(fleet.queue(fleet.environment(), jobStateTimeLimitActions=[limit]), "true")
    stuck = fleet.until(lambda: (job := fleet.job(id)).get("statusReason") and job)
    assert stuck["statusReason"] == f"{reason} - Service cannot fulfill the capacity requested for instance type [g6.2xlarge]"
    assert stuck["status"] == "RUNNABLE"
    world.forward(fleet.cloud.state, 601)
    job = fleet.ended(id)
    world.clear_faults(fleet.cloud.state)
    assert (job["status"], job["statusReason"]) == ("FAILED", f"Canceled by JobStateTimeLimit action due to reason: {reason}")
    assert fleet.instances("running") == []


def test_a_job_that_fits_nowhere_says_so(fleet):
    queue = fleet.queue(fleet.environment(maxvCpus=8))
    for about, reason in (({"vcpus": 16}, "COMPUTE_ENVIRONMENT_MAX_RESOURCE"), ({"memory": 99_000}, "JOB_RESOURCE_REQUIREMENT")):
        id = fleet.submit(queue, "true", **about)
        job = fleet.until(lambda id=id: (job := fleet.job(id)).get("statusReason") and job)
        assert job["status"] == "RUNNABLE" and job["statusReason"].startswith(f"MISCONFIGURATION:{reason} - ")
        fleet.batch.cancel_job(jobId=id, reason="it cannot")
        assert fleet.ended(id)["statusReason"] == "it cannot"


def test_a_submission_whose_answer_is_lost_is_there_nevertheless(fleet, queue):
    world.fault(fleet.cloud.state, "batch-submit-lost")
    patient = world.client(fleet.cloud.state, "batch", retries={"total_max_attempts": 2})  # which sends it again
    patient.submit_job(jobName="lost", jobQueue=queue, jobDefinition=fleet.definition("true"))
    filters = [{"name": "JOB_NAME", "values": ["lost"]}]
    jobs = fleet.batch.list_jobs(jobQueue=queue, filters=filters)["jobSummaryList"]
    assert len(jobs) == 2
    assert {fleet.ended(job["jobId"])["status"] for job in jobs} == {"SUCCEEDED"}


def test_jobs_are_listed_by_status_or_by_one_filter(fleet, queue):
    id = fleet.submit(queue, STAY)
    fleet.is_at(id, "RUNNING")
    assert [one["jobId"] for one in fleet.batch.list_jobs(jobQueue=queue)["jobSummaryList"]] == [id]
    assert id not in [one["jobId"] for one in fleet.batch.list_jobs(jobQueue=queue, jobStatus="SUCCEEDED")["jobSummaryList"]]
    after = [{"name": "AFTER_CREATED_AT", "values": [str(fleet.job(id)["createdAt"] - 1)]}]
    assert [one["jobId"] for one in fleet.batch.list_jobs(jobQueue=queue, filters=after)["jobSummaryList"]] == [id]
    fleet.batch.terminate_job(jobId=id, reason="enough")
    assert fleet.ended(id)["statusReason"] == "enough"
    (shown,) = fleet.batch.list_jobs(jobQueue=queue, filters=after)["jobSummaryList"]
    assert (shown["status"], shown["statusReason"]) == ("FAILED", "enough")
