"""`inv doctor`: on a sound account it finds nothing; break one thing, and it names that thing, with a command, and nothing else."""

import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import stand_in_trainer
from werkzeug.serving import make_server

import tasks
from conf import load
from conf.finding import BROKEN, OK
from remote import doctor, image, permissions
from remote.aws import Aws
from twin import world
from twin.hub.app import Hub

BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"


@pytest.fixture(scope="module")
def sound(laptop):
    """An account in which everything is there, the image too."""
    stand_in_trainer.register(laptop.state)
    return laptop


@pytest.fixture
def here(sound, monkeypatch):
    """This process is the laptop."""
    for name, value in world.environment(sound.state).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    return sound


def examined(*words: str) -> dict[str, object]:
    """Every finding that is not as it should be, by its check."""
    run = load.load(["cloud=twin", "experiment=smoke", *words], local=Path("none"))
    found = doctor.examine(Aws(run.cloud), run, image.tag(tasks.ROOT), [tasks.hub_check()])
    return {one.check: one for one in found if one.verdict != OK}


def ours(kind: str) -> dict:
    return permissions.roles(load.load(["cloud=twin"], local=Path("none")).cloud, world.ACCOUNT, world.CALLER)[kind]


def without(kind: str, action: str) -> dict:
    """The policy of ours with one action taken out."""
    policy = ours(kind)
    for one in policy["Statement"]:
        one["Action"] = [name for name in one["Action"] if name != action]
    return policy


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
def wrong_trust(here):
    iam, name = here.client("iam"), "fine-tune-slm-scheduler"
    before = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(before).replace("scheduler.", "lambda."))
    yield ()
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(before))


@contextmanager
def no_bucket(here):
    here.client("s3").delete_bucket(Bucket="fine-tune-slm")
    yield ()
    here.client("s3").create_bucket(Bucket="fine-tune-slm")


@contextmanager
def far_bucket(here):
    s3 = here.client("s3")
    s3.delete_bucket(Bucket="fine-tune-slm")
    s3.create_bucket(Bucket="fine-tune-slm", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield ()
    s3.delete_bucket(Bucket="fine-tune-slm")
    s3.create_bucket(Bucket="fine-tune-slm")


@contextmanager
def no_repository(here):
    here.client("ecr").delete_repository(repositoryName="fine-tune-slm", force=True)
    yield ()
    here.client("ecr").create_repository(repositoryName="fine-tune-slm")
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
def expired(here):
    world.fault(here.state, "credentials-expired", count=0)
    yield ()
    world.heal(here.state)


@contextmanager
def skewed(here):
    world.fault(here.state, "clock-skew", count=0, by="laptop", only="sts.*")
    yield ()
    world.heal(here.state)


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
    ecr, asked = here.client("ecr"), {"repositoryName": "fine-tune-slm", "imageIds": [{"imageTag": image.tag(tasks.ROOT)}]}
    kept = ecr.batch_get_image(**asked)["images"][0]["imageManifest"]
    ecr.batch_delete_image(**asked)
    yield ()
    ecr.put_image(repositoryName="fine-tune-slm", imageManifest=kept, imageTag=image.tag(tasks.ROOT))


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
    here.client("logs").create_log_group(logGroupName="/fine-tune-slm")


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
        here.folder / f"hub-{len(options)}-{'read_token' in options}", models={name: tasks.ROOT / ".cache/models/tiny"}, **(options | known)
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


def words(*given: str):
    @contextmanager
    def said(_):
        yield given

    return said


@pytest.mark.parametrize(
    ("broken", "check", "command"),
    [
        (policy_line, "permissions", '"Action": ["scheduler:CreateSchedule"]'),
        (box_policy_line, "box role", '"Action": ["s3:PutObject"]'),
        (words("cloud.instance_profile=nowhere"), "box role", "cloud.instance_profile="),
        (wrong_trust, "stop role", "aws iam update-assume-role-policy --role-name fine-tune-slm-scheduler"),
        (words("box.ami=/aws/service/nowhere"), "ami", "box.ami="),
        (words("box.root_gb=1"), "ami", "box.root_gb="),
        (no_bucket, "bucket", "aws s3 mb s3://fine-tune-slm"),
        (far_bucket, "bucket", "cloud.region=eu-west-1"),
        (words("cloud.region=us-nowhere-1"), "region", "cloud.region="),
        (quota, "quota", "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA"),
        (expired, "credentials", "aws login"),
        (skewed, "clock", "timedatectl"),
        (far_volume, "zone", "inv down --snapshot"),
        (foreign_box, "box", "box.name="),
        (no_repository, "repository", "aws ecr create-repository --repository-name fine-tune-slm"),
        (no_image, "image", "inv deploy"),
        (no_route, "network", "aws ec2 create-route"),
        (no_log_group, "log group", "aws logs create-log-group --log-group-name /fine-tune-slm"),
        (wrong_token, "token", "aws secretsmanager put-secret-value"),
        (read_only, "token", "write access"),
        (no_secret, "token", "aws secretsmanager create-secret --name huggingface/api-token"),
        (gated, "model", "accept its terms"),
        (words("box.disk_gb=1"), "volume", "box.disk_gb="),
    ],
)
def test_what_is_broken_is_named_with_a_command_and_nothing_else_is(here, broken, check, command):
    with broken(here) as overrides:
        found = examined(*overrides)
    assert list(found) == [check]
    assert command in found[check].command
    assert found[check].why and found[check].what


def test_a_sound_account_has_nothing_to_say(here):
    assert examined() == {}


def test_where_the_doctor_may_not_look_it_says_so_and_names_the_line(here):
    world.enforce(here.state, [without("laptop", "ec2:DescribeRouteTables")])
    found = examined()
    world.enforce(here.state, None)
    assert {name: one.verdict for name, one in found.items()} == {"permissions": BROKEN, "network": "unknown"}


def test_a_missing_parameter_is_named_before_anything_else():
    from conf.problem import Problem

    with pytest.raises(Problem, match="/fine-tune-slm/s3/bucket"):
        load.load(["cloud=aws"], fetch=lambda *_: {}, local=Path("none"))


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
