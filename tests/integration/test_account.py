"""From an empty account to a finished run and back: `inv init`, the chain, `inv destroy`, each of them twice."""

import base64
import json
import shlex

import pytest
import stand_in_trainer
import yaml
from botocore.exceptions import ClientError
from conftest import Laptop

from conf import schema
from remote.account import stack

pytestmark = pytest.mark.slow  # an account is made ready and changed ten times
SEED = """aws/region ec2/instance-id ec2/instance-type ebs/volume-id ebs/mount-path ebs/volume-type ebs/size-gb s3/bucket s3/prefix
ecr/repository ecr/registry secrets/hf-token-name secrets/aws-credentials-name secrets/docker-token-name cloudwatch/log-group
cloudwatch/log-stream-prefix output/hf-repo"""


def empty(folder) -> Laptop:
    made = Laptop(folder)
    made.inv("twin.start", "--empty")
    return made


def parameters(laptop) -> dict[str, str]:
    pages = laptop.client("ssm").get_paginator("get_parameters_by_path").paginate(Path="/fine-tune-slm", Recursive=True)
    return {parameter["Name"]: parameter["Value"] for page in pages for parameter in page["Parameters"]}


def buckets(laptop) -> list[str]:
    return [bucket["Name"] for bucket in laptop.client("s3").list_buckets()["Buckets"]]


def changes(laptop, since: int) -> set[str]:
    """Calls that changed the account, but for the audit's own line and a change set that is only asked for."""
    reading = ("Get", "List", "Describe", "Head", "HEAD", "GET", "CreateChangeSet", "DeleteChangeSet")
    entries = [entry for entry in laptop.journal()[since:] if "/audit/" not in entry["target"]]
    return {f"{entry['service']}.{entry['operation']}" for entry in entries if not entry["operation"].startswith(reading)}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """An account that was empty, rehearsed on, and initialised."""
    from twin import world

    made = empty(tmp_path_factory.mktemp("a new account"))
    made.rehearsal = made.inv("--dry", "init")
    made.after_rehearsal = (buckets(made), parameters(made), made.client("cloudformation").describe_stacks()["Stacks"])
    made.token = made.folder / "token"
    made.token.write_text(world.environment(made.state)["HF_TOKEN"] + "\n")
    made.first = made.inv("init", "--yes", "--token", str(made.token), overrides=("cloud.budget_usd=40", "cloud.github=me/mine"))
    yield made
    world.stop(made.state)


def test_a_rehearsal_shows_the_change_set_writes_the_template_and_leaves_the_account_empty(fresh):
    assert fresh.after_rehearsal == ([], {}, [])
    for words in ("+ S3 Bucket                  fine-tune-slm", "+ EC2 LaunchTemplate", "names in Parameter Store"):
        assert words in fresh.rehearsal.stderr
    assert (fresh.state / "stack/template.yaml").read_text() == stack.TEMPLATE.read_text()
    assert "aws cloudformation create-change-set" in fresh.rehearsal.stdout


@pytest.mark.slow
def test_what_a_rehearsal_has_written_is_all_that_an_administrator_needs(tmp_path):
    from twin import world

    laptop = empty(tmp_path / "handed over")
    try:
        printed = laptop.inv("--dry", "init").stdout
        first, second = (shlex.split(words)[1:] for words in printed.split("`")[1:4:2])
        laptop.aws(*first)
        laptop.aws("cloudformation", "wait", "change-set-create-complete", "--stack-name", schema.TOOL, "--change-set-name", "init")
        laptop.aws(*second)
        laptop.aws("cloudformation", "wait", "stack-create-complete", "--stack-name", schema.TOOL)
        before = len(laptop.journal())
        assert "nothing to do" in laptop.inv("init", "--yes").stdout
        assert changes(laptop, before) == set()
        records = {"ec2/instance-id": "i-1", "ebs/volume-id": "vol-1"}  # as `up` writes them down
        for name, value in records.items():
            laptop.client("ssm").put_parameter(Name=f"/fine-tune-slm/{name}", Value=value, Type="String", Overwrite=True)
        other = ("box.instance_type=g5.2xlarge",)
        printed = laptop.inv("--dry", "init", overrides=other).stdout
        first, second = (shlex.split(words)[1:] for words in printed.split("`")[1:4:2])
        laptop.aws(*first)
        laptop.aws("cloudformation", "wait", "change-set-create-complete", "--stack-name", schema.TOOL, "--change-set-name", "init")
        laptop.aws(*second)
        laptop.aws("cloudformation", "wait", "stack-update-complete", "--stack-name", schema.TOOL)
        assert "nothing to do" in laptop.inv("init", "--yes", overrides=other).stdout
        names = parameters(laptop)
        assert {name: names[f"/fine-tune-slm/{name}"] for name in records} == records
        assert names["/fine-tune-slm/ec2/instance-type"] == "g5.2xlarge"
    finally:
        world.stop(laptop.state)


def test_every_name_of_the_seed_resolves(fresh):
    names = parameters(fresh)
    assert {f"/fine-tune-slm/{name}" for name in SEED.split()} <= set(names)
    assert len(SEED.split()) == 17 and all(names.values())


def test_the_bucket_is_closed_encrypted_versioned_and_forgets_old_versions(fresh):
    s3 = fresh.client("s3")
    assert set(s3.get_public_access_block(Bucket="fine-tune-slm")["PublicAccessBlockConfiguration"].values()) == {True}
    rules = s3.get_bucket_encryption(Bucket="fine-tune-slm")["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert s3.get_bucket_versioning(Bucket="fine-tune-slm")["Status"] == "Enabled"
    assert s3.get_bucket_lifecycle_configuration(Bucket="fine-tune-slm")["Rules"][0]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 7
    (statement,) = json.loads(s3.get_bucket_policy(Bucket="fine-tune-slm")["Policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_nothing_comes_in_and_the_metadata_service_wants_a_token(fresh):
    ec2 = fresh.client("ec2")
    (group,) = ec2.describe_security_groups(Filters=[{"Name": "tag:Name", "Values": ["fine-tune-slm"]}])["SecurityGroups"]
    assert group["IpPermissions"] == []
    version = ec2.describe_launch_template_versions(LaunchTemplateName="fine-tune-slm")["LaunchTemplateVersions"][0]
    data = version["LaunchTemplateData"]
    assert data["SecurityGroupIds"] == [group["GroupId"]] and "KeyName" not in data
    assert (data["MetadataOptions"]["HttpTokens"], data["MetadataOptions"]["HttpPutResponseHopLimit"]) == ("required", 1)


def test_images_are_scanned_and_tags_do_not_move(fresh):
    (repository,) = fresh.client("ecr").describe_repositories()["repositories"]
    assert (repository["imageScanningConfiguration"]["scanOnPush"], repository["imageTagMutability"]) == (True, "IMMUTABLE")
    assert fresh.client("ecr").get_lifecycle_policy(repositoryName="fine-tune-slm")
    (group,) = fresh.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/fine-tune-slm", 30)


def push(laptop, subject: str, audience: str = "sts.amazonaws.com") -> str:
    """What AWS says to a workflow whose token has this subject."""
    claims = {"iss": "https://token.actions.githubusercontent.com", "aud": audience, "sub": subject}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    asked = {"RoleArn": "arn:aws:iam::123456789012:role/fine-tune-slm-github", "RoleSessionName": "push"}
    try:
        session = laptop.client("sts").assume_role_with_web_identity(**asked, WebIdentityToken=f"e30.{body}.c2ln")
    except ClientError as error:
        return error.response["Error"]["Code"]
    return session["AssumedRoleUser"]["Arn"].split(":")[-1]


LET_IN = "assumed-role/fine-tune-slm-github/push"


@pytest.mark.parametrize("subject", ["repo:me/mine:ref:refs/heads/main", "repo:me@1234/mine@5678:ref:refs/heads/main"])
def test_a_workflow_of_that_repository_may_push_in_both_forms_of_githubs_subject(fresh, subject):
    """configure-aws-credentials issue 1888: repositories made since 2026-07-15 send the second."""
    assert push(fresh, subject) == LET_IN


@pytest.mark.parametrize(
    "subject",
    [
        "repo:me/mine:ref:refs/heads/other",  # another branch
        "repo:me/mine:pull_request",
        "repo:me@1/mine@2:pull_request",
        "repo:me@1/mine@2:ref:refs/heads/main-2",
        "repo:me@1/mine@2:ref:refs/tags/main",
        "repo:me@1/mine@2:environment:main",
        "repo:me/mine2:ref:refs/heads/main",  # another repository, another owner
        "repo:me@1/mine2@2:ref:refs/heads/main",
        "repo:me@1/not-mine@2:ref:refs/heads/main",
        "repo:me-too@1/mine@2:ref:refs/heads/main",
        "repo:you/me@1/mine@2:ref:refs/heads/main",
        "repo:me2/mine:ref:refs/heads/main",
        "repo:you@1/me@2:ref:refs/heads/me/mine:ref:refs/heads/main",
        # Another repository of the same owner, which may choose the claims of its subject and what it calls its workflow.
        "repo:me@1/other@2:workflow:x/mine@3:ref:refs/heads/main",
        "repo:me@1/other@2:environment:/mine@3:ref:refs/heads/main",
        "repo:me@1/other@2:job_workflow_ref:me/mine@3:ref:refs/heads/main",
    ],
)
def test_no_other_workflow_may(fresh, subject):
    assert push(fresh, subject) == "AccessDenied"


def test_a_token_for_somebody_else_is_none_for_us(fresh):
    assert push(fresh, "repo:me/mine:ref:refs/heads/main", audience="https://github.com/me") == "InvalidIdentityToken"


def test_the_token_is_in_the_secret_and_nowhere_else(fresh):
    token = fresh.token.read_text().strip()
    assert fresh.client("secretsmanager").get_secret_value(SecretId="huggingface/api-token")["SecretString"] == token
    summary = (fresh.state / "setup-summary.txt").read_text()
    for text in (fresh.first.stdout, fresh.first.stderr, summary, json.dumps(fresh.journal()), json.dumps(parameters(fresh))):
        assert token not in text
    for words in ("123456789012", "s3://fine-tune-slm", "huggingface/api-token: stored", "40 USD a month", "names in Parameter Store"):
        assert words in summary
    role = "arn:aws:iam::123456789012:role/fine-tune-slm-github"
    assert f"me/mine, with the variables AWS_ROLE_ARN={role} AWS_REGION=us-east-1 ECR_REPOSITORY=fine-tune-slm" in summary
    assert yaml.safe_load((fresh.state / "local.yaml").read_text()) == {"cloud": "twin"}


def test_a_second_init_changes_nothing(fresh):
    before, summary = len(fresh.journal()), (fresh.state / "setup-summary.txt").read_text()
    done = fresh.inv("init", "--yes", "--token", str(fresh.token))
    assert "nothing to do" in done.stdout
    assert changes(fresh, before) == set()
    assert (fresh.state / "setup-summary.txt").read_text() == summary


def test_a_changed_setting_changes_that_and_stays(fresh):
    done = fresh.inv("init", "--yes", overrides=("box.instance_type=g5.2xlarge",))
    assert "~ SSM Parameter              /fine-tune-slm/ec2/instance-type" in done.stderr
    assert "+ " not in done.stderr and "- " not in done.stderr
    assert "nothing to do" in fresh.inv("init", "--yes").stdout
    assert parameters(fresh)["/fine-tune-slm/ec2/instance-type"] == "g5.2xlarge"
    fresh.inv("init", "--yes", overrides=("box.instance_type=g6.2xlarge",))


def test_who_hears_of_the_budget_may_be_said_later_and_be_somebody_else(fresh):
    budgets, about = fresh.client("budgets"), {"AccountId": "123456789012"}
    for who in ("me@example.com", "you@example.com"):
        fresh.inv("init", "--yes", overrides=(f"cloud.budget_email={who}",))
        (budget,) = budgets.describe_budgets(**about)["Budgets"]
        (notice,) = budgets.describe_notifications_for_budget(**about, BudgetName=budget["BudgetName"])["Notifications"]
        assert notice["Threshold"] == 80 and who in budget["BudgetName"]
    fresh.inv("init", "--yes", overrides=("cloud.budget_email=null",))
    assert [one["BudgetName"] for one in budgets.describe_budgets(**about)["Budgets"]] == ["fine-tune-slm"]


def test_without_a_yes_nothing_is_changed(fresh):
    before = parameters(fresh)
    done = fresh.inv("init", overrides=("cloud.log_stream_prefix=other",), ok=False)
    assert done.returncode == 1 and "`--yes`" in done.stderr
    assert parameters(fresh) == before
    assert "nothing to do" in fresh.inv("init", "--yes").stdout


@pytest.mark.slow
def test_the_chain_runs_in_it_and_destroy_leaves_what_was_kept_on_purpose(fresh):
    """Last but one in this file: afterwards only the bucket and the volume are there."""
    stand_in_trainer.register(fresh.state)
    fresh.inv("up", "deploy", "train", "publish")
    ec2 = fresh.client("ec2")
    (box,) = [instance for group in ec2.describe_instances()["Reservations"] for instance in group["Instances"]]
    (volume,) = [
        disk["VolumeId"] for disk in ec2.describe_volumes(Filters=[{"Name": "tag-key", "Values": ["fine-tune-slm:box"]}])["Volumes"]
    ]
    names = parameters(fresh)
    assert (names["/fine-tune-slm/ec2/instance-id"], names["/fine-tune-slm/ebs/volume-id"]) == (box["InstanceId"], volume)
    assert box["SecurityGroups"][0]["GroupName"].startswith("fine-tune-slm-Network")
    refused = fresh.inv("destroy", "--yes", ok=False)
    assert "is running" in refused.stderr and "`inv down -- " in refused.stderr
    fresh.inv("down")
    objects = fresh.objects()
    listed = fresh.inv("destroy", ok=False)
    assert f"- EC2 Instance               {box['InstanceId']}" in listed.stderr and "1 images" in listed.stderr
    assert parameters(fresh) == names
    done = fresh.inv("destroy", "--yes")
    assert volume in done.stdout and "s3://fine-tune-slm" in done.stdout
    assert fresh.objects() == objects
    left(fresh, volumes=[volume])
    assert changes(fresh, before := len(fresh.journal())) == set()
    fresh.inv("destroy", "--yes")
    assert changes(fresh, before) == set()


def left(laptop, volumes: list[str]) -> None:
    """Nothing is there but these volumes."""
    assert parameters(laptop) == {}
    assert laptop.client("iam").list_roles()["Roles"] == []
    assert laptop.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"] == []
    assert laptop.client("ecr").describe_repositories()["repositories"] == []
    assert laptop.client("logs").describe_log_groups()["logGroups"] == []
    assert laptop.client("secretsmanager").list_secrets()["SecretList"] == []
    assert laptop.client("scheduler").list_schedules()["Schedules"] == []
    assert laptop.client("ec2").describe_launch_templates()["LaunchTemplates"] == []
    assert [volume["VolumeId"] for volume in laptop.client("ec2").describe_volumes()["Volumes"]] == volumes
    with pytest.raises(ClientError, match="does not exist"):
        laptop.client("cloudformation").describe_stacks(StackName=schema.TOOL)


@pytest.mark.slow
def test_a_kept_bucket_is_taken_up_again_and_goes_when_it_is_named(fresh):
    done = fresh.inv("init", "--yes")
    assert "= bucket fine-tune-slm: exists already" in done.stderr and "+ S3 Bucket" not in done.stderr
    fresh.inv("destroy", "--data", "--yes")
    assert buckets(fresh) == []
    left(fresh, volumes=[])
    fresh.inv("destroy", "--data", "--yes")


ODD = """ec2/instance-id i-odd, ec2/instance-type g5.4xlarge, ebs/volume-id vol-odd, ebs/mount-path /odd, ebs/volume-type gp2,
ebs/size-gb 123, s3/bucket odd-bucket, s3/prefix odd, ecr/repository odd-images, ecr/registry 1.dkr.ecr.us-east-1.amazonaws.com,
secrets/hf-token-name odd/token, secrets/aws-credentials-name odd/credentials, secrets/docker-token-name docker/hub-token,
cloudwatch/log-group /odd, cloudwatch/log-stream-prefix odd, output/hf-repo me/odd, aws/region us-east-1"""


@pytest.mark.slow  # half a minute, in which Parameter Store would not make the names again
def test_all_names_of_the_seed_that_were_put_there_by_hand_keep_their_values(tmp_path):
    from twin import world

    laptop, ssm = empty(tmp_path / "by hand"), None
    try:
        ssm, odd = laptop.client("ssm"), dict(pair.split() for pair in ODD.split(","))
        assert set(odd) == set(SEED.split())
        for name, value in odd.items():
            ssm.put_parameter(Name=f"/fine-tune-slm/{name}", Value=value, Type="String")
        before = parameters(laptop)
        ssm.put_parameter(Name="/fine-tune-slm/budget/email", Value="me@example.com", Type="SecureString")
        refused = laptop.inv("init", "--yes", ok=False)
        assert "/fine-tune-slm/budget/email in Parameter Store is a SecureString" in refused.stderr
        ssm.delete_parameter(Name="/fine-tune-slm/budget/email")
        assert parameters(laptop) == before
        laptop.inv("init", "--yes")
        assert {name: parameters(laptop)[f"/fine-tune-slm/{name}"] for name in odd} == odd
        laptop.inv("init", "--yes", overrides=("box.disk_gb=124",))
        assert {name: parameters(laptop)[f"/fine-tune-slm/{name}"] for name in odd} == odd | {"ebs/size-gb": "124"}
    finally:
        world.stop(laptop.state)


@pytest.fixture
def made_by_hand(tmp_path):
    from twin import world

    made = empty(tmp_path / "by hand")
    yield made
    world.stop(made.state)


@pytest.mark.slow  # likewise
def test_what_an_account_has_already_is_used_and_survives(made_by_hand):
    """The names of somebody who made it all by hand."""
    s3, ssm, iam = made_by_hand.client("s3"), made_by_hand.client("ssm"), made_by_hand.client("iam")
    s3.create_bucket(Bucket="my-own-bucket")
    s3.put_object(Bucket="my-own-bucket", Key="theirs/file", Body=b"x")
    made_by_hand.client("ecr").create_repository(repositoryName="fine-tune-llama")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="EC2-FineTune-Role", AssumeRolePolicyDocument=json.dumps(trust))
    by_hand = {"s3/bucket": "my-own-bucket", "ecr/repository": "fine-tune-llama", "ec2/role": "EC2-FineTune-Role", "not/ours": "mine"}
    for name, value in by_hand.items():
        ssm.put_parameter(Name=f"/fine-tune-slm/{name}", Value=value, Type="String")
    done = made_by_hand.inv("init", "--yes")
    for words in ("bucket my-own-bucket", "repository fine-tune-llama", "box role EC2-FineTune-Role"):
        assert f"= {words}: exists already" in done.stderr
    names = parameters(made_by_hand)
    assert {name: names[f"/fine-tune-slm/{name}"] for name in by_hand} == by_hand
    assert (
        iam.get_instance_profile(InstanceProfileName="fine-tune-slm-box")["InstanceProfile"]["Roles"][0]["RoleName"] == "EC2-FineTune-Role"
    )
    made_by_hand.inv("destroy", "--data", "--yes")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="my-own-bucket")["Contents"]] == ["theirs/file"]
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["EC2-FineTune-Role"]
    assert parameters(made_by_hand) == {"/fine-tune-slm/not/ours": "mine"}
