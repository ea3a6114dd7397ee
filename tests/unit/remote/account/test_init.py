"""`inv init` where CloudFormation does not do what it should: what was there before is not lost, and the way on is named."""

import json
from pathlib import Path

import loaded
import pytest
from botocore.exceptions import ClientError

from conf import load
from conf.problem import Problem
from remote.account import init, stack
from remote.account import names as parameter_names
from twin import world

LEFT = [{"Name": f"/fine-tune-slm/{name}", "Value": name, "Type": "String"} for name in ("s3/bucket", "s3/prefix")]


class There(ClientError):
    def __init__(self):
        super().__init__({"Error": {"Code": "ParameterAlreadyExists"}}, "PutParameter")


class Missing(ClientError):
    def __init__(self):
        super().__init__({"Error": {"Code": "ParameterNotFound"}}, "DeleteParameter")


class Account:
    """Parameter Store, and a stack that comes to an end when it is waited for."""

    cloud = type("Cloud", (), {"region": "us-east-1", "stack": None})
    exceptions = type("Exceptions", (), {"ParameterAlreadyExists": There, "ParameterNotFound": Missing})

    def __init__(self, outcome):
        self.names = {parameter["Name"]: parameter["Value"] for parameter in LEFT}
        self.outcome = outcome
        self.done = []

    def client(self, service):
        return self

    def delete_parameter(self, Name):
        if Name not in self.names:
            raise Missing()
        del self.names[Name]

    def put_parameter(self, Name, Value, Type, Overwrite=False):
        if Overwrite:
            self.names[Name] = Value
            return
        self.done.append("put")
        if Name in self.names:
            raise There()
        self.names[Name] = Value

    def interrupted(self, aws, change_set):
        raise KeyboardInterrupt

    def settled(self, aws):
        self.done.append("settled")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        self.names |= self.outcome
        return "CREATE_COMPLETE" if self.outcome else "ROLLBACK_COMPLETE"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(parameter_names, "NAME_DELAY", 0)


@pytest.mark.parametrize("made", [{}, {"/fine-tune-slm/s3/bucket": "s3/bucket", "/fine-tune-slm/s3/prefix": "s3/prefix"}])
def test_names_are_put_back_once_cloudformation_has_settled_and_not_before(monkeypatch, made):
    account = Account(made)
    monkeypatch.setattr(stack, "propose", lambda aws, wanted: ("again", []))
    monkeypatch.setattr(stack, "execute", account.interrupted)
    monkeypatch.setattr(stack, "wait_until_settled", account.settled)
    with pytest.raises(KeyboardInterrupt):
        init.apply(account, "change", {}, LEFT)
    assert account.done[0] == "settled" and account.names == {parameter["Name"]: parameter["Value"] for parameter in LEFT}


def test_who_does_not_wait_is_given_the_commands(monkeypatch, capsys):
    account = Account(KeyboardInterrupt())
    monkeypatch.setattr(stack, "propose", lambda aws, wanted: ("again", []))
    monkeypatch.setattr(stack, "execute", account.interrupted)
    monkeypatch.setattr(stack, "wait_until_settled", account.settled)
    with pytest.raises(KeyboardInterrupt):
        init.apply(account, "change", {}, LEFT)
    assert account.done == ["settled"] and account.names == {
        parameter_names.BACKUP: json.dumps({parameter["Name"]: parameter["Value"] for parameter in LEFT})
    }
    assert (
        "aws ssm put-parameter --region us-east-1 --type String --name /fine-tune-slm/s3/bucket --value s3/bucket"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("status", "way"),
    [
        ("DELETE_FAILED", "`inv destroy`"),
        ("ROLLBACK_FAILED", "`inv destroy`"),
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback --region us-east-1 --stack-name fine-tune-slm"),
    ],
)
def test_a_stack_that_cannot_be_changed_is_named_with_the_way_on(aws, monkeypatch, status, way):
    monkeypatch.setattr(stack, "find", lambda aws: stack.Stack(status))
    with pytest.raises(Problem, match=status) as refusal:
        stack.propose(aws, {})
    assert way in refusal.value.hint


class NeverLooked:
    """CloudFormation, which takes a change set and never says what it would change."""

    cloud = type("Cloud", (), {"own": "fine-tune-slm", "region": "us-east-1"})

    def client(self, service):
        return self

    def create_change_set(self, **request):
        return {"Id": "change"}

    def describe_change_set(self, **request):
        return {"Status": "CREATE_IN_PROGRESS"}


def test_a_change_set_that_is_never_ready_is_not_waited_for_without_end_nor_taken_for_one(monkeypatch):
    monkeypatch.setattr(stack, "find", lambda aws: stack.Stack())
    monkeypatch.setattr(stack, "TIMEOUT", 0.2)
    with pytest.raises(Problem, match="has not said what would change"):
        stack.propose(NeverLooked(), {})


@pytest.fixture
def without_a_stack(tmp_path, monkeypatch):
    """An account in which somebody has put some names into Parameter Store by hand."""
    state = tmp_path / "by hand"
    loaded.worlds()
    world.start(state, {}, {"region": "us-east-1"})
    loaded.enter(monkeypatch, state)
    run = load.load(["cloud=twin", f"cloud.state='{state}'", "box.disk_gb=123"], local=Path("none"))
    made = init.Aws(run.cloud)
    for name, value in {"ebs/size-gb": "123", "s3/prefix": "fine-tune-slm"}.items():
        made.client("ssm").put_parameter(Name=f"/fine-tune-slm/{name}", Value=value, Type="String")
    yield made, run, state
    world.stop(state)


def names(aws) -> dict[str, str]:
    return {parameter["Name"]: parameter["Value"] for parameter in parameter_names.stored(aws)}


def test_names_that_are_there_are_shown_first_then_kept_and_made_again_once_parameter_store_may(without_a_stack, monkeypatch, capsys):
    aws, run, state = without_a_stack
    before = names(aws)
    seen = init.survey(aws, run)
    assert sorted(parameter["Name"] for parameter in seen.by_hand) == sorted(before)
    shown = init.propose(aws, seen.wanted, seen.adopted, seen.by_hand)
    assert "2 names in Parameter Store keep their values" in capsys.readouterr().err and names(aws) == before

    # Nobody waits: Parameter Store would not make them yet, the stack is taken back, and they are there again.
    monkeypatch.setattr(parameter_names, "wait_until_free", later := Later(state))
    later.seconds = [0, 30]
    with pytest.raises(Problem, match="(EbsSizeGb|S3Prefix)Parameter: .*already exists"):
        init.apply(aws, shown.change_set, seen.wanted, seen.by_hand)
    assert names(aws) == before
    later.seconds = [30]
    seen = init.survey(aws, run)
    shown = init.propose(aws, seen.wanted, seen.adopted, seen.by_hand)
    init.apply(aws, shown.change_set, seen.wanted, seen.by_hand)
    after = names(aws)
    assert {name: after[name] for name in before} == before and parameter_names.BACKUP in after
    assert init.read_back(aws, seen.wanted) == len(parameter_names.NAMES) and parameter_names.BACKUP not in names(aws)


class Later:
    """The wait, on the emulated clock."""

    def __init__(self, state: Path):
        self.state, self.seconds = state, []

    def __call__(self) -> None:
        world.forward(self.state, self.seconds.pop(0))


def wanted(aws, settings, *words: str, **more: str) -> dict[str, str]:
    run = settings(*words)
    return init.survey(aws, run).wanted | more


def test_the_reason_is_that_of_this_failure_and_not_of_an_older_one(aws, settings):
    """A stack keeps the events of its whole life: the oldest failure among them is mostly somebody else's."""
    aws.client("logs").create_log_group(logGroupName="/taken/one")
    aws.client("ecr").create_repository(repositoryName="taken-two")
    for parameters, reason in (
        ({"LogGroup": "/taken/one"}, "Logs: .*already exists"),
        ({"Repository": "taken-two"}, "Images: .*already exists"),
    ):
        change_set, changes = stack.propose(aws, wanted(aws, settings, **parameters))
        assert changes
        with pytest.raises(Problem, match=reason) as refusal:
            stack.execute(aws, change_set)
        assert "fix that, then run `inv init` again" in refusal.value.hint
        assert stack.find(aws).status == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.propose(aws, wanted(aws, settings))[1] == []


@pytest.fixture
def a_role_in_the_way(aws):
    iam = aws.client("iam")
    iam.create_role(RoleName="fine-tune-slm-github", AssumeRolePolicyDocument="{}")
    yield
    iam.delete_role(RoleName="fine-tune-slm-github")


def test_a_change_set_that_cloudformation_does_not_take_is_told_with_the_resource_that_stands_in_its_way(aws, settings, a_role_in_the_way):
    before = stack.find(aws)
    asked = wanted(aws, settings, "cloud.github=me/mine")
    with pytest.raises(Problem, match="GithubRole: Resource of type 'AWS::IAM::Role' with identifier 'fine-tune-slm-github'") as refusal:
        stack.propose(aws, asked)
    assert "remove it, or give it another name" in refusal.value.hint
    assert stack.find(aws) == before


def test_who_may_not_read_why_is_told_which_right_he_lacks(aws, settings, a_role_in_the_way):
    asked = wanted(aws, settings, "cloud.github=me/mine")
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    but = {"Effect": "Deny", "Action": "cloudformation:DescribeEvents", "Resource": "*"}
    world.enforce(Path(aws.cloud.state), [{"Version": "2012-10-17", "Statement": [everything, but]}])
    try:
        with pytest.raises(Problem, match="AWS::EarlyValidation::ResourceExistenceCheck") as refusal:
            stack.propose(aws, asked)
    finally:
        world.enforce(Path(aws.cloud.state), None)
    assert "`inv policy --who setup`" in refusal.value.hint and "cloudformation:DescribeEvents" in refusal.value.hint


def test_a_name_that_a_later_version_makes_too_is_kept_where_somebody_has_it_already(aws):
    owned = stack.find(aws).resources
    assert parameter_names.set_by_hand(aws, stack.Stack("UPDATE_COMPLETE", owned)) == []
    lacking = {name: id for name, id in owned.items() if id != "/fine-tune-slm/s3/prefix"}
    (left,) = parameter_names.set_by_hand(aws, stack.Stack("UPDATE_COMPLETE", lacking))
    assert (left["Name"], left["Value"]) == ("/fine-tune-slm/s3/prefix", "fine-tune-slm")


def test_who_does_it_by_hand_takes_the_names_out_of_the_way_first(tmp_path):
    cloud = load.load(["cloud=twin", "cloud.region=eu-west-1"], local=Path("none")).cloud
    commands = init.commands_for_admin(tmp_path, cloud, stack.Stack(), [f"/fine-tune-slm/{n}" for n in range(12)]).split(", then ")
    assert [command.split()[:3] for command in commands] == [
        ["`aws", "ssm", "delete-parameters"],
        ["`aws", "ssm", "delete-parameters"],
        ["`aws", "cloudformation", "create-change-set"],
        ["`aws", "cloudformation", "execute-change-set"],
    ]
    assert "--region eu-west-1 --names /fine-tune-slm/0 " in commands[0] and commands[1].endswith("/10 /fine-tune-slm/11`")


def test_a_profile_that_hands_out_another_role_is_not_adopted(aws, settings, monkeypatch):
    monkeypatch.setattr(stack, "find", lambda aws: stack.Stack())
    iam = aws.client("iam")
    iam.create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="adopted")
    iam.add_role_to_instance_profile(InstanceProfileName="adopted", RoleName="theirs")
    run = settings("cloud.instance_profile=adopted", "cloud.launch_template=free")
    with pytest.raises(Problem, match="hands out theirs, not `fine-tune-slm-box`") as refusal:
        init.survey(init.Aws(run.cloud), run)
    assert "`cloud.box_role=theirs`" in refusal.value.hint
