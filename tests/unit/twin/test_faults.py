"""Every fault shows where a client or a script meets it."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, HTTPClientError

from twin import world
from twin.aws.iam.keys import LAPTOP
from twin.box import processes
from twin.box.machine import prerequisites

LOST = (ConnectionClosedError, HTTPClientError)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, account, another):
    state = tmp_path_factory.mktemp("a hard world")
    world.start(state, {}, account)
    made = another(state)
    for service in ("ec2", "ssm", "s3", "sts", "ecr"):  # without the retries that would hide what is tested here
        made.clients[service] = world.client(state, service, LAPTOP, retries={"total_max_attempts": 1}, read_timeout=60)
    world.fault(state, "unseen", count=0)  # as for a client that tries again
    yield made
    world.stop(state)


@pytest.fixture(autouse=True)
def healed(cloud):
    yield
    world.clear_faults(cloud.state)


@pytest.fixture(scope="module")
def box(cloud):
    return cloud.box()


@pytest.fixture
def machine(cloud):
    """A box that the fault may ruin."""
    made = cloud.box()
    yield made
    cloud.ec2.terminate_instances(InstanceIds=[made.instance])


def strike(cloud, name: str, **options) -> None:
    box = options.pop("box", None)
    world.fault(cloud.state, name, **options | ({"instance": box.instance} if box else {}))


def struck(cloud) -> int:
    return sum(one["struck"] for one in world.faults(cloud.state)["armed"])


def refused(call, **arguments) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


# At AWS's front door


def test_throttle_strikes_as_often_as_it_is_told_and_after_as_many(cloud):
    strike(cloud, "throttle", only="ssm.DescribeInstanceInformation", after=1, count=2)
    answers = []
    for _ in range(4):
        try:
            cloud.ssm.describe_instance_information()
            answers.append("ok")
        except ClientError as error:
            answers.append(error.response["Error"]["Code"])
    assert answers == ["ok", "ThrottlingException", "ThrottlingException", "ok"]


def test_throttle_speaks_each_services_language(cloud):
    strike(cloud, "throttle", count=0)
    assert refused(cloud.ec2.describe_instances) == ("RequestLimitExceeded", 503)
    assert refused(cloud.s3.list_objects_v2, Bucket="things") == ("SlowDown", 503)
    assert refused(cloud.sts.get_caller_identity) == ("ThrottlingException", 400)


def test_a_seed_strikes_the_same_calls_each_time(cloud):
    def pattern(seed: int) -> list[bool]:
        world.clear_faults(cloud.state)
        strike(cloud, "throttle", only="sts.*", seed=seed, share=0.5, count=0)
        strikes = []
        for _ in range(12):
            before = struck(cloud)
            try:
                cloud.sts.get_caller_identity()
            except ClientError:
                assert struck(cloud) == before + 1
            strikes.append(struck(cloud) > before)
        return strikes

    assert pattern(7) == pattern(7) != pattern(8)
    assert 1 < sum(pattern(7)) < 11


def test_server_error_and_access_denied(cloud):
    strike(cloud, "server-error", only="ssm.*")
    assert refused(cloud.ssm.list_commands) == ("InternalError", 500)
    strike(cloud, "access-denied", only="ec2.*")
    assert refused(cloud.ec2.describe_volumes) == ("UnauthorizedOperation", 403)


def test_expired_credentials_of_the_laptop_leave_the_box_alone(cloud, box):
    strike(cloud, "credentials-expired", count=0)
    assert refused(cloud.s3.list_buckets)[0] == "ExpiredToken"
    assert refused(cloud.ec2.describe_instances)[0] == "RequestExpired"
    assert refused(cloud.ssm.list_commands)[0] == "ExpiredTokenException"
    world.clear_faults(cloud.state)
    strike(cloud, "credentials-expired", count=0, by="box")
    cloud.s3.list_buckets()
    assert "ExpiredToken" in box.run("aws s3 ls")["StandardErrorContent"]


def test_a_lost_request_is_not_done_and_a_lost_answer_is(cloud, box):
    send = {"InstanceIds": [box.instance], "DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
    for name, comment, sent in (("request-lost", "never", 0), ("answer-lost", "once", 1)):
        strike(cloud, name, only="ssm.SendCommand")
        with pytest.raises(LOST):
            cloud.ssm.send_command(**send, Comment=comment)
        time.sleep(0.4)
        assert [one["Comment"] for one in cloud.ssm.list_commands()["Commands"]].count(comment) == sent


def test_slow_calls_take_longer(cloud):
    strike(cloud, "slow", only="sts.*", seconds=1)
    begun = time.monotonic()
    cloud.sts.get_caller_identity()
    assert time.monotonic() - begun > 1


def test_no_capacity_names_the_other_zones(cloud):
    strike(cloud, "capacity", zones="us-east-1a", count=0)
    with pytest.raises(ClientError, match="us-east-1b") as caught:
        cloud.launch()
    assert caught.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    elsewhere = cloud.launch(Placement={"AvailabilityZone": "us-east-1b"})
    cloud.ec2.terminate_instances(InstanceIds=[elsewhere])


def test_a_job_of_batch_is_there_though_its_submission_had_no_answer_and_finds_no_capacity(cloud, until):
    """Everybody else gets an instance meanwhile."""
    subnet, batch = cloud.ec2.describe_subnets()["Subnets"][0]["SubnetId"], cloud.batch
    resources = {"type": "EC2", "maxvCpus": 8, "instanceTypes": ["g6.2xlarge"], "subnets": [subnet], "instanceRole": "box"}
    group = cloud.ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    resources["securityGroupIds"] = [group]
    batch.create_compute_environment(computeEnvironmentName="struck", type="MANAGED", computeResources=resources)
    until(lambda: batch.describe_compute_environments()["computeEnvironments"][0]["status"] == "VALID")
    batch.create_job_queue(jobQueueName="struck", priority=1, computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "struck"}])
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "10"}]
    own = {"image": "busybox", "resourceRequirements": needs}
    batch.register_job_definition(jobDefinitionName="struck", type="container", containerProperties=own)
    until(lambda: batch.describe_job_queues()["jobQueues"][0]["status"] == "VALID")
    strike(cloud, "batch-capacity-never")
    strike(cloud, "batch-submit-lost")
    once = world.client(cloud.state, "batch", retries={"total_max_attempts": 1})
    with pytest.raises(BotoCoreError):
        once.submit_job(jobName="lost", jobQueue="struck", jobDefinition="struck")
    (job,) = batch.list_jobs(jobQueue="struck", jobStatus="RUNNABLE")["jobSummaryList"]
    stuck = until(lambda: (job_now := batch.describe_jobs(jobs=[job["jobId"]])["jobs"][0]).get("statusReason") and job_now)
    assert stuck["statusReason"].startswith("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY")
    assert cloud.instance_state(cloud.launch()) in ("pending", "running")
    batch.cancel_job(jobId=job["jobId"], reason="seen")


def test_a_stopped_box_may_find_no_capacity_at_its_start(cloud, machine, until):
    cloud.ec2.stop_instances(InstanceIds=[machine.instance])
    until(lambda: cloud.instance_state(machine.instance) == "stopped")
    strike(cloud, "capacity")
    assert refused(cloud.ec2.start_instances, InstanceIds=[machine.instance]) == ("InsufficientInstanceCapacity", 500)
    cloud.ec2.start_instances(InstanceIds=[machine.instance])


def test_quota(cloud):
    strike(cloud, "quota", value=0)
    assert refused(cloud.launch)[0] == "VcpuLimitExceeded"
    strike(cloud, "quota", value=1024)


def test_an_account_on_the_free_plan_launches_only_what_is_free(cloud):
    strike(cloud, "free-plan")
    assert cloud.freetier.get_account_plan_state()["accountPlanType"] == "FREE"
    assert refused(cloud.launch)[0] == "InvalidParameterCombination"
    cloud.ec2.terminate_instances(InstanceIds=[cloud.launch(InstanceType="t3.micro")])
    cloud.freetier.upgrade_account_plan(accountPlanType="PAID")
    cloud.ec2.terminate_instances(InstanceIds=[cloud.launch()])


def test_a_new_profile_is_not_known_at_once(cloud):
    strike(cloud, "role-late", seconds=3600)
    cloud.iam.create_instance_profile(InstanceProfileName="newborn")
    cloud.iam.add_role_to_instance_profile(InstanceProfileName="newborn", RoleName="box")
    assert refused(cloud.launch, IamInstanceProfile={"Name": "newborn"})[0] == "InvalidParameterValue"
    trust = {"Effect": "Allow", "Principal": {"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole"}
    cloud.iam.create_role(RoleName="newborn", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))
    role = {"RoleArn": "arn:aws:iam::123456789012:role/newborn", "Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances", "Input": "{}"}
    schedule = {"ScheduleExpression": cloud.at(3600), "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": role}
    assert refused(cloud.scheduler.create_schedule, Name="newborn", **schedule)[0] == "ValidationException"
    strike(cloud, "role-late", seconds=0)
    cloud.scheduler.create_schedule(Name="newborn", **schedule)
    cloud.ec2.terminate_instances(InstanceIds=[cloud.launch(IamInstanceProfile={"Name": "newborn"})])


def test_a_new_instance_is_not_known_at_once(cloud, box):
    strike(cloud, "instance-lag")
    assert refused(cloud.ec2.describe_instances, InstanceIds=[box.instance])[0] == "InvalidInstanceID.NotFound"
    assert cloud.instance_state(box.instance) == "running"


def test_more_of_the_first_requests_deny_a_new_thing(cloud):
    strike(cloud, "unseen", count=2)
    made = cloud.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    strike(cloud, "unseen", count=0)
    for _ in range(2):
        assert refused(cloud.ec2.create_tags, Resources=[made], Tags=[{"Key": "a", "Value": "b"}])[0] == "InvalidVolume.NotFound"
    cloud.ec2.delete_volume(VolumeId=made)


def test_a_box_stays_pending_for_some_time_and_cannot_be_stopped_so_long(cloud, until):
    strike(cloud, "pending", seconds=1)
    instance = cloud.launch()
    strike(cloud, "pending", seconds=0)
    assert cloud.instance_state(instance) == "pending"
    assert refused(cloud.ec2.stop_instances, InstanceIds=[instance])[0] == "IncorrectInstanceState"
    until(lambda: cloud.instance_state(instance) == "running")
    cloud.ec2.terminate_instances(InstanceIds=[instance])


def test_lag_hides_a_new_command(cloud, box):
    strike(cloud, "lag", seconds=1.5)
    command = box.send("true")
    time.sleep(0.8)
    assert box.invocation(command) is None
    strike(cloud, "lag", seconds=0.3)
    assert box.ended(command)["Status"] == "Success"


# S3, the registry, the Hub


def test_a_cut_upload_leaves_no_object(cloud):
    strike(cloud, "s3-cut", key="/things/big")
    with pytest.raises(LOST):
        cloud.s3.put_object(Bucket="things", Key="big", Body=bytes(3_000_000))
    assert "Contents" not in cloud.s3.list_objects_v2(Bucket="things", Prefix="big")
    cloud.s3.put_object(Bucket="things", Key="big", Body=bytes(3_000_000))


def test_s3_slow_and_an_object_that_was_taken_and_is_not_there(cloud):
    strike(cloud, "s3-slow", seconds=1)
    begun = time.monotonic()
    cloud.s3.put_object(Bucket="things", Key="slow", Body=b"x")
    assert time.monotonic() - begun > 1
    strike(cloud, "object-lost", key="*/lost")
    cloud.s3.put_object(Bucket="things", Key="a/lost", Body=b"x")
    assert refused(cloud.s3.head_object, Bucket="things", Key="a/lost")[1] == 404


def test_manifest_missing(cloud):
    for name in ("runs/r/manifest.json", "runs/r/log.txt"):
        cloud.s3.put_object(Bucket="things", Key=name, Body=b"{}")
    strike(cloud, "manifest-missing")
    assert [one["Key"] for one in cloud.s3.list_objects_v2(Bucket="things", Prefix="runs/")["Contents"]] == ["runs/r/log.txt"]


def test_the_registry_forgets_who_logged_in_and_what_it_had(cloud, box):
    digest = world.register_image(cloud.state, "trainer", "v1", ["/bin/sh", "-c"], box.root, {})
    uri = cloud.ecr.describe_repositories(repositoryNames=["trainer"])["repositories"][0]["repositoryUri"]
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin '{uri.partition('/')[0]}'; "
    pull = f"docker pull --quiet {uri}@{digest}"
    assert box.run(login + pull)["Status"] == "Success"
    strike(cloud, "registry-token-expired")
    assert "no basic auth credentials" in box.run(pull)["StandardErrorContent"]
    strike(cloud, "image-gone")
    assert "manifest unknown" in box.run(login + pull)["StandardErrorContent"]
    assert cloud.ecr.describe_images(repositoryName="trainer")["imageDetails"] == []


def hub(cloud, path: str = "/api/whoami-v2", body: bytes | None = None) -> int:
    environment = world.environment(cloud.state)
    headers = {"Authorization": f"Bearer {environment['HF_TOKEN']}"}
    request = urllib.request.Request(environment["HF_ENDPOINT"] + path, body, headers, method="PUT" if body else "GET")
    try:
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_hub_fails_refuses_and_is_slow(cloud):
    strike(cloud, "hub-error")
    assert (hub(cloud), hub(cloud)) == (503, 200)
    strike(cloud, "hub-unauthorized")
    assert (hub(cloud), hub(cloud)) == (401, 200)
    strike(cloud, "hub-slow", seconds=1)
    begun = time.monotonic()
    assert hub(cloud) == 200 and time.monotonic() - begun > 1


def test_an_upload_to_the_hub_is_cut_in_the_middle(cloud):
    strike(cloud, "hub-cut")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        hub(cloud, "/lfs/anything", bytes(2_000_000))


def post(cloud) -> int:
    request = urllib.request.Request(json.loads((cloud.state / "state.json").read_text())["webhook"], b'{"text": "hello"}')
    try:
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_receiver_of_webhooks_fails_is_slow_and_is_gone(cloud):
    strike(cloud, "webhook-error")
    assert (post(cloud), post(cloud)) == (500, 200)
    strike(cloud, "webhook-slow", seconds=1)
    begun = time.monotonic()
    assert post(cloud) == 200 and time.monotonic() - begun > 1
    strike(cloud, "webhook-cut")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        post(cloud)
    assert [one["path"] for one in world.posts(cloud.state)] == ["/services/TOKEN"] * 2


# The agent and the box


def test_an_agent_that_dies_leaves_commands_delayed(cloud, machine, until):
    strike(cloud, "agent-dies", box=machine)
    command = machine.send("echo late")
    world.forward(cloud.state, 60)
    assert machine.status(command) == "Delayed"
    world.forward(cloud.state, 360)
    assert cloud.agents()[machine.instance]["PingStatus"] == "ConnectionLost"
    strike(cloud, "agent-restarts", box=machine)
    assert machine.ended(command)["StandardOutputContent"] == "late\n"


def test_an_agent_that_restarts_loses_no_command(cloud, machine, until):
    command = machine.send(machine.until_released("restarted"), "echo whole")
    until(lambda: machine.status(command) == "InProgress")
    strike(cloud, "agent-restarts", box=machine)
    machine.release("restarted")
    assert machine.ended(command)["StandardOutputContent"] == "whole\n"


def test_an_agent_that_hangs_answers_nothing(cloud, machine):
    strike(cloud, "agent-hangs", box=machine)
    command = machine.send("true")
    time.sleep(1)
    assert machine.status(command) == "Pending"


def test_an_agent_that_never_registers(cloud):
    strike(cloud, "agent-never-registers")
    instance = cloud.launch()
    time.sleep(1.5)
    assert instance not in cloud.agents() and cloud.instance_state(instance) == "running"
    cloud.ec2.terminate_instances(InstanceIds=[instance])


def test_an_agent_that_was_refused_asks_again_after_26_minutes_or_at_the_next_boot(cloud, until):
    strike(cloud, "agent-refused", count=2)
    sleeps, rebooted = cloud.launch(), cloud.launch()
    cloud.ec2.reboot_instances(InstanceIds=[rebooted])
    until(lambda: rebooted in cloud.agents())
    assert sleeps not in cloud.agents()
    world.forward(cloud.state, 26 * 60)
    until(lambda: sleeps in cloud.agents())
    cloud.ec2.terminate_instances(InstanceIds=[sleeps, rebooted])


@pytest.mark.parametrize(("name", "state"), [("box-stopped", "stopped"), ("box-terminated", "terminated")])
def test_somebody_stops_or_terminates_the_box(cloud, machine, until, name, state):
    strike(cloud, name, box=machine)
    until(lambda: cloud.instance_state(machine.instance) == state)
    assert '"by": "SOMEBODY"' in cloud.journal()


def test_the_box_reboots(cloud, machine, until):
    before = processes.of(machine.root)
    strike(cloud, "box-reboots", box=machine)
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in before))
    assert machine.run("echo again")["StandardOutputContent"] == "again\n"


def test_a_dead_box_costs_money_until_somebody_outside_stops_it(cloud, machine, until):
    strike(cloud, "box-dead", box=machine)
    assert processes.of(machine.root) == [] and cloud.instance_state(machine.instance) == "running"
    cloud.schedule("outside", cloud.at(3600), machine.instance)
    world.forward(cloud.state, 3700)
    until(lambda: cloud.instance_state(machine.instance) == "stopped")


def test_a_spot_box_is_warned_taken_and_given_back(cloud, until):
    market = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}}
    box = cloud.box(InstanceMarketOptions=market)
    strike(cloud, "spot-notice", box=box)
    world.forward(cloud.state, 121)
    until(lambda: cloud.instance_state(box.instance) == "stopped")
    strike(cloud, "spot-back", box=box)
    assert box.run("echo back")["StandardOutputContent"] == "back\n"
    cloud.ec2.terminate_instances(InstanceIds=[box.instance])
    with pytest.raises(world.WorldError, match="no spot instance"):
        strike(cloud, "spot-notice", instance="i-0123456789abcdef0")


def test_a_wrong_clock_makes_aws_refuse_what_the_box_signs(cloud, machine):
    strike(cloud, "clock-wrong", box=machine, seconds=7200)
    invocation = machine.run("date +%s; aws s3 ls")
    assert int(invocation["StandardOutputContent"].split()[0]) - time.time() > 7000
    assert "RequestTimeTooSkewed" in invocation["StandardErrorContent"]
    strike(cloud, "clock-skew", by="laptop")
    assert refused(cloud.s3.list_buckets) == ("RequestTimeTooSkewed", 403)


# Docker, the GPU and the disks


def test_docker_is_dead_or_slow_and_the_gpu_gone_until_the_next_boot(cloud, machine, until):
    strike(cloud, "docker-slow", box=machine, seconds=1)
    begun = time.monotonic()
    assert machine.shell("docker info").returncode == 0 and time.monotonic() - begun > 1
    strike(cloud, "docker-dead", box=machine)
    assert "Cannot connect to the Docker daemon" in machine.shell("docker ps").stderr
    strike(cloud, "gpu-missing", box=machine)
    assert machine.shell("nvidia-smi -L").returncode == 9
    cloud.ec2.reboot_instances(InstanceIds=[machine.instance])
    until(lambda: machine.shell("docker info && nvidia-smi -L").returncode == 0)


def test_without_a_gpu_no_container_starts_that_wants_one(cloud, machine):
    strike(cloud, "gpu-missing", box=machine)
    done = machine.shell("docker run --gpus all some/image")
    assert done.returncode == 125 and "could not select device driver" in done.stderr


def test_a_container_is_killed_and_docker_says_whether_for_memory(cloud, machine):
    digest = world.register_image(cloud.state, "trainer", "sleeper", ["/bin/sh", "-c"], machine.root, {})
    uri = cloud.ecr.describe_repositories(repositoryNames=["trainer"])["repositories"][0]["repositoryUri"]
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin '{uri.partition('/')[0]}'; "
    machine.run(login + f"docker run --detach --name victim {uri}@{digest} 'sleep 67.5'")
    strike(cloud, "container-killed", box=machine)
    machine.run(f"docker run --detach --name other {uri}@{digest} 'sleep 67.5'")
    strike(cloud, "container-oom", box=machine)
    for name, for_memory in (("victim", "false"), ("other", "true")):
        assert machine.shell(f"docker wait {name}").stdout == "137\n"
        assert machine.shell(f"docker inspect --format '{{{{json .State.OOMKilled}}}}' {name}").stdout == f"{for_memory}\n"


@pytest.fixture
def gpus(cloud, machine):
    """On a box with systemd: starts a container with these words and `--gpus all`, and says whether it can use the GPU."""
    digest = world.register_image(cloud.state, "trainer", "sleeper", ["/bin/sh", "-c"], machine.root, {})
    uri = cloud.ecr.describe_repositories(repositoryNames=["trainer"])["repositories"][0]["repositoryUri"]
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin '{uri.partition('/')[0]}'"
    assert machine.shell(login).returncode == 0

    def start(name: str, words: str = "") -> None:
        done = machine.shell(f"docker run --detach --name {name} --gpus all {words} {uri}@{digest} 'sleep 67.5'")
        assert done.returncode == 0, done.stderr

    start.uses = lambda name: machine.shell(f"docker exec {name} nvidia-smi -L")
    return start


def test_a_container_loses_the_gpu_and_the_next_has_it(cloud, machine, gpus):
    gpus("first")
    assert gpus.uses("first").stdout.startswith("GPU 0")
    strike(cloud, "gpu-lost", box=machine)
    lost = gpus.uses("first")
    assert (lost.returncode, lost.stderr) == (255, "Failed to initialize NVML: Unknown Error\n")
    assert machine.shell("nvidia-smi -L").returncode == 0
    gpus("second")
    assert gpus.uses("second").returncode == 0
    assert machine.shell("docker kill first && docker start first").returncode == 0
    assert gpus.uses("first").returncode == 0


UNIT = """[Service]
ExecStartPre=mkdir -p "{0}/run/things"
ExecStart="{0}/root/things.sh" "$$ %% \\" *"
Restart=always
RestartSec=0.1
"""


def test_a_box_with_systemd(cloud, until, request):
    """A reload takes the GPU from a container unless its devices were named; a unit is started at each boot."""
    strike(cloud, "systemd", on=True)
    machine = cloud.box()
    strike(cloud, "systemd", on=False)
    request.addfinalizer(lambda: cloud.ec2.terminate_instances(InstanceIds=[machine.instance]))
    unit = machine.root / "etc/systemd/system/things.service"
    unit.write_text(UNIT.format(machine.root))
    assert machine.shell("systemctl start --no-block docker.service").returncode == 0
    assert machine.shell("systemctl is-enabled --quiet things.service").returncode == 1
    assert machine.shell("systemctl enable things.service && systemctl is-enabled --quiet things.service").returncode == 0

    def needs() -> str:
        return machine.shell("systemctl show --property NeedDaemonReload --value things.service").stdout.strip()

    assert needs() == "no"
    unit.write_text(unit.read_text() + "\n")
    assert needs() == "yes"
    assert machine.shell("systemctl daemon-reload").returncode == 0 and needs() == "no"

    starts, program = machine.root / "root/things", machine.root / "root/things.sh"
    program.write_text(f'#!/bin/sh\necho $$ >>"{starts}"\necho "$1" >"{starts}.word"\nexec sleep 67.5\n')
    program.chmod(0o755)
    assert machine.shell("systemctl start things.service; systemctl start things.service").returncode == 0
    until(lambda: starts.exists() and len(starts.read_text().split()) == 1)
    assert starts.with_suffix(".word").read_text() == '$ % " *\n'
    machine.shell(f"kill -KILL {starts.read_text()}")
    until(lambda: len(starts.read_text().split()) == 2)
    strike(cloud, "systemd", on=True)
    cloud.ec2.reboot_instances(InstanceIds=[machine.instance])
    until(lambda: len(starts.read_text().split()) == 3)
    strike(cloud, "systemd", on=False)


def test_a_reload_takes_the_gpu_from_containers_whose_devices_were_not_named(cloud, machine, gpus):
    (machine.root / "run/systemd/system").mkdir(parents=True)
    gpus("hook")
    gpus("named", f"--device '{machine.root}/dev/nvidia0'")
    assert machine.shell("systemctl daemon-reload").returncode == 0
    assert [gpus.uses(name).returncode for name in ("hook", "named")] == [255, 0]


def test_without_systemd_there_is_no_systemctl(machine):
    done = machine.shell("systemctl daemon-reload")
    assert done.returncode == 1 and "System has not been booted with systemd" in done.stderr


def test_a_new_disk_is_cold_and_a_stopped_box_s_is_not(cloud, until):
    strike(cloud, "disk-cold", seconds=4)
    machine = cloud.box()
    assert machine.shell("timeout 0.5 docker info").returncode == machine.shell("timeout 0.5 nvidia-smi -L").returncode == 124
    assert machine.shell("docker info && nvidia-smi -L").returncode == 0
    cloud.ec2.terminate_instances(InstanceIds=[machine.instance])
    another = cloud.box()
    assert another.shell("timeout 2 docker info && timeout 2 nvidia-smi -L").returncode == 0
    cloud.ec2.terminate_instances(InstanceIds=[another.instance])


def test_root_full(cloud, machine):
    strike(cloud, "root-full", box=machine)
    done = machine.shell("docker build --tag some/image:1 - </dev/null")
    assert done.returncode != 0 and "no space left on device" in done.stderr


@pytest.fixture
def disk(machine):
    """A formatted and mounted volume: its box, device and mount point."""
    _, device = machine.attach_volume()
    mount = machine.root / "mnt/data"
    assert machine.shell(f"mkfs.ext4 -q '{device}' && mkdir -p '{mount}' && mount '{device}' '{mount}'").returncode == 0
    return machine, device, mount


def test_disk_full(cloud, disk):
    box, _, mount = disk
    free = f"df -Pk '{mount}' | awk 'NR == 2 {{ print $4 }}'"
    assert int(box.shell(free).stdout) > 0
    strike(cloud, "disk-full", box=box)
    assert int(box.shell(free).stdout) == 0


def test_mount_lost(cloud, disk):
    box, _, mount = disk
    (mount / "file").write_text("x")
    strike(cloud, "mount-lost", box=box)
    assert box.shell(f"mountpoint -q '{mount}'").returncode == 32 and list(mount.iterdir()) == []


def test_an_unreadable_disk_looks_blank_to_blkid_and_not_to_wipefs(cloud, disk):
    box, device, _ = disk
    strike(cloud, "disk-unreadable", box=box)
    assert box.shell(f"blkid -p -o value -s TYPE '{device}'").returncode == 2
    assert box.shell(f"wipefs -n '{device}'").returncode == 1


def test_a_late_device(cloud, machine, until):
    strike(cloud, "device-late", seconds=1.5)
    volume, device = machine.attach_volume()
    assert cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["State"] == "attached"
    assert not os.path.lexists(device)
    until(lambda: device.exists())


@pytest.mark.parametrize(("kind", "code"), [("xfs", 0), ("LVM2_member", 0), ("dos", 2)])
def test_a_foreign_filesystem_or_partition_table_on_a_new_volume(cloud, machine, kind, code):
    strike(cloud, "foreign-filesystem", kind=kind)
    _, device = machine.attach_volume()
    assert machine.shell(f"blkid -p -o value -s TYPE '{device}'").returncode == code
    assert kind in machine.shell(f"wipefs -n '{device}'").stdout
    assert machine.shell(f"mkdir '{machine.root}/mnt/m'; mount '{device}' '{machine.root}/mnt/m'").returncode == 32


def test_devices_swapped(cloud, machine, until):
    _, device = machine.attach_volume()
    assert device.readlink().name == "nvme2n1"
    strike(cloud, "devices-swapped", box=machine)
    cloud.ec2.reboot_instances(InstanceIds=[machine.instance])
    until(lambda: os.path.lexists(device) and device.readlink().name == "nvme1n1")
    assert machine.shell(f"readlink '{machine.root}/dev/nvme2n1'").stdout.strip().endswith("instance-store")


# The laptop

CALLS = """
import boto3, sys
s3 = boto3.client("s3")
for name in "abc":
    s3.list_buckets()
    s3.put_object(Bucket="things", Key="calls/" + sys.argv[1] + name, Body=b"x")
    print(name, flush=True)
"""


@pytest.mark.parametrize(("moment", "changed"), [("before", ["a"]), ("after", ["a", "b"])])
def test_the_laptop_is_killed_at_its_nth_call_that_changes_something(cloud, moment, changed):
    strike(cloud, "laptop-killed", after=1, moment=moment)
    run = [sys.executable, "-c", CALLS, moment]
    done = subprocess.run(run, env=cloud.environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == -9 and done.stdout == "a\n"
    keys = [one["Key"] for one in cloud.s3.list_objects_v2(Bucket="things", Prefix=f"calls/{moment}")["Contents"]]
    assert keys == [f"calls/{moment}{name}" for name in changed]
    assert psutil.pid_exists(world.status(cloud.state)["pid"])


def test_the_laptop_is_killed_at_its_first_read_when_any_call_counts(cloud):
    strike(cloud, "laptop-killed", calls="all")
    done = subprocess.run([sys.executable, "-c", CALLS, "read"], env=cloud.environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == -9 and done.stdout == ""


def test_mutations_are_the_calls_at_which_the_laptop_can_be_killed(cloud, box):
    before = len(world.mutations(cloud.state))
    cloud.s3.put_object(Bucket="things", Key="k", Body=b"x")
    cloud.s3.list_buckets()
    box.run("aws s3 ls; echo x | aws s3 cp --quiet - s3://things/from-the-box")
    assert world.mutations(cloud.state)[before:] == ["s3.PUT", "ssm.SendCommand"]


# The way in by SSH


def test_a_console_is_late(cloud, machine):
    strike(cloud, "console-late", seconds=100)
    assert not cloud.ec2.get_console_output(InstanceId=machine.instance).get("Output")
    world.forward(cloud.state, 101)
    assert "SSH HOST KEY" in cloud.ec2.get_console_output(InstanceId=machine.instance)["Output"]


def test_a_host_key_is_another(cloud, machine):
    before = (machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    strike(cloud, "host-key-changed", box=machine)
    assert (machine.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text() != before


@pytest.mark.skipif(not prerequisites.program("sshd"), reason="it needs Debian's openssh-server: apt-get install openssh-server")
def test_connections_by_ssh_are_cut(cloud):
    network = cloud.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = cloud.ec2.create_security_group(GroupName="open", Description="o", VpcId=network)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    box = cloud.box(SecurityGroupIds=[group])
    address = cloud.ec2.describe_instances(InstanceIds=[box.instance])["Reservations"][0]["Instances"][0]["PublicIpAddress"]
    config = (cloud.state / "ssh_config").read_text().partition(f"Host {address}\n")[2]
    with socket.create_connection(("127.0.0.1", int(re.search(r"Port (\d+)", config)[1])), timeout=60) as line:
        assert line.recv(8) == b"SSH-2.0-"
        strike(cloud, "ssh-cut", box=box)
        with suppress(ConnectionResetError):
            while line.recv(4096):  # the rest of what it had said
                pass
    cloud.ec2.terminate_instances(InstanceIds=[box.instance])


def test_a_scan_finds_holes_in_an_image_that_was_pushed_while_its_repository_scans(cloud, box):
    cloud.ecr.put_image_scanning_configuration(repositoryName="trainer", imageScanningConfiguration={"scanOnPush": True})
    world.register_image(cloud.state, "trainer", "scanned", ["/bin/sh", "-c"], box.root, {})
    asked = {"repositoryName": "trainer", "imageId": {"imageTag": "scanned"}}
    strike(cloud, "scan-finds", severity="HIGH", count=2)
    findings = cloud.ecr.describe_image_scan_findings(**asked)
    assert findings["imageScanStatus"]["status"] == "COMPLETE"
    assert findings["imageScanFindings"]["findingSeverityCounts"] == {"HIGH": 2}
    assert [each["severity"] for each in findings["imageScanFindings"]["findings"]] == ["HIGH", "HIGH"]
    strike(cloud, "scan-finds", status="IN_PROGRESS")
    assert cloud.ecr.describe_image_scan_findings(**asked)["imageScanStatus"]["status"] == "IN_PROGRESS"


# The list


def test_an_unknown_fault_or_option_is_refused_with_what_there_is(cloud):
    with pytest.raises(world.WorldError, match="throttle"):
        strike(cloud, "earthquake")
    with pytest.raises(world.WorldError, match="takes seconds"):
        strike(cloud, "slow", minutes=1)


def test_every_fault_is_in_the_table_and_in_a_test(cloud):
    known = set(world.faults(cloud.state)["known"])
    table = (Path(world.__file__).with_name("FAULTS.md")).read_text()
    tested = {node.value for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.Constant)}
    assert len(known) >= 25
    assert known == {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert known <= tested, known - tested
    assert json.dumps(sorted(known))
