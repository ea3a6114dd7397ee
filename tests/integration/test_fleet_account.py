"""A fleet in an account, with IAM enforced: `inv init` makes, keeps, changes and removes it, `inv doctor` looks, `inv destroy` leaves."""

import base64
import json
import re
import shlex
from contextlib import contextmanager
from pathlib import Path

import loaded
import pytest
import stand_in_trainer
from conftest import ROOT
from whole_account import Story, snapshot

import tasks
from conf import load
from conf.finding import OK
from conf.fleet_job import WORDS
from conf.text.quoting import quoted
from remote.account import permissions
from remote.aws import batch, fleet
from remote.aws.session import Aws, pauses
from remote.doctor import command as verb
from remote.doctor import diagnose
from remote.doctor import fleet as checks_of_fleet
from trainer.preflight import access
from twin import world

pytestmark = pytest.mark.slow  # an account is made ready five times
RUN = load.load(["cloud=twin"], local=Path("none"))
POLICIES = permissions.roles(RUN.cloud, world.ACCOUNT, world.CALLER)
BATCH = ("fleet=batch", "fleet.max_vcpus=32")
HELD = [POLICIES[who] for who in ("laptop", "files", "setup", "fleet", "fleet-setup")]


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account with nothing in it, whose user holds our policies and no other."""
    made = Story(tmp_path_factory.mktemp("a fleet"))
    world.enforce(made.state, HELD)
    yield made
    world.stop(made.state)


def environments(account) -> dict[str, tuple]:
    there = account.client("batch").describe_compute_environments()["computeEnvironments"]
    return {one["computeEnvironmentName"]: (one["status"], one["computeResources"]["maxvCpus"]) for one in there}


def init(account, *overrides: str) -> str:
    done = account.inv("init", "--yes", "--token", str(account.token), overrides=overrides)
    return done.stdout + done.stderr


def test_a_fleet_is_made_only_when_asked_for_and_stays_until_it_is_asked_to_go(account):
    init(account)
    before = snapshot(account)
    assert environments(account) == {}
    printed = init(account, *BATCH)
    assert "Batch ComputeEnvironment" in printed and "Batch JobQueue" in printed
    assert environments(account) == {f"fine-tune-slm-{name}": ("VALID", 32) for name in fleet.ENVIRONMENTS}
    assert "nothing to do" in init(account, *BATCH)
    printed = init(account)
    assert "the fleet stays as it is" in printed and "nothing to do" in printed
    init(account, "fleet=batch", "fleet.max_vcpus=64", "fleet.instance_type=[g6.2xlarge,g5.2xlarge]", "fleet.disk_gb=300")
    assert environments(account) == {f"fine-tune-slm-{name}": ("VALID", 64) for name in fleet.ENVIRONMENTS}
    init(account, "fleet=batch", "fleet.max_vcpus=0")
    assert environments(account) == {} and snapshot(account) == before


def findings(account, *overrides: str) -> dict[str, dict]:
    done = account.inv("doctor", "--json", overrides=overrides, ok=None)
    return {one["check"]: one for one in json.loads(done.stdout)["findings"] if one["check"].startswith("fleet")}


def test_the_doctor_names_what_keeps_a_fleet_from_running(account):
    assert findings(account) == {}
    there = findings(account, *BATCH)
    assert there["fleet"]["verdict"] == "broken" and "inv init" in there["fleet"]["command"]
    init(account, *BATCH)
    there = findings(account, *BATCH)
    assert there["fleet"]["verdict"] == "ok" and there["fleet network"]["verdict"] == "ok"
    assert there["fleet image"]["verdict"] == "broken" and "inv image.push" in there["fleet image"]["command"]
    assert there["fleet memory"]["verdict"] == "ok"
    assert findings(account, *BATCH, "fleet.max_vcpus=16")["fleet"]["verdict"] == "note"


@pytest.fixture
def examined(account, monkeypatch):
    """Every finding that is not as it should be, by its check, where runs train on the fleet; all of the account is sound."""
    init(account, *BATCH)
    if TAGGED not in account.said:
        account.said[TAGGED] = [stand_in_trainer.register(account.state)]
    loaded.enter(monkeypatch, account.state)

    def examine(*words: str) -> dict:
        run = load.load(["cloud=twin", f"cloud.state={quoted(account.state)}", "experiment=smoke", *BATCH, *words], local=Path("none"))
        checks = [verb.hub_check(access.check_hub_access), *checks_of_fleet.checks(tasks.preflight.too_small)]
        return {one.check: one for one in diagnose.run_checks(verb.make_context(run, ROOT, 0), checks) if one.verdict != OK}

    assert not [check for check in examine() if check.startswith("fleet")]
    return examine


TAGGED = "image of this tree"
SPOT, QUEUE, ENDS = "fine-tune-slm-spot", "fine-tune-slm-spot", "fine-tune-slm-fleet-ends"


@contextmanager
def no_profile(account):
    iam, name = account.client("iam"), "fine-tune-slm-fleet"
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    iam.delete_instance_profile(InstanceProfileName=name)
    yield ()
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


@contextmanager
def small_quota(account):
    world.fault(account.state, "quota", code="L-3819A6DF", value=8)
    yield ()
    world.fault(account.state, "quota", code="L-3819A6DF", value=64)


@contextmanager
def large_plan(account):
    yield ("lora.r=4000000",)


@contextmanager
def no_role_of_batch(account):
    account.client("iam").delete_role(RoleName="AWSServiceRoleForBatch")
    yield ()
    account.client("iam").create_service_linked_role(AWSServiceName="batch.amazonaws.com")


@contextmanager
def no_public_address(account):
    ec2, (there, *_) = account.client("ec2"), account.client("batch").describe_compute_environments()["computeEnvironments"]
    for public in (False, True):
        for subnet in there["computeResources"]["subnets"]:
            ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": public})
        if not public:
            yield ()


@contextmanager
def no_image(account):
    world.fault(account.state, "image-gone")
    yield ()
    stand_in_trainer.register(account.state)


def queue_changed(**what):
    @contextmanager
    def changed(account):
        client, names = account.client("batch"), ("state", "computeEnvironmentOrder", "jobStateTimeLimitActions")
        (before,) = client.describe_job_queues(jobQueues=[QUEUE])["jobQueues"]
        settled(client.update_job_queue, jobQueue=QUEUE, **what)
        yield ()
        settled(client.update_job_queue, jobQueue=QUEUE, **{name: before[name] for name in names})

    return changed


def settled(update, **what) -> None:
    """Changed as soon as Batch lets it be, which takes an earlier change in first."""
    for _ in pauses(60):
        try:
            update(**what)
            return
        except update.__self__.exceptions.ClientException as error:
            assert "being modified" in str(error)


@contextmanager
def rule_off(account):
    account.client("events").disable_rule(Name=ENDS)
    yield ()
    account.client("events").enable_rule(Name=ENDS)


@contextmanager
def rule_without_a_log(account):
    events = account.client("events")
    targets = events.list_targets_by_rule(Rule=ENDS)["Targets"]
    events.remove_targets(Rule=ENDS, Ids=[one["Id"] for one in targets])
    yield ()
    events.put_targets(Rule=ENDS, Targets=targets)


@contextmanager
def rule_of_other_events(account):
    events = account.client("events")
    before = events.describe_rule(Name=ENDS)["EventPattern"]
    events.put_rule(Name=ENDS, EventPattern=before.replace("terminated", "stopped"), State="ENABLED")
    yield ()
    events.put_rule(Name=ENDS, EventPattern=before, State="ENABLED")


@contextmanager
def rule_by_the_clock(account):
    events = account.client("events")
    before = events.describe_rule(Name=ENDS)["EventPattern"]
    targets = events.list_targets_by_rule(Rule=ENDS)["Targets"]
    events.remove_targets(Rule=ENDS, Ids=[one["Id"] for one in targets])
    events.delete_rule(Name=ENDS)
    events.put_rule(Name=ENDS, ScheduleExpression="rate(1 day)", State="ENABLED")
    events.put_targets(Rule=ENDS, Targets=targets)
    yield ()
    events.put_rule(Name=ENDS, EventPattern=before, State="ENABLED")


BROKEN = {
    "no profile": (no_profile, "fleet", "inv destroy"),
    "quota": (small_quota, "fleet quota", "--quota-code L-3819A6DF --desired-value 32"),
    "plan": (large_plan, "fleet memory", "fleet.instance_type=["),
    "role of Batch": (no_role_of_batch, "fleet roles", "aws iam create-service-linked-role --aws-service-name batch.amazonaws.com"),
    "network": (no_public_address, "fleet network", "box.subnet=subnet-"),
    "image": (no_image, "fleet image", "inv image.push"),
    "closed queue": (queue_changed(state="DISABLED"), "fleet queue", "aws batch update-job-queue --job-queue fine-tune-slm-spot"),
    "other order": (
        queue_changed(computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "fine-tune-slm-on-demand"}]),
        "fleet queue",
        "--compute-environment-order order=1,computeEnvironment=fine-tune-slm-spot",
    ),
    "no limit": (queue_changed(jobStateTimeLimitActions=[]), "fleet queue", "--job-state-time-limit-actions state=RUNNABLE"),
    "rule off": (rule_off, "fleet ends", "aws events enable-rule --name fine-tune-slm-fleet-ends"),
    "rule without a log": (rule_without_a_log, "fleet ends", "fleet.max_vcpus=0"),
    "rule of other events": (rule_of_other_events, "fleet ends", "fleet.max_vcpus=0"),
    "rule by the clock": (rule_by_the_clock, "fleet ends", "fleet.max_vcpus=0"),
}
MENDED = ("role of Batch", "closed queue", "other order", "no limit", "rule off")


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_a_fleet_is_named_alone_and_what_the_command_says_mends_it(account, examined, what):
    broken, check, command = BROKEN[what]
    with broken(account) as words:
        findings = {name: one for name, one in examined(*words).items() if name.startswith("fleet")}
        assert list(findings) == [check]
        assert command in findings[check].command.replace(" --region us-east-1", "") and findings[check].why
        if what in MENDED:
            typed = re.search("`(aws .*?)`", findings[check].command)[1]
            world.enforce(account.state, None)
            account.aws(*shlex.split(typed)[1:])
            world.enforce(account.state, HELD)
            for _ in pauses(60):  # Batch takes a moment
                if check not in (left := examined(*words)):
                    break
            assert check not in left, left
            if what == "role of Batch":
                account.client("iam").delete_role(RoleName="AWSServiceRoleForBatch")


def test_a_token_that_the_hub_does_not_know_is_no_finding_about_the_fleet(account, examined):
    secrets, name = account.client("secretsmanager"), RUN.cloud.hub_secret
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    secrets.put_secret_value(SecretId=name, SecretString="hf_wrong")
    findings = examined()
    secrets.put_secret_value(SecretId=name, SecretString=before)
    assert "token" in findings and not [check for check in findings if check.startswith("fleet")]


def test_an_environment_that_launches_with_other_user_data_is_named_and_the_commands_make_it_anew(account, examined):
    """A newer version of the template that no environment names is nobody's."""
    ec2, client = account.client("ec2"), account.client("batch")
    (latest,) = ec2.describe_launch_template_versions(LaunchTemplateName="fine-tune-slm-fleet", Versions=["$Latest"])[
        "LaunchTemplateVersions"
    ]
    data = latest["LaunchTemplateData"] | {"UserData": base64.b64encode(b"#!/bin/bash\n").decode()}
    data["MetadataOptions"] = {"HttpTokens": "optional"}
    made = ec2.create_launch_template_version(LaunchTemplateName="fine-tune-slm-fleet", LaunchTemplateData=data)["LaunchTemplateVersion"]
    assert not [check for check in examined() if check.startswith("fleet")]
    named = {"launchTemplateId": latest["LaunchTemplateId"], "version": str(made["VersionNumber"])}
    settled(client.update_compute_environment, computeEnvironment=SPOT, computeResources={"launchTemplate": named})
    finding = examined()["fleet launch"]
    assert "user data that `inv init` has not made" in finding.what and "HttpTokens optional, not required" in finding.what
    for words in re.findall("`inv init -- (.*?)`", finding.command):
        init(account, *words.split(), *(() if "max_vcpus" in words else BATCH[1:]))
    assert not [check for check in examined() if check.startswith("fleet")]


TAG = "0123456789abcdef"


def hand_over(account, *run_ids: str) -> None:
    """Jobs of the fleet that go on until they are told to end, defined and submitted as the verbs do it, with no more rights."""
    run = load.load(["cloud=twin", f"cloud.state={quoted(account.state)}", *BATCH], local=Path("none"))
    with pytest.MonkeyPatch.context() as patch:
        loaded.enter(patch, account.state)
        aws = Aws(run.cloud)
        repository = aws.client("ecr").describe_repositories(repositoryNames=[run.cloud.repository])["repositories"][0]["repositoryUri"]
        digest = world.register_image(account.state, run.cloud.repository, TAG, ["bash", "-c", "sleep 600"], "", {})
        defined = batch.define(aws, run, f"{repository}@{digest}", TAG)
        words = dict.fromkeys(WORDS, "none")
        for run_id in run_ids:
            batch.submit(aws, run, run_id, defined.definition, words | {"run": run_id}, 3600)
        for _ in pauses(300):
            if [job.status for run_id in run_ids for job in batch.jobs(aws, run.cloud, run_id)] == ["RUNNING"] * len(run_ids):
                return
    raise AssertionError("the jobs do not run")


def test_down_ends_every_job_and_waits_until_nothing_is_paid_for_any_more_and_the_ledger_is_the_meters(account):
    init(account, *BATCH)
    hand_over(account, "20261130-120000-one-0001", "20261130-120000-one-0002")
    refused = account.inv("destroy", "--yes", ok=False)
    assert refused.returncode == 1 and "20261130-120000-one-0001" in refused.stderr and "inv down" in refused.stderr
    done = account.inv("down", "--fleet")
    assert "2 jobs of the fleet have ended" in done.stdout + done.stderr
    states = [one["State"]["Name"] for group in account.client("ec2").describe_instances()["Reservations"] for one in group["Instances"]]
    assert states and set(states) == {"terminated"}
    every = world.costs(account.state)["rows"]
    assert [row for row in every if row["kind"] in ("instance", "volume") and row["until"] is None] == [], "an idle fleet costs nothing"
    costs = account.inv("costs").stdout
    rows = [row for row in every if row["kind"] == "instance"]
    lines = re.findall(r"^(i-\w+) g6.2xlarge spot in \S+ from \S+ +(\d+) s +\S+ a hour +(\S+) *$", costs, re.M)
    assert len(lines) == len(rows) == len(states)
    assert sum(float(usd) for _, _, usd in lines) == pytest.approx(sum(row["usd"] for row in rows), abs=0.01)


def test_destroy_leaves_nothing_of_it(account):
    printed = account.inv("destroy", "--yes")
    assert "Batch ComputeEnvironment" in printed.stdout + printed.stderr
    assert "Batch JobDefinition" in printed.stdout + printed.stderr
    assert environments(account) == {} and not snapshot(account)["roles"]
    assert not account.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]


def test_what_a_fleet_that_was_removed_has_registered_is_forgotten_and_another_stacks_is_not(account):
    init(account)
    client, container = account.client("batch"), {"image": "i", "resourceRequirements": [{"type": "VCPU", "value": "1"}]}
    container["resourceRequirements"].append({"type": "MEMORY", "value": "2048"})
    for name in (f"fine-tune-slm-{TAG}", f"fine-tune-slm-demo-{TAG}"):
        client.register_job_definition(jobDefinitionName=name, type="container", containerProperties=container)
    printed = account.inv("destroy", "--yes")
    assert "Batch JobDefinition" in printed.stdout + printed.stderr
    (left,) = client.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    assert left["jobDefinitionName"] == f"fine-tune-slm-demo-{TAG}"
