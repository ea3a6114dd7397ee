"""The fleet's part of the template: nothing unless it is asked for, nothing that opens the account, instances that keep their keys."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from remote.account import fleet, permissions, stack
from remote.aws import fleet as whole_fleet
from remote.aws.tags import FLEET as FLEET_TAG
from twin import world
from twin.aws.cloudformation import templates

TEMPLATE = templates.read(stack.TEMPLATE.read_text())
RESOURCES = TEMPLATE["Resources"]
FLEET = ("fleet=batch", "fleet.max_vcpus=32", "fleet.instance_type=[g6.2xlarge,g5.2xlarge]", "fleet.wait_minutes=30")


def scope(run) -> templates.Scope:
    pseudo = {"AWS::Region": "us-east-1", "AWS::AccountId": world.ACCOUNT, "AWS::StackName": run.cloud.own, "AWS::Partition": "aws"}
    made = {name: "yes" for name in TEMPLATE["Parameters"] if name.startswith("Make")}
    values = templates.referred(TEMPLATE, made | stack.parameters(run) | {"Vpc": "vpc-1", "FleetSubnets": "subnet-1,subnet-2"})
    return templates.Scope(values | pseudo, TEMPLATE["Conditions"], lambda name: name, lambda name, part: f"{name}.{part}")


@pytest.fixture
def resources(settings):
    """What the stack has for these settings, by its name in the template."""

    def make(*words):
        known = scope(settings(*words))
        there = {name: about for name, about in RESOURCES.items() if "Condition" not in about or known.evaluate(about["Condition"])}
        return {name: known.resolve(about["Properties"]) for name, about in there.items()}

    return make


def fleets_own() -> set[str]:
    return {name for name, about in RESOURCES.items() if about.get("Condition") == "HasFleet"}


@pytest.mark.parametrize("words", [(), ("fleet.max_vcpus=64",), ("fleet=batch", "fleet.max_vcpus=0")])
def test_without_a_fleet_the_stack_has_nothing_of_one(resources, words):
    assert fleets_own() == set(stack.FLEET_RESOURCES) and not fleets_own() & set(resources(*words))


def test_a_fleet_has_no_instance_of_its_own_and_no_more_than_was_said(resources):
    made = resources(*FLEET)
    assert fleets_own() <= set(made)
    for market in ("Spot", "OnDemand"):
        computed = made[f"{market}Environment"]["ComputeResources"]
        assert (str(computed["MinvCpus"]), str(computed["MaxvCpus"])) == ("0", "32") and "DesiredvCpus" not in computed
        assert computed["InstanceTypes"] == ["g6.2xlarge", "g5.2xlarge"] and computed["Subnets"] == ["subnet-1", "subnet-2"]
        assert computed["SecurityGroupIds"] == ["Network.GroupId"]
        assert computed["Tags"][FLEET_TAG] == "fine-tune-slm"


def test_a_job_that_cannot_start_is_cancelled_for_every_reason_that_batch_can_act_on(resources):
    made = resources(*FLEET)
    for queue in ("SpotQueue", "OnDemandQueue", "SpotFirstQueue"):
        actions = {one["Reason"]: int(one["MaxTimeSeconds"]) for one in made[queue]["JobStateTimeLimitActions"]}
        assert {one["Action"] for one in made[queue]["JobStateTimeLimitActions"]} == {"CANCEL"}
        # Batch, User Guide, "Automatic remediation with jobStateTimeLimitActions" lists the reasons.
        assert actions.pop("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY") == 1800
        assert actions == {"MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": 600, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": 600}
    assert [one["ComputeEnvironment"] for one in made["SpotFirstQueue"]["ComputeEnvironmentOrder"]] == [
        "SpotEnvironment",
        "OnDemandEnvironment",
    ]


def test_names_are_the_stacks_own_and_those_that_the_verbs_look_for(resources):
    made = resources(*FLEET, "cloud.stack=demo")
    assert {made[f"{name}Queue"]["JobQueueName"] for name in ("Spot", "OnDemand", "SpotFirst")} == {
        f"fine-tune-slm-demo-{queue}" for queue in whole_fleet.QUEUES
    }
    assert {made[f"{name}Environment"]["ComputeEnvironmentName"] for name in ("Spot", "OnDemand")} == {
        f"fine-tune-slm-demo-{market}" for market in whole_fleet.ENVIRONMENTS
    }
    assert made["JobRole"]["RoleName"] == "fine-tune-slm-demo-job"


def test_an_instance_wants_a_token_is_one_hop_away_and_has_an_encrypted_disk(resources):
    data = resources(*FLEET, "fleet.disk_gb=300")["FleetLaunch"]["LaunchTemplateData"]
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    (disk,) = data["BlockDeviceMappings"]
    assert disk["Ebs"] == {"VolumeSize": "300", "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}


def user_data() -> str:
    return RESOURCES["FleetLaunch"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]


class Instance:
    """What the user data's scripts do on an instance: what they write for ECS's agent, and the commands that they run at a boot."""

    def __init__(self, folder: Path, iptables: str):
        self.folder = folder
        header, *parts = user_data().split("\n--fleet\n")
        assert header.startswith("MIME-Version: 1.0\nContent-Type: multipart/mixed;") and parts[-1].rstrip().endswith("--fleet--")
        for name, last in (("iptables", iptables), ("systemctl", "true")):
            self.write(folder / name, f'#!/bin/bash\necho "{name} $*" >>{folder}/ran\n{last}\n')
        self.scripts = [folder / f"part-{number:03}" for number, _ in enumerate(parts, 1)]
        for path, part in zip(self.scripts, parts, strict=True):
            content = part.partition("\n\n")[2].rpartition("--fleet--")[0] or part.partition("\n\n")[2]
            assert content.startswith("#!/bin/bash\n")
            self.write(path, re.sub(r"/(etc|var)/(ecs|lib/cloud)", rf"{folder}/\1/\2", content))
        (folder / "etc/ecs").mkdir(parents=True)

    @staticmethod
    def write(path: Path, content: str) -> None:
        path.write_text(content)
        path.chmod(0o755)

    def boot(self) -> list[str]:
        """cloud-init: the scripts of each boot, and once those of user data."""
        due = [*sorted(self.folder.glob("var/lib/cloud/scripts/per-boot/*")), *self.scripts]
        self.scripts = []
        (self.folder / "ran").unlink(missing_ok=True)
        for script in due:
            subprocess.run([str(script)], env=os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}, check=False)
        return (self.folder / "ran").read_text().splitlines()


def test_the_trainers_user_comes_to_no_credentials_of_the_host(tmp_path):
    user = "iptables -w -I OUTPUT -m owner --uid-owner 10001"
    instance = Instance(tmp_path, "true")
    # Behind ECS's own redirect, which makes 169.254.170.2 a port of this machine (ecs-init).
    rules = [f"{user} -d {to} -j REJECT" for to in ("169.254.169.254", "169.254.170.2", "127.0.0.0/8 -p tcp --dport 51678:51680")]
    assert instance.boot() == instance.boot() == instance.boot() == rules, "a reboot forgets them"
    docker = (stack.TEMPLATE.parents[2] / "docker/Dockerfile").read_text()
    assert "--uid 10001" in docker and "\nUSER 10001:10001\n" in docker


def test_an_instance_where_that_cannot_be_kept_takes_no_run(tmp_path):
    instance = Instance(tmp_path, "exit 1")
    for _ in range(2):
        first, *others = instance.boot()
        assert first.startswith("iptables ") and others == ["systemctl mask --now ecs"]


def test_an_instance_that_could_not_keep_it_at_its_next_boot_takes_no_run(tmp_path):
    (tmp_path / "var").write_text("no folder can be made here")
    assert Instance(tmp_path, "true").boot() == ["systemctl mask --now ecs"]


def test_a_run_is_told_of_its_end_and_no_container_is_privileged(tmp_path):
    instance = Instance(tmp_path, "true")
    instance.boot()
    config = (tmp_path / "etc/ecs/ecs.config").read_text()
    instance.boot()
    assert (tmp_path / "etc/ecs/ecs.config").read_text() == config
    wanted = {"ECS_ENABLE_SPOT_INSTANCE_DRAINING=true", "ECS_CONTAINER_STOP_TIMEOUT=2m", "ECS_DISABLE_PRIVILEGED=true"}
    assert wanted <= set(config.split())


@pytest.mark.parametrize("words", [(), ("cloud.stack=demo",), ("cloud.hub_read_secret=huggingface/read-token",)])
def test_the_roles_have_exactly_the_policies_that_are_printed(settings, words):
    run = settings(*FLEET, *words)
    policies, known = permissions.roles(run.cloud, world.ACCOUNT, world.CALLER), scope(run)
    for role, who in (("FleetRole", "fleet-instance"), ("JobRole", "job")):
        (inline,) = known.resolve(RESOURCES[role]["Properties"]["Policies"])
        assert lines(inline["PolicyDocument"]) == lines(policies[who])


def lines(document: dict) -> dict[str, dict]:
    """Each statement by its name; one action or resource is a list of one."""
    listed = lambda value: sorted(value) if isinstance(value, list) else [value]  # noqa: E731
    return {one["Sid"]: one | {key: listed(one[key]) for key in ("Action", "Resource")} for one in document["Statement"]}


def test_a_runs_role_is_taken_by_tasks_of_this_account_alone(resources):
    (trust,) = resources(*FLEET)["JobRole"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": world.ACCOUNT}}


def test_each_end_of_an_instance_is_written_into_a_group_that_eventbridge_may_write_to(resources):
    made = resources(*FLEET)
    rule, policy = made["EndsRule"], made["EndsPolicy"]["PolicyDocument"]
    assert rule["EventPattern"]["detail"] == {"state": ["shutting-down", "terminated"]}
    (target,) = rule["Targets"]
    assert target["Arn"].endswith(":log-group:Ends") and policy.count("log-group:Ends:*") == policy.count("Resource") == 1
    assert made["Ends"]["LogGroupName"].startswith("/aws/events/")


class Subnets:
    """An account whose EC2 knows these subnets."""

    def client(self, service):
        return self

    def describe_subnets(self, Filters):
        assert {"Name": "vpc-id", "Values": ["vpc-1"]} in Filters
        return {"Subnets": [{"SubnetId": "subnet-b"}, {"SubnetId": "subnet-a"}]}


def test_a_fleet_that_is_there_stays_as_it_is_where_the_settings_name_none(settings, capsys):
    there = stack.Stack("CREATE_COMPLETE", parameters=stack.NO_FLEET | {"FleetMaxVcpus": "64", "FleetSubnets": "subnet-a"})
    assert fleet.wanted(Subnets(), settings(), there, "vpc-1") == there.parameters
    assert "fleet=batch" in capsys.readouterr().err
    assert fleet.wanted(Subnets(), settings(), stack.Stack(), "vpc-1") == stack.NO_FLEET
    assert fleet.wanted(Subnets(), settings("fleet=batch", "fleet.max_vcpus=0"), there, "vpc-1") == stack.NO_FLEET


def test_instances_are_launched_in_any_default_subnet_or_in_the_one_that_is_named(settings):
    assert fleet.wanted(Subnets(), settings(*FLEET), stack.Stack(), "vpc-1")["FleetSubnets"] == "subnet-a,subnet-b"
    assert fleet.wanted(Subnets(), settings(*FLEET, "box.subnet=subnet-c"), stack.Stack(), "vpc-1")["FleetSubnets"] == "subnet-c"


@pytest.mark.parametrize(("resource", "who"), [("SpotEnvironment", "fleet-setup"), ("EndsRule", "fleet-setup"), ("DataBucket", "setup")])
def test_who_may_not_make_a_part_is_told_which_policy_has_it(resource, who):
    assert stack._fix(f"{resource}: User: me is not authorized to perform: x:Make") == (
        f"add what `inv policy --who {who}` prints to your policy"
    )


def test_ec2_s_own_role_for_spot_is_made_once(aws):
    fleet.make_spot_role(aws)
    fleet.make_spot_role(aws)
    assert aws.client("iam").get_role(RoleName="AWSServiceRoleForEC2Spot")


def test_an_account_that_starts_with_a_stack_has_no_fleet_before_init_was_asked_for_one(settings):
    asked = stack.account(settings(*FLEET))["stack"]["parameters"]
    assert {name: asked[name] for name in stack.NO_FLEET} == stack.NO_FLEET
