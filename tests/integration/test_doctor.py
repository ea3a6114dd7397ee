"""`inv doctor`: on a sound account it finds nothing; break one thing, and it names that thing, with a command, and nothing else."""

import json
import re
import shlex
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import loaded
import pytest
import stand_in_trainer
from botocore.exceptions import ClientError
from conftest import ROOT
from werkzeug.serving import make_server

from conf import load
from conf.finding import BROKEN, OK
from remote.account import permissions
from remote.build import ecr
from remote.doctor import command as verb
from remote.doctor import diagnose, drift, login
from remote.doctor import instance as checks_of_box
from remote.plan import verbs
from remote.transport.transport import Result
from trainer.estimate import driver
from trainer.preflight import access
from twin import world
from twin.hub.app import Hub

pytestmark = pytest.mark.slow  # boxes and an account are made ready, and broken in fifty ways
BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"


@pytest.fixture(scope="module")
def sound(laptop):
    """An account in which everything is there, the image too."""
    stand_in_trainer.register(laptop.state)
    return laptop


@pytest.fixture
def here(sound, monkeypatch):
    """This process is the laptop."""
    loaded.enter(monkeypatch, sound.state)
    return sound


def examined(*words: str) -> dict[str, object]:
    """Every finding that is not as it should be, by its check."""
    run = load.load(["cloud=twin", "experiment=smoke", *words], local=Path("none"))
    findings = diagnose.run_checks(verb.make_context(run, ROOT, driver.minimum_driver()), [verb.hub_check(access.check_hub_access)])
    return {one.check: one for one in findings if one.verdict != OK}


def ours(kind: str) -> dict:
    policies = permissions.roles(load.load(["cloud=twin"], local=Path("none")).cloud, world.ACCOUNT, world.CALLER)
    if kind != "laptop":
        return policies[kind]
    return policies["laptop"] | {"Statement": [*policies["laptop"]["Statement"], *policies["files"]["Statement"]]}


def without(kind: str, action: str) -> dict:
    """The policy of ours with one action taken out."""
    policy = ours(kind)
    for one in policy["Statement"]:
        one["Action"] = [name for name in one["Action"] if name != action]
    return policy | {"Statement": [one for one in policy["Statement"] if one["Action"]]}


def box_policy(here, policy: dict) -> None:
    here.client("iam").put_role_policy(RoleName="fine-tune-slm-box", PolicyName="box", PolicyDocument=json.dumps(policy))


@contextmanager
def policy_line(here):
    world.enforce(here.state, [without("laptop", "scheduler:CreateSchedule")])
    yield ()
    world.enforce(here.state, None)


@contextmanager
def box_policy_line(here):
    box_policy(here, without("box", "s3:PutObject"))
    yield ()
    box_policy(here, ours("box"))


@contextmanager
def other_role(here):
    """A profile that was adopted, and the role of another name that it hands out."""
    iam, profile = here.client("iam"), "their-profile"
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_instance_profile(InstanceProfileName=profile)
    iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName="theirs")
    yield (f"cloud.instance_profile={profile}",)


@contextmanager
def wrong_trust(here):
    iam, name = here.client("iam"), "fine-tune-slm-scheduler"
    before = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(before).replace("scheduler.", "lambda."))
    yield ()
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(before))


@contextmanager
def free_plan(here):
    world.fault(here.state, "free-plan")
    yield ()
    world.fault(here.state, "free-plan", kind="PAID")


@contextmanager
def no_bucket(here):
    here.client("s3").delete_bucket(Bucket="fine-tune-slm")
    yield ()
    here.client("s3").create_bucket(Bucket="fine-tune-slm")  # where it was mended, us-east-1 takes this for an answer
    as_made(here)


def as_made(here) -> None:
    """The bucket as the stack makes it."""
    s3, bucket = here.client("s3"), {"Bucket": "fine-tune-slm"}
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=closed)
    s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_encryption(**bucket, ServerSideEncryptionConfiguration=drift.ENCRYPTED)
    plain = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::fine-tune-slm"]}
    plain |= {"Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    s3.put_bucket_policy(**bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [plain]}))


@contextmanager
def no_versions(here):
    here.client("s3").put_bucket_versioning(Bucket="fine-tune-slm", VersioningConfiguration={"Status": "Suspended"})
    yield ()
    as_made(here)


@contextmanager
def no_encryption(here):
    here.client("s3").delete_bucket_encryption(Bucket="fine-tune-slm")
    yield ()
    as_made(here)


@contextmanager
def plain_connections(here):
    here.client("s3").delete_bucket_policy(Bucket="fine-tune-slm")
    yield ()
    as_made(here)


@contextmanager
def moving_tags(here):
    here.client("ecr").put_image_tag_mutability(repositoryName="fine-tune-slm", imageTagMutability="MUTABLE")
    yield ()
    here.client("ecr").put_image_tag_mutability(repositoryName="fine-tune-slm", imageTagMutability="IMMUTABLE")


def scanned(here, yes: bool) -> None:
    here.client("ecr").put_image_scanning_configuration(repositoryName="fine-tune-slm", imageScanningConfiguration={"scanOnPush": yes})


@contextmanager
def every_image_counts(here):
    policy = json.dumps(
        {
            "rules": [
                drift.LIFECYCLE_POLICY["rules"][0]
                | {"selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}}
            ]
        }
    )
    here.client("ecr").put_lifecycle_policy(repositoryName="fine-tune-slm", lifecyclePolicyText=policy)
    yield ()
    here.client("ecr").put_lifecycle_policy(repositoryName="fine-tune-slm", lifecyclePolicyText=json.dumps(drift.LIFECYCLE_POLICY))


@contextmanager
def every_image_kept(here):
    here.client("ecr").delete_lifecycle_policy(repositoryName="fine-tune-slm")
    yield ()
    here.client("ecr").put_lifecycle_policy(repositoryName="fine-tune-slm", lifecyclePolicyText=json.dumps(drift.LIFECYCLE_POLICY))


@contextmanager
def no_scan(here):
    scanned(here, False)
    yield ()
    scanned(here, True)


@contextmanager
def critical_holes(here):
    world.fault(here.state, "scan-finds", count=7)
    yield ()
    world.fault(here.state, "scan-finds", count=0)


@contextmanager
def no_scan_yet(here):
    world.fault(here.state, "scan-finds", status="IN_PROGRESS")
    yield ()
    world.fault(here.state, "scan-finds", count=0)


@contextmanager
def never_scanned(here):
    """As an image is that was pushed while its repository scanned none."""
    with no_image(here):
        scanned(here, False)
    scanned(here, True)
    yield ()
    with no_image(here):
        pass


@contextmanager
def endless_logs(here):
    here.client("logs").delete_retention_policy(logGroupName="/fine-tune-slm")
    yield ()
    here.client("logs").put_retention_policy(logGroupName="/fine-tune-slm", retentionInDays=30)


def launch_data(here) -> dict:
    versions = here.client("ec2").describe_launch_template_versions(LaunchTemplateName="fine-tune-slm", Versions=["$Latest"])
    return versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]


@contextmanager
def open_metadata(here):
    data = launch_data(here)
    easy = data | {"MetadataOptions": {"HttpTokens": "optional", "HttpPutResponseHopLimit": 3}}
    here.client("ec2").create_launch_template_version(LaunchTemplateName="fine-tune-slm", LaunchTemplateData=easy)
    yield ()
    here.client("ec2").create_launch_template_version(LaunchTemplateName="fine-tune-slm", LaunchTemplateData=data)


def let_in(here, port: int, description: str) -> dict:
    (group,) = launch_data(here)["SecurityGroupIds"]
    ranges = [{"CidrIp": "198.51.100.0/24", "Description": description}]
    rule = {"GroupId": group, "IpPermissions": [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": ranges}]}
    here.client("ec2").authorize_security_group_ingress(**rule)
    return rule


@contextmanager
def way_in(here):
    rule = let_in(here, 8888, "a notebook")
    yield ()
    with suppress(ClientError):  # where it was mended it is closed
        here.client("ec2").revoke_security_group_ingress(**rule)


@contextmanager
def port_left_open(here):
    rule = let_in(here, 22, f"{BOX}={load.load(['cloud=twin'], local=Path('none')).box.name}")
    yield ()
    here.client("ec2").revoke_security_group_ingress(**rule)


@contextmanager
def name_gone(here):
    here.client("ssm").delete_parameter(Name="/fine-tune-slm/s3/prefix")
    yield ()
    here.client("ssm").put_parameter(Name="/fine-tune-slm/s3/prefix", Value="fine-tune-slm", Type="String", Overwrite=True)


@contextmanager
def open_bucket(here):
    here.client("s3").delete_public_access_block(Bucket="fine-tune-slm")
    yield ()
    as_made(here)


@contextmanager
def far_bucket(here):
    s3 = here.client("s3")
    s3.delete_bucket(Bucket="fine-tune-slm")
    s3.create_bucket(Bucket="fine-tune-slm", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    as_made(here)
    yield ()
    s3.delete_bucket(Bucket="fine-tune-slm")
    s3.create_bucket(Bucket="fine-tune-slm")
    as_made(here)


@contextmanager
def no_repository(here):
    here.client("ecr").delete_repository(repositoryName="fine-tune-slm", force=True)
    yield ()
    with suppress(ClientError):  # where it was mended it is there
        here.client("ecr").create_repository(repositoryName="fine-tune-slm", imageTagMutability="IMMUTABLE")
    here.client("ecr").put_image_tag_mutability(repositoryName="fine-tune-slm", imageTagMutability="IMMUTABLE")
    here.client("ecr").put_lifecycle_policy(repositoryName="fine-tune-slm", lifecyclePolicyText=json.dumps(drift.LIFECYCLE_POLICY))
    scanned(here, True)
    stand_in_trainer.register(here.state)


@contextmanager
def no_secret(here):
    secrets, name = here.client("secretsmanager"), "huggingface/api-token"
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    yield ()
    secrets.create_secret(Name=name, SecretString=before)


@contextmanager
def quota(here):
    world.fault(here.state, "quota", code="L-DB2E81BA", value=0)
    yield ()
    world.fault(here.state, "quota", code="L-DB2E81BA", value=64)


@contextmanager
def no_spot(here):
    world.fault(here.state, "quota", code="L-3819A6DF", value=0)
    yield ("box.spot=true",)
    world.fault(here.state, "quota", code="L-3819A6DF", value=64)


@contextmanager
def large_image(here):
    """The tree's own image, but 60 GB of it."""
    registry, asked = here.client("ecr"), {"repositoryName": "fine-tune-slm", "imageIds": [{"imageTag": ecr.tag(ROOT)}]}
    manifest = registry.batch_get_image(**asked)["images"][0]["imageManifest"]
    large = json.loads(manifest)
    large["config"]["size"] = 60_000_000_000
    registry.batch_delete_image(**asked)
    registry.put_image(repositoryName="fine-tune-slm", imageManifest=json.dumps(large), imageTag=ecr.tag(ROOT))
    yield ()
    registry.batch_delete_image(**asked)
    registry.put_image(repositoryName="fine-tune-slm", imageManifest=manifest, imageTag=ecr.tag(ROOT))


@contextmanager
def expired(here):
    world.fault(here.state, "credentials-expired", count=0)
    yield ()
    world.clear_faults(here.state)


@contextmanager
def skewed(here):
    world.fault(here.state, "clock-skew", count=0, by="laptop", only="sts.*")
    yield ()
    world.clear_faults(here.state)


@contextmanager
def far_volume(here):
    tags = [{"Key": BOX, "Value": "elsewhere"}, {"Key": OWNER, "Value": world.CALLER}]
    here.client("ec2").create_volume(AvailabilityZone="us-east-1e", Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}])
    yield ("box.name=elsewhere",)


@contextmanager
def foreign_box(here):
    ec2 = here.client("ec2")
    tags = [{"Key": BOX, "Value": "theirs"}, {"Key": OWNER, "Value": f"arn:aws:iam::{world.ACCOUNT}:user/other"}]
    image_id = ec2.describe_images()["Images"][0]["ImageId"]
    request = {"ImageId": image_id, "InstanceType": "g6.2xlarge", "MinCount": 1, "MaxCount": 1}
    made = ec2.run_instances(**request, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    yield ("box.name=theirs",)
    ec2.terminate_instances(InstanceIds=[made["Instances"][0]["InstanceId"]])


@contextmanager
def no_image(here):
    registry, asked = here.client("ecr"), {"repositoryName": "fine-tune-slm", "imageIds": [{"imageTag": ecr.tag(ROOT)}]}
    manifest = registry.batch_get_image(**asked)["images"][0]["imageManifest"]
    registry.batch_delete_image(**asked)
    yield ()
    registry.put_image(repositoryName="fine-tune-slm", imageManifest=manifest, imageTag=ecr.tag(ROOT))


@contextmanager
def no_route(here):
    ec2 = here.client("ec2")
    tables = ec2.describe_route_tables()["RouteTables"]
    table, route = next((one, route) for one in tables for route in one["Routes"] if route.get("DestinationCidrBlock") == "0.0.0.0/0")
    ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    yield ()
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=route["GatewayId"])


@contextmanager
def no_log_group(here):
    here.client("logs").delete_log_group(logGroupName="/fine-tune-slm")
    yield ()
    with suppress(ClientError):  # where it was mended it is there
        here.client("logs").create_log_group(logGroupName="/fine-tune-slm")
    here.client("logs").put_retention_policy(logGroupName="/fine-tune-slm", retentionInDays=30)


@contextmanager
def wrong_token(here):
    secrets, name = here.client("secretsmanager"), "huggingface/api-token"
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    secrets.put_secret_value(SecretId=name, SecretString="hf_wrong")
    yield ()
    secrets.put_secret_value(SecretId=name, SecretString=before)


@contextmanager
def other_hub(here, **options):
    """A Hub that differs, to which this laptop's token is known."""
    token = here.client("secretsmanager").get_secret_value(SecretId="huggingface/api-token")["SecretString"]
    known = {"token": token} if "read_token" not in options else {"token": "hf_other", "read_token": token}
    name = "fine-tune-slm/tiny-random-llama"
    hub = Hub(
        here.folder / f"hub-{len(options)}-{'read_token' in options}", models={name: ROOT / ".cache/models/tiny"}, **(options | known)
    )
    server = make_server("127.0.0.1", 0, hub, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.port}")
        yield ()
    server.shutdown()


def gated(here):
    return other_hub(here, gated=["fine-tune-slm/tiny-random-llama"])


def read_only(here):
    return other_hub(here, read_token=True)


def words(*answers: str):
    @contextmanager
    def answer(_):
        yield answers

    return answer


@pytest.mark.parametrize(
    ("broken", "check", "command"),
    [
        (policy_line, "permissions", '"Action": ["scheduler:CreateSchedule"]'),
        (box_policy_line, "box role", '"Action": ["s3:PutObject"]'),
        (words("cloud.instance_profile=nowhere"), "box role", "cloud.instance_profile="),
        (other_role, "box role", "cloud.box_role=theirs"),
        (wrong_trust, "stop role", "aws iam update-assume-role-policy --role-name fine-tune-slm-scheduler"),
        (words("box.ami=/aws/service/nowhere"), "ami", "box.ami="),
        (words("box.root_gb=1"), "ami", "box.root_gb="),
        (no_bucket, "bucket", "aws s3 mb s3://fine-tune-slm"),
        (far_bucket, "bucket", "cloud.region=eu-west-1"),
        (words("cloud.region=us-nowhere-1"), "region", "cloud.region="),
        (open_bucket, "bucket", "aws s3api put-public-access-block --bucket fine-tune-slm"),
        (no_spot, "quota", "request-service-quota-increase --service-code ec2 --quota-code L-3819A6DF"),
        (large_image, "root disk", "box.root_gb=220"),
        (quota, "quota", "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA"),
        (free_plan, "plan", "aws freetier upgrade-account-plan --account-plan-type PAID"),
        (expired, "credentials", "aws login"),
        (skewed, "clock", "timedatectl"),
        (far_volume, "zone", "inv down --snapshot"),
        (foreign_box, "box", "box.name="),
        (no_repository, "repository", "aws ecr create-repository --repository-name fine-tune-slm"),
        (no_image, "image", "inv deploy"),
        (no_route, "network", "aws ec2 create-route"),
        (no_log_group, "log group", "aws logs create-log-group --log-group-name /fine-tune-slm"),
        (wrong_token, "token", "inv init --token FILE"),
        (read_only, "token", "the role `write`"),
        (no_secret, "token", "inv init --token FILE"),
        (gated, "model", "accept its terms"),
        (words("box.disk_gb=1"), "volume", "box.disk_gb="),
        (no_versions, "versions", "aws s3api put-bucket-versioning --bucket fine-tune-slm"),
        (no_encryption, "encryption", "aws s3api put-bucket-encryption --bucket fine-tune-slm"),
        (plain_connections, "connections", "aws s3api put-bucket-policy --bucket fine-tune-slm"),
        (moving_tags, "tags", "aws ecr put-image-tag-mutability --repository-name fine-tune-slm"),
        (every_image_counts, "builds", "aws ecr put-lifecycle-policy --repository-name fine-tune-slm"),
        (every_image_kept, "builds", "aws ecr put-lifecycle-policy --repository-name fine-tune-slm"),
        (no_scan, "scan", "aws ecr put-image-scanning-configuration --repository-name fine-tune-slm"),
        (critical_holes, "holes", "aws ecr describe-image-scan-findings --repository-name fine-tune-slm --image-id imageTag="),
        (no_scan_yet, "holes", "aws ecr describe-image-scan-findings --repository-name fine-tune-slm --image-id imageTag="),
        (never_scanned, "holes", "aws ecr start-image-scan --repository-name fine-tune-slm --image-id imageTag="),
        (endless_logs, "retention", "aws logs put-retention-policy --log-group-name /fine-tune-slm"),
        (words("cloud.launch_template=nowhere"), "launch", "inv init"),
        (open_metadata, "launch", "aws ec2 create-launch-template-version --launch-template-name fine-tune-slm"),
        (way_in, "way in", "aws ec2 revoke-security-group-ingress --group-id sg-"),
        (port_left_open, "way in", "inv down"),
        (name_gone, "names", "aws ssm put-parameter --type String --name /fine-tune-slm/s3/prefix --value fine-tune-slm"),
    ],
)
def test_what_is_broken_is_named_with_a_command_and_nothing_else_is(here, broken, check, command):
    with broken(here) as overrides:
        findings = examined(*overrides)
    assert list(findings) == [check]
    assert command in findings[check].command.replace(" --region us-east-1", "")
    for quoted in re.findall("`(aws .*?)`", findings[check].command):
        assert "--region us-east-1" in quoted or quoted.split()[1] in ("login", "sso", "configure"), quoted
    assert findings[check].why and findings[check].what


MENDED = [no_bucket, open_bucket, no_repository, no_log_group, large_image, words("box.disk_gb=1")]
MENDED += [no_versions, no_encryption, plain_connections, moving_tags, no_scan, endless_logs, open_metadata, way_in, name_gone]


@pytest.mark.parametrize("broken", MENDED)
@pytest.mark.slow
def test_what_the_command_says_mends_it(here, broken):
    with broken(here) as overrides:
        ((check, finding),) = examined(*overrides).items()
        command = re.search("`(.*?)`", finding.command)[1]
        if command.startswith("aws "):
            here.aws(*shlex.split(command)[1:])
        else:
            overrides = (command,)
        assert check not in examined(*overrides)


def test_the_lines_that_it_prints_mend_a_policy(here):
    lacking = [without("laptop", "scheduler:CreateSchedule")]
    world.enforce(here.state, lacking)
    (finding,) = examined().values()
    line = json.loads(finding.command.splitlines()[1])
    world.enforce(here.state, [*lacking, {"Version": "2012-10-17", "Statement": [line]}])
    mended = examined()
    world.enforce(here.state, None)
    assert mended == {}


@contextmanager
def image_of_another_tree(here):
    registry, mine = here.client("ecr"), {"repositoryName": "fine-tune-slm", "imageIds": [{"imageTag": ecr.tag(ROOT)}]}
    manifest = registry.batch_get_image(**mine)["images"][0]["imageManifest"]
    registry.batch_delete_image(**mine)
    registry.put_image(repositoryName="fine-tune-slm", imageManifest=manifest, imageTag="other")
    yield ()
    registry.batch_delete_image(repositoryName="fine-tune-slm", imageIds=[{"imageTag": "other"}])
    registry.put_image(repositoryName="fine-tune-slm", imageManifest=manifest, imageTag=ecr.tag(ROOT))


def test_an_image_of_another_tree_is_named_with_its_age(here):
    with image_of_another_tree(here):
        findings = examined()
    assert "the newest is of another tree, 0 days old" in findings["image"].what


NAME = "box.name=examined"


@pytest.fixture(scope="module")
def running(sound):
    """A box that runs, and its root folder."""
    sound.inv("up", overrides=(NAME,))
    boxes = sound.client("ec2").describe_instances(Filters=[{"Name": f"tag:{BOX}", "Values": ["examined"]}])["Reservations"]
    return sound.state / "boxes" / boxes[0]["Instances"][0]["InstanceId"] / "root"


def test_a_sound_box_has_nothing_to_say(here, running):
    assert examined(NAME) == {}


def test_a_driver_that_is_too_old_for_the_images_cuda_is_named(here, running):
    program = running / "usr/bin/nvidia-smi"
    original = program.read_text()
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 570.86.15'\n")
    findings = examined(NAME)
    program.write_text(original)
    assert list(findings) == ["driver"]
    assert "570.86.15 is older than 580" in findings["driver"].what and "`inv up`" in findings["driver"].command


def test_a_run_whose_container_has_lost_the_gpu_is_named(here, running, monkeypatch):
    class Line:
        def run(self, script, timeout, title=""):
            return Result(0, "@@ driver=580.1\n@@ gpu_lost=20261129-120000-mine-0001\n@@ unreachable=\n")

    monkeypatch.setattr(verbs, "transport", lambda run: lambda aws, instance_id: Line())
    findings = examined(NAME)
    assert list(findings) == ["gpu"] and "20261129-120000-mine-0001 has lost the GPU" in findings["gpu"].what
    assert "`inv down --force`" in findings["gpu"].command


def test_what_the_box_cannot_reach_is_named(here, running):
    run = load.load(["cloud=twin", "experiment=smoke", NAME], local=Path("none"))
    findings = {
        one.check: one
        for one in diagnose.run_checks(replace(verb.make_context(run, ROOT, driver.minimum_driver()), hub="http://127.0.0.1:1"), [])
        if one.verdict != OK
    }
    assert list(findings) == ["egress"]
    assert "cannot reach hub (127.0.0.1)" in findings["egress"].what and "port 443" in findings["egress"].command


def test_a_box_whose_role_its_containers_reach_is_named_and_up_mends_it(here, running):
    options = {"InstanceId": running.parent.name, "HttpTokens": "required"}
    here.client("ec2").modify_instance_metadata_options(**options, HttpPutResponseHopLimit=2)
    findings = examined(NAME)
    here.client("ec2").modify_instance_metadata_options(**options, HttpPutResponseHopLimit=1)
    assert list(findings) == ["metadata"] and "`inv up`" in findings["metadata"].command


def test_an_old_agent_is_named_with_the_command_that_renews_it(here, running, monkeypatch):
    monkeypatch.setattr(checks_of_box, "LEAST_AGENT", (3, 4, 0, 0))
    findings = examined(NAME)
    assert list(findings) == ["agent"] and "AWS-UpdateSSMAgent" in findings["agent"].command


def test_a_dead_agent_is_named_alone(here, running):
    world.fault(here.state, "agent-hangs")
    world.forward(here.state, 900)
    findings = examined(NAME)
    assert list(findings) == ["agent"] and "`inv up`" in findings["agent"].command


def test_a_box_that_is_reached_by_ssh_is_asked_by_ssh(here, running, monkeypatch):
    """Its agent is dead since the test above: that is what SSH is for."""
    asked = []

    class Line:
        def run(self, script, timeout, title=""):
            asked.append(title)
            return Result(0, "@@ driver=580.1\n@@ gpu_lost=\n@@ unreachable=\n")

    monkeypatch.setattr(verbs, "transport", lambda run: lambda aws, instance_id: Line() if run.box.ssh else None)
    assert examined(NAME, "box.ssh=true") == {} and asked == ["doctor"]


def logged_in(monkeypatch, folder: Path, profile: str) -> None:
    """No keys in the environment, and this profile."""
    (folder / "config").write_text(f"[profile mine]\nregion = us-east-1\n{profile}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)


@pytest.mark.parametrize(
    ("profile", "command"),
    [
        ("sso_session = work\nsso_account_id = 1\nsso_role_name = r\n", "`aws sso login --profile mine`"),
        ("login_session = arn:aws:iam::1:user/me\n", "`aws login --profile mine`"),
        ("mfa_serial = arn:aws:iam::1:mfa/me\n", "`aws sts get-caller-identity --profile mine`, with a new code of arn:aws:iam::1:mfa/me"),
    ],
)
def test_the_login_that_has_expired_is_renewed_by_its_own_command(monkeypatch, tmp_path, profile, command):
    logged_in(monkeypatch, tmp_path, profile)
    assert login.command() == command


def test_credentials_that_end_soon_are_named_with_their_minutes(here, monkeypatch, tmp_path):
    ends = (datetime.now(UTC) + timedelta(minutes=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    key = world.running(here.state)["keys"]["twin"]
    keys = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": key, "SessionToken": "t", "Expiration": ends}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    logged_in(monkeypatch, tmp_path, f"credential_process = cat '{tmp_path / 'keys.json'}'\nsso_start_url = https://example.com\n")
    findings = examined()
    assert list(findings) == ["credentials"]
    assert "minutes still" in findings["credentials"].what and findings["credentials"].command == "`aws sso login --profile mine`"


def test_a_sound_account_has_nothing_to_say(here):
    assert examined() == {}


def test_where_the_doctor_may_not_look_it_says_so_and_names_the_line(here):
    world.enforce(here.state, [without("laptop", "ec2:DescribeRouteTables")])
    findings = examined()
    world.enforce(here.state, None)
    assert {name: one.verdict for name, one in findings.items()} == {"permissions": BROKEN, "network": "unknown"}
    assert not diagnose.all_ok([findings["network"]])
    assert "1 checks, 0 broken, 1 unknown, 0 to look at" in diagnose.as_text([findings["network"]])


SSO = "AWSReservedSSO_Training_0123456789abcdef"


@pytest.fixture
def by_sso(sound):
    """A role as IAM Identity Center makes it, by which the laptop acts from now on."""
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    path = "/aws-reserved/sso.amazonaws.com/"
    iam = sound.client("iam")
    yield iam.create_role(RoleName=SSO, Path=path, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    world.enforce(sound.state, None)
    iam.delete_role(RoleName=SSO)


def test_a_login_by_a_role_may_look_itself_up(here, by_sso):
    cloud = load.load(["cloud=twin"], local=Path("none")).cloud
    policies = permissions.roles(cloud, world.ACCOUNT, by_sso)
    world.enforce(here.state, [policies["laptop"], policies["files"]], SSO)
    assert examined() == {}


def test_who_may_do_nothing_yet_gets_the_policies_that_he_needs(sound, by_sso):
    world.enforce(sound.state, [{"Version": "2012-10-17", "Statement": []}], SSO)
    for who in ("laptop", "files", "setup", "box", "scheduler", "workflow"):
        done = sound.inv("policy", "--who", who)
        assert json.loads(done.stdout)["Statement"]
        assert "ssm:GetParameters" in done.stderr and "iam:GetRole" in done.stderr
    world.enforce(sound.state, [json.loads(sound.inv("policy", "--who", who).stdout) for who in ("laptop", "files")], SSO)
    done = sound.inv("doctor", "--json")
    assert json.loads(done.stdout)["ok"] is True


def test_a_missing_parameter_is_named_before_anything_else():
    from conf.problem import Problem

    with pytest.raises(Problem, match="/fine-tune-slm/s3/bucket"):
        load.load(["cloud=aws"], fetch=lambda *_: {}, local=Path("none"))


@contextmanager
def skewed_everywhere(here):
    world.fault(here.state, "clock-skew", count=0, by="laptop")
    yield ()
    world.clear_faults(here.state)


@contextmanager
def no_parameter(here):
    """The emulated account's bucket has a default; a real one's has none."""
    ssm, name = here.client("ssm"), "/fine-tune-slm/s3/bucket"
    before = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ssm.delete_parameter(Name=name)
    yield ("cloud.bucket='${ssm:/fine-tune-slm/s3/bucket}'",)
    ssm.put_parameter(Name=name, Value=before, Type="String")


@contextmanager
def settings_denied(here):
    world.enforce(here.state, [without("laptop", "ssm:GetParameters")])
    yield ()
    world.enforce(here.state, None)


@pytest.mark.parametrize(
    ("broken", "check", "command"),
    [
        (expired, "credentials", "aws login"),
        (skewed_everywhere, "clock", "timedatectl"),
        (no_parameter, "settings", "` sets them up"),
        (settings_denied, "settings", "`inv policy -- "),
    ],
)
def test_what_stands_against_reading_the_settings_is_a_finding_like_any_other(sound, broken, check, command):
    with broken(sound) as overrides:
        done = sound.inv("doctor", "--json", overrides=overrides, ok=False)
    (finding,) = [one for one in json.loads(done.stdout)["findings"] if one["verdict"] != OK]
    assert (done.returncode, finding["check"], finding["verdict"]) == (1, check, BROKEN) and command in finding["command"]


def test_words_that_cannot_be_read_are_no_finding(sound):
    done = sound.inv("doctor", "--json", overrides=("no.such=1",), ok=False)
    assert done.returncode == 1 and done.stdout == "" and "error: there is no setting" in done.stderr


def test_for_programs_it_is_json_and_the_exit_code_tells(sound):
    done = sound.inv("doctor", "--json")
    assert json.loads(done.stdout)["ok"] is True
    done = sound.inv("doctor", "--json", overrides=("box.root_gb=1",), ok=False)
    assert done.returncode == 1
    assert [one["check"] for one in json.loads(done.stdout)["findings"] if one["verdict"] != OK] == ["ami"]


def test_it_changes_nothing(sound):
    before = len(sound.journal())
    sound.inv("doctor")
    assert [one for one in sound.journal()[before:] if one["by"] == "twin" and one["operation"].startswith(("Put", "Create", "Run"))] == []
