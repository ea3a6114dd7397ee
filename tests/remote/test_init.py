"""`inv init` where CloudFormation does not do what it should: what was there before is not lost, and the way on is named."""

import json

import pytest
from botocore.exceptions import ClientError

from conf.problem import Problem
from remote import init, stack

LEFT = [{"Name": f"/fine-tune-slm/{name}", "Value": name, "Type": "String"} for name in ("s3/bucket", "s3/prefix")]


class There(ClientError):
    def __init__(self):
        super().__init__({"Error": {"Code": "ParameterAlreadyExists"}}, "PutParameter")


class Missing(ClientError):
    def __init__(self):
        super().__init__({"Error": {"Code": "ParameterNotFound"}}, "DeleteParameter")


class Account:
    """Parameter Store, and a stack that comes to an end when it is waited for."""

    cloud = type("Cloud", (), {"region": "us-east-1"})
    exceptions = type("Exceptions", (), {"ParameterAlreadyExists": There, "ParameterNotFound": Missing})

    def __init__(self, outcome):
        self.names = {entry["Name"]: entry["Value"] for entry in LEFT}
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


@pytest.mark.parametrize("made", [{}, {"/fine-tune-slm/s3/bucket": "s3/bucket", "/fine-tune-slm/s3/prefix": "s3/prefix"}])
def test_names_are_put_back_once_cloudformation_has_settled_and_not_before(monkeypatch, made):
    account = Account(made)
    monkeypatch.setattr(stack, "execute", account.interrupted)
    monkeypatch.setattr(stack, "settled", account.settled)
    with pytest.raises(KeyboardInterrupt):
        init.carry_out(account, "change", {}, LEFT)
    assert account.done[0] == "settled" and account.names == {entry["Name"]: entry["Value"] for entry in LEFT}


def test_who_does_not_wait_is_given_the_commands(monkeypatch, capsys):
    account = Account(KeyboardInterrupt())
    monkeypatch.setattr(stack, "execute", account.interrupted)
    monkeypatch.setattr(stack, "settled", account.settled)
    with pytest.raises(KeyboardInterrupt):
        init.carry_out(account, "change", {}, LEFT)
    assert account.done == ["settled"] and account.names == {init.KEPT: json.dumps({entry["Name"]: entry["Value"] for entry in LEFT})}
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
    with pytest.raises(Problem, match=status) as told:
        stack.propose(aws, {})
    assert way in told.value.hint


def test_a_profile_that_hands_out_another_role_is_not_adopted(aws, settings, monkeypatch):
    monkeypatch.setattr(stack, "find", lambda aws: stack.Stack())
    iam = aws.client("iam")
    iam.create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="adopted")
    iam.add_role_to_instance_profile(InstanceProfileName="adopted", RoleName="theirs")
    run = settings("cloud.instance_profile=adopted", "cloud.launch_template=free")
    with pytest.raises(Problem, match="hands out theirs, not `fine-tune-slm-box`") as told:
        init.survey(init.Aws(run.cloud), run)
    assert "`cloud.box_role=theirs`" in told.value.hint
