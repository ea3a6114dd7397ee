"""Two stacks in one account, IAM enforced: one's own can be used, and nothing of the other's can be commanded, read or stopped."""

from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from conf import load
from remote.account import permissions, setup_permissions, stack
from remote.account.statement import Account, document
from twin import world
from twin.aws.services import ecr

pytestmark = pytest.mark.slow  # two stacks of one account, each with a box

OTHER = ("cloud.stack=demo",)
STACKS = {"": (), "demo": OTHER}
REFUSED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def cloud(name: str):
    return load.load(["cloud=twin", *STACKS[name]], lambda _, early: stack.default_names(early), Path("none")).cloud


@pytest.fixture(scope="module")
def clouds(laptop):
    """The settings of both stacks; for the twin, an account's number decides no name."""
    with pytest.MonkeyPatch.context() as patch:
        import loaded

        loaded.enter(patch, laptop.state)
        yield {name: cloud(name) for name in STACKS}


@pytest.fixture(scope="module")
def held(clouds):
    """The policies of who trains with a stack."""
    policies = {name: permissions.roles(one, world.ACCOUNT, world.CALLER) for name, one in clouds.items()}
    return {name: [one["laptop"], one["files"]] for name, one in policies.items()}


@pytest.fixture(scope="module")
def boxes(laptop, clouds, held):
    """The instance of each stack's box, made with no more rights than its own policies give."""
    token = laptop.folder / "token"
    token.write_text(world.environment(laptop.state)["HF_TOKEN"])
    setup = document(setup_permissions.setup(Account("aws", world.ACCOUNT, clouds["demo"], world.CALLER)))
    world.enforce(laptop.state, [*held["demo"], setup])
    laptop.inv("init", "--yes", "--name", "demo", "--token", str(token))
    instances = {}
    for name, words in STACKS.items():
        world.enforce(laptop.state, held[name])
        laptop.inv("up", overrides=words)
        parameter = f"{clouds[name].root}ec2/instance-id"
        instances[name] = laptop.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        laptop.client("s3").put_object(Bucket=clouds[name].bucket, Key=f"{clouds[name].prefix}/runs/r/config.yaml", Body=b"{}")
    world.enforce(laptop.state, None)
    assert len(set(instances.values())) == 2
    return instances


def command(instance: str) -> dict:
    return {"InstanceIds": [instance], "DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}


# What a person who trains does with a box, a run, a token, an image, a name.
ACTIONS: dict[str, Callable] = {
    "commands the box": lambda ask, cloud, box: ask("ssm").send_command(**command(box)),
    "tags the box": lambda ask, cloud, box: ask("ec2").create_tags(Resources=[box], Tags=[{"Key": "fine-tune-slm:stopped", "Value": "x"}]),
    "reads its console": lambda ask, cloud, box: ask("ec2").get_console_output(InstanceId=box),
    "reads a run": lambda ask, cloud, box: ask("s3").get_object(Bucket=cloud.bucket, Key=f"{cloud.prefix}/runs/r/config.yaml"),
    "lists runs": lambda ask, cloud, box: ask("s3").list_objects_v2(Bucket=cloud.bucket),
    "plants a run": lambda ask, cloud, box: ask("s3").put_object(Bucket=cloud.bucket, Key=f"{cloud.prefix}/runs/r/planted", Body=b""),
    "reads the token": lambda ask, cloud, box: ask("secretsmanager").get_secret_value(SecretId=cloud.hub_secret),
    "reads names": lambda ask, cloud, box: ask("ssm").get_parameters(Names=[f"{cloud.root}s3/bucket"]),
    "writes which box": lambda ask, cloud, box: ask("ssm").put_parameter(
        Name=f"{cloud.root}ec2/instance-id", Value=box, Type="String", Overwrite=True
    ),
    "looks at images": lambda ask, cloud, box: ask("ecr").describe_images(repositoryName=cloud.repository),
    "pushes an image": lambda ask, cloud, box: ask("ecr").put_image(
        repositoryName=cloud.repository, imageManifest=ecr.manifest(["true"], "/", {}), imageTag="squatted"
    ),
    "looks at the schedule": lambda ask, cloud, box: ask("scheduler").get_schedule(Name=f"{cloud.own}-{box}"),
}
REMOVALS: dict[str, Callable] = {
    "disarms the schedule": lambda ask, cloud, box: ask("scheduler").delete_schedule(Name=f"{cloud.own}-{box}"),
    "stops the box": lambda ask, cloud, box: ask("ec2").stop_instances(InstanceIds=[box]),
}


def code(action: Callable, *about) -> str:
    try:
        action(*about)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "done"


@pytest.mark.parametrize("action", [*ACTIONS, *REMOVALS])
@pytest.mark.parametrize("mine", STACKS)
def test_who_trains_with_one_stack_can_do_it_with_his_own_and_not_with_the_other(laptop, clouds, held, boxes, mine, action):
    if mine == "demo" and action in REMOVALS:
        pytest.skip("its box is stopped by no other test, but the unnamed one's is by this")
    (other,) = set(STACKS) - {mine}
    world.enforce(laptop.state, held[mine])
    ask = lambda service: world.client(laptop.state, service, "twin")  # noqa: E731
    try:
        assert code((ACTIONS | REMOVALS)[action], ask, clouds[other], boxes[other]) in REFUSED
        if action not in REMOVALS:
            assert code(ACTIONS[action], ask, clouds[mine], boxes[mine]) == "done", "so that the refusal is about whose it is"
    finally:
        world.enforce(laptop.state, None)


@pytest.mark.parametrize("mine", STACKS)
def test_no_box_can_be_made_to_look_like_one_of_the_other_stack(laptop, clouds, held, boxes, mine):
    """Its laptops would take it for theirs, and hand it rows and commands."""
    theirs = {"": "demo:anna", "demo": "anna"}[mine]
    tags = [{"Key": "fine-tune-slm:box", "Value": theirs}]
    world.enforce(laptop.state, held[mine])
    ec2 = world.client(laptop.state, "ec2", "twin")
    launch = {"ImageId": laptop.client("ec2").describe_images()["Images"][0]["ImageId"], "InstanceType": "g6.2xlarge"}
    launch |= {"MinCount": 1, "MaxCount": 1, "LaunchTemplate": {"LaunchTemplateName": clouds[mine].launch_template, "Version": "$Latest"}}

    def tagged(kind: str, tags: list[dict]) -> dict:
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]}

    own = [{"Key": "fine-tune-slm:box", "Value": {"": "me", "demo": "demo:me"}[mine]}]
    try:
        assert code(lambda: ec2.create_tags(Resources=[boxes[mine]], Tags=tags)) in REFUSED
        assert code(lambda: ec2.run_instances(**launch, **tagged("instance", tags))) in REFUSED
        assert code(lambda: ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, **tagged("volume", tags))) in REFUSED
        for other in (
            {"MetadataOptions": {"HttpTokens": "optional"}},
            {"InstanceType": "c5.large"},
            {"LaunchTemplate": {"LaunchTemplateName": clouds[({*STACKS} - {mine}).pop()].launch_template}},
        ):
            assert code(lambda other=other: ec2.run_instances(**launch | other, **tagged("instance", own))) in REFUSED, other
        made = ec2.run_instances(**launch, **tagged("instance", own))["Instances"][0]["InstanceId"]
    finally:
        world.enforce(laptop.state, None)
    laptop.client("ec2").terminate_instances(InstanceIds=[made])


def on_the_box(laptop, instance: str, script: str) -> str:
    ssm, parameters = laptop.client("ssm"), {"commands": [script]}
    sent = ssm.send_command(InstanceIds=[instance], DocumentName="AWS-RunShellScript", Parameters=parameters)["Command"]["CommandId"]
    ssm.get_waiter("command_executed").wait(CommandId=sent, InstanceId=instance, WaiterConfig={"Delay": 1, "MaxAttempts": 900})
    return ssm.get_command_invocation(CommandId=sent, InstanceId=instance)["StandardOutputContent"]


@pytest.mark.parametrize("mine", STACKS)
def test_a_box_tags_itself_alone_and_reads_nothing_of_the_other_stack(laptop, clouds, boxes, mine):
    (other,) = set(STACKS) - {mine}
    theirs, images = clouds[other], "--image-ids imageTag=x"
    tries = {
        "tag itself": f"ec2 create-tags --resources {boxes[mine]} --tags Key=fine-tune-slm:stopped,Value=x",
        "own run": f"s3 cp s3://{clouds[mine].bucket}/{clouds[mine].prefix}/runs/r/config.yaml -",
        "own image": f"ecr batch-get-image --repository-name {clouds[mine].repository} {images}",
        "another tag": f"ec2 create-tags --resources {boxes[mine]} --tags Key=fine-tune-slm:box,Value=demo:x",
        "tag the other": f"ec2 create-tags --resources {boxes[other]} --tags Key=fine-tune-slm:stopped,Value=x",
        "stop the other": f"ec2 stop-instances --instance-ids {boxes[other]}",
        "their run": f"s3 cp s3://{theirs.bucket}/{theirs.prefix}/runs/r/config.yaml -",
        "their token": f"secretsmanager get-secret-value --secret-id {theirs.hub_secret}",
        "their image": f"ecr batch-get-image --repository-name {theirs.repository} {images}",
        "push to them": f"ecr put-image --repository-name {theirs.repository} --image-tag x --image-manifest '{{}}'",
    }
    script = "\n".join(f"aws {words} >/dev/null 2>&1 && echo '{name}'" for name, words in tries.items()) + "\ntrue"
    assert on_the_box(laptop, boxes[mine], script).split("\n")[:-1] == ["tag itself", "own run", "own image"]


def test_a_box_of_the_same_stack_is_neither_stopped_nor_tagged_by_another(laptop, clouds, boxes):
    """Two people with one stack: a box is its laptops' to stop, and its own."""
    laptop.inv("up", overrides=("box.name=second",))
    second = laptop.client("ssm").get_parameter(Name="/fine-tune-slm/ec2/instance-id")["Parameter"]["Value"]
    tries = (f"stop-instances --instance-ids {boxes['']}", f"create-tags --resources {boxes['']} --tags Key=fine-tune-slm:stopped,Value=x")
    script = "\n".join(f"aws ec2 {words} >/dev/null 2>&1 && echo done" for words in tries)
    assert on_the_box(laptop, second, f"{script}\necho end") == "end\n"
    laptop.inv("down", overrides=("box.name=second",))


def test_who_trains_with_a_named_stack_needs_to_name_it_once(laptop, boxes):
    """`init` has written it down beside his other defaults."""
    assert "cloud.stack: demo" in (laptop.state / "local.yaml").read_text()
    printed = laptop.inv("status", overrides=OTHER).stdout
    assert boxes["demo"] in printed and boxes[""] not in printed


@pytest.fixture
def fleet_of_demo(laptop, boxes, clouds):
    """The stack `demo` has a fleet, on which a job waits; for nobody is there an instance."""
    settings = (*OTHER, "fleet=batch", "fleet.max_vcpus=8")
    laptop.inv("init", "--yes", overrides=settings)
    world.fault(laptop.state, "batch-capacity-never")
    batch, name = laptop.client("batch"), "fine-tune-slm-demo-0123456789abcdef"
    asks = {"image": "i", "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]}
    batch.register_job_definition(jobDefinitionName=name, type="container", containerProperties=asks)
    job = batch.submit_job(jobName="theirs", jobQueue="fine-tune-slm-demo-spot", jobDefinition=name)["jobId"]
    yield lambda: batch.describe_jobs(jobs=[job])["jobs"][0]["status"]
    batch.terminate_job(jobId=job, reason="the end")
    world.clear_faults(laptop.state)
    laptop.inv("init", "--yes", overrides=(*settings[:-1], "fleet.max_vcpus=0"))


def test_a_stack_without_a_fleet_sees_nothing_of_anothers(laptop, clouds, fleet_of_demo, monkeypatch):
    import loaded

    from remote.aws import batch, fleet, fleet_end
    from remote.aws.session import Aws

    ended = laptop.inv("down", "--fleet")
    assert "0 jobs of the fleet have ended, 0 instances are gone" in ended.stdout + ended.stderr
    refused = laptop.inv("train", overrides=("fleet=batch",), ok=False)
    assert "this account has no fleet: AWS Batch has no queue `fine-tune-slm-spot`" in refused.stdout + refused.stderr
    loaded.enter(monkeypatch, laptop.state)
    aws, theirs = Aws(clouds[""]), Aws(clouds["demo"])
    assert (fleet.environments(aws), fleet_end.unfinished_jobs(aws), fleet_end.definitions(aws)) == ([], [], [])
    assert batch.jobs(aws, clouds[""], "theirs") == []
    assert len(fleet.environments(theirs)) == 2 and len(fleet_end.unfinished_jobs(theirs)) == len(fleet_end.definitions(theirs)) == 1
    assert fleet_of_demo() == "RUNNABLE"


def test_destroy_of_one_stack_leaves_the_other_alone(laptop, clouds, boxes):
    laptop.inv("down", overrides=OTHER)
    laptop.inv("destroy", "--yes", overrides=OTHER)
    shown = laptop.client("ec2").describe_instances(InstanceIds=list(boxes.values()))["Reservations"]
    states = {one["InstanceId"]: one["State"]["Name"] for group in shown for one in group["Instances"]}
    assert states == {boxes[""]: "running", boxes["demo"]: "terminated"}
    stacks = laptop.client("cloudformation").describe_stacks()["Stacks"]
    assert [one["StackName"] for one in stacks] == ["fine-tune-slm"]


def test_a_named_stack_is_named_as_iam_and_s3_can_keep_it_apart():
    from conf.problem import Problem

    for wrong in ("a-b", "Demo", "1st", "i-x", "x" * 17):
        with pytest.raises(Problem, match="small letter"):
            load.load(["cloud=twin", f"cloud.stack={wrong}"], local=Path("none"))
    with pytest.raises(Problem, match="another stack: `cloud.stack=...`"):
        load.load(["cloud=twin", "box.name='demo:me'"], local=Path("none"))
    named = load.load(["cloud=twin", "cloud.stack=demo", "box.name='demo:me'"], local=Path("none"))
    assert named.box.name == "demo:me"


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """An account whose stack an earlier release has made, with a box of then."""
    import loaded
    from conftest import ODD, Laptop

    made = Laptop(tmp_path_factory.mktemp(ODD))
    run = load.load(["cloud=twin"], lambda _, early: {"/fine-tune-slm/s3/bucket": "fine-tune-slm"}, Path("none"))
    made.cloud, account = run.cloud, stack.account(run)
    before = (Path(__file__).parents[1] / "support/stack_before.yaml").read_text(encoding="utf-8")
    parameters = {name: value for name, value in account["stack"]["parameters"].items() if f"\n  {name}:" in before}
    loaded.worlds()
    world.start(made.state, {}, account | {"stack": account["stack"] | {"template": before, "parameters": parameters}})
    yield made
    world.stop(made.state)


def parameters(laptop) -> dict[str, str]:
    pages = laptop.client("ssm").get_paginator("get_parameters_by_path").paginate(Path="/fine-tune-slm", Recursive=True)
    return {parameter["Name"]: parameter["Value"] for page in pages for parameter in page["Parameters"]}


def test_the_stack_of_an_earlier_release_is_updated_in_its_place(older):
    """Names, roles, bucket and box are the same ones as before; nothing is replaced or removed."""
    older.inv("up")
    names, ec2 = parameters(older), older.client("ec2")
    groups = [one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]]
    printed = older.inv("init", "--yes").stderr
    assert "REPLACED" not in printed and not [line for line in printed.splitlines() if line.startswith("  - ")] and "~ IAM Role" in printed
    assert (
        parameters(older).items() >= names.items()
        and [one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]] == groups
    )
    policies = permissions.roles(older.cloud, world.ACCOUNT, world.CALLER)
    world.enforce(older.state, [policies["laptop"], policies["files"]])
    older.inv("up", "down")
    done = older.inv("up")
    world.enforce(older.state, None)
    assert names["/fine-tune-slm/ec2/instance-id"] in done.stdout, "the box of before"
    instance = names["/fine-tune-slm/ec2/instance-id"]
    script = f"aws ec2 create-tags --resources {instance} --tags Key=fine-tune-slm:stopped,Value=x && echo done"
    assert on_the_box(older, instance, script) == "done\n", "it still stops itself"
    assert "nothing to do" in older.inv("init", "--yes").stdout


def test_with_a_token_that_may_only_read_the_box_reads_no_other(older):
    """Which is what it needs for a gated base model; the laptop publishes with the other."""
    older.client("secretsmanager").create_secret(Name="huggingface/read-token", SecretString="hf_read_only")
    words = ("cloud.hub_read_secret=huggingface/read-token",)
    older.inv("init", "--yes", overrides=words)
    older.inv("up")
    instance = parameters(older)["/fine-tune-slm/ec2/instance-id"]
    secrets = ("huggingface/read-token", "huggingface/api-token")
    script = "\n".join(f"aws secretsmanager get-secret-value --secret-id {one} --query SecretString --output text" for one in secrets)
    assert on_the_box(older, instance, f"{{ {script}\n}} 2>/dev/null || true") == "hf_read_only\n"
    assert load.load(["cloud=twin", *words], local=Path("none")).cloud.box_secret == "huggingface/read-token"
