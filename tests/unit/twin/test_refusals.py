"""The account's rules of twin/REFUSALS.md that need no box: each as a client meets it."""

import ast
import json
import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, WaiterError

from twin import world
from twin.aws.cloudformation import handlers, templates
from twin.aws.cloudformation.resources import RESOURCE_TYPES
from twin.aws.iam.keys import LAPTOP

ROOT = Path(world.__file__).parent.parent
PAGE = (ROOT / "twin/REFUSALS.md").read_text(encoding="utf-8")


def padded(length: int) -> str:
    """A policy of so many characters, and much white space besides."""
    text = json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Sid": "S", "Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}, indent=9
    )
    missing = length - len(re.sub(r"\s", "", text))
    return text.replace('"S"', f'"{"S" * (missing + 1)}"')


def refusal(call, **words) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**words)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def test_policies_have_a_longest_length_without_their_white_space(cloud):
    iam = cloud.iam
    iam.create_user(UserName="long")
    iam.create_group(GroupName="long")
    iam.create_role(RoleName="long", AssumeRolePolicyDocument=padded(2048))
    put = {"User": iam.put_user_policy, "Group": iam.put_group_policy, "Role": iam.put_role_policy}
    for kind, most in {"User": 2048, "Group": 5120, "Role": 10240}.items():
        half = {f"{kind}Name": "long", "PolicyName": "half", "PolicyDocument": padded(most // 2)}
        rest = {f"{kind}Name": "long", "PolicyName": "rest"}
        put[kind](**half)
        put[kind](**rest, PolicyDocument=padded(most // 2))
        put[kind](**half)  # in the place of itself
        words = f"Maximum policy size of {most} bytes exceeded for {kind.lower()} long"
        assert refusal(put[kind], **rest, PolicyDocument=padded(most // 2 + 1)) == ("LimitExceeded", words)
    arn = iam.create_policy(PolicyName="whole", PolicyDocument=padded(6144))["Policy"]["Arn"]
    too_long = ("LimitExceeded", "Cannot exceed quota for PolicySize: 6144")
    assert refusal(iam.create_policy, PolicyName="more", PolicyDocument=padded(6145)) == too_long
    assert refusal(iam.create_policy_version, PolicyArn=arn, PolicyDocument=padded(6145)) == too_long
    trust = ("LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048")
    assert refusal(iam.create_role, RoleName="trusting", AssumeRolePolicyDocument=padded(2049)) == trust
    assert refusal(iam.update_assume_role_policy, RoleName="long", PolicyDocument=padded(2049)) == trust


def test_the_handlers_are_those_of_the_registry():
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    assert set(handlers.HANDLERS) == set(RESOURCE_TYPES) == set(handlers.ARNS)
    for type, listed in handlers.HANDLERS.items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", type).schema
        assert {name: set(words.split()) for name, words in listed.items()} == {
            name: set(handler["permissions"]) for name, handler in schema["handlers"].items()
        }, type
        every = {action for words in listed.values() for action in words.split()}
        for path, words in handlers.ONLY_WITH.get(type, {}).items():
            assert path.split(".")[0] in schema["properties"] and set(words.split()) <= every, (type, path)


TEMPLATE = """
Resources:
  Group: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: /handled, RetentionInDays: 7}}
"""


def test_a_handler_that_may_not_read_back_fails_the_stack(cloud):
    """All that making a log group calls by name is allowed; what its handler reads besides is not."""
    made = ["logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:DeleteLogGroup", "logs:DescribeLogGroups", "logs:TagResource"]
    allowed = [*made, "cloudformation:*", "logs:ListTagsForResource", "logs:DescribeIndexPolicies", "logs:DescribeResourcePolicies"]
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    world.enforce(cloud.state, [{"Version": "2012-10-17", "Statement": [statement]}])
    laptop = world.client(cloud.state, "cloudformation", LAPTOP, retries={"total_max_attempts": 1})
    try:
        where = {"StackName": "handled", "ChangeSetName": "first"}
        laptop.create_change_set(**where, ChangeSetType="CREATE", TemplateBody=TEMPLATE)
        laptop.get_waiter("change_set_create_complete").wait(**where, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
        laptop.execute_change_set(**where)
        with pytest.raises(WaiterError, match="ROLLBACK_COMPLETE"):
            laptop.get_waiter("stack_create_complete").wait(StackName="handled", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
        events = laptop.describe_stack_events(StackName="handled")["StackEvents"]
    finally:
        world.enforce(cloud.state, None)
    (reason,) = [event["ResourceStatusReason"] for event in events if event["ResourceStatus"] == "CREATE_FAILED"]
    assert "not authorized to perform: logs:GetDataProtectionPolicy on resource:" in reason and "HandlerErrorCode: AccessDenied" in reason


def test_a_long_life_comes_in_pages(cloud):
    lines = "\n".join(f"  G{n}: {{Type: AWS::Logs::LogGroup, Properties: {{LogGroupName: /paged/{n}}}}}" for n in range(101))
    where = {"StackName": "paged", "ChangeSetName": "first"}
    cfn = cloud.cloudformation
    cfn.create_change_set(**where, ChangeSetType="CREATE", TemplateBody=f"Resources:\n{lines}")
    often = {"Delay": 0.1, "MaxAttempts": 1200}
    cfn.get_waiter("change_set_create_complete").wait(**where, WaiterConfig=often)
    cfn.execute_change_set(**where)
    cfn.get_waiter("stack_create_complete").wait(StackName="paged", WaiterConfig=often)
    assert len(cfn.describe_stack_events(StackName="paged")["StackEvents"]) == 100
    pages = cfn.get_paginator("describe_stack_events").paginate(StackName="paged")
    assert len({event["EventId"] for page in pages for event in page["StackEvents"]}) == 104  # three of the stack itself
    summaries = cfn.get_paginator("list_stack_resources").paginate(StackName="paged")
    assert sum(len(page["StackResourceSummaries"]) for page in summaries) == 101


def test_a_deleted_parameter_cannot_be_made_again_at_once(cloud):
    ssm = world.client(cloud.state, "ssm", LAPTOP)
    again = {"Name": "/again", "Value": "1", "Type": "String"}
    ssm.put_parameter(**again)
    ssm.delete_parameter(Name="/again")
    assert refusal(ssm.put_parameter, **again)[0] == "ParameterAlreadyExists"
    world.forward(cloud.state, 30)
    ssm.put_parameter(**again)


def test_what_waits_for_nothing_is_made_at_once_and_a_chain_is_not():
    one = {"Type": "AWS::SSM::Parameter"}
    chain = {f"P{n}": one | ({"DependsOn": f"P{n - 1}"} if n else {}) for n in range(9)}
    assert templates.throttled(dict.fromkeys(chain, one), "AWS::SSM::Parameter", 5) == {"P5", "P6", "P7", "P8"}
    assert templates.throttled(chain, "AWS::SSM::Parameter", 1) == set()


def test_every_rule_of_the_page_has_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    there = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 15 and named <= there, named - there
