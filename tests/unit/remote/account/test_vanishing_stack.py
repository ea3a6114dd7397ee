"""A stack that an earlier `destroy` removes may be gone from one call to the next: it is looked up by its id, which stays."""

import json
from dataclasses import replace

import pytest

from remote.account import stack
from remote.aws.session import Aws

TEMPLATE = {"Resources": {"One": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "/vanishing/one", "Value": "1"}}}}


@pytest.fixture
def account(aws):
    """An account with a stack of its own, which has a parameter."""
    other = Aws(replace(aws.cloud, stack="vanishing"))
    client = other.client("cloudformation")
    named = {"StackName": other.cloud.own, "ChangeSetName": "first"}
    client.create_change_set(**named, ChangeSetType="CREATE", TemplateBody=json.dumps(TEMPLATE))
    client.get_waiter("change_set_create_complete").wait(**named, WaiterConfig={"Delay": 1})
    client.execute_change_set(**named)
    client.get_waiter("stack_create_complete").wait(StackName=other.cloud.own, WaiterConfig={"Delay": 1})
    return other


def test_one_that_vanishes_while_it_is_looked_at_has_nothing(account, monkeypatch):
    client = account.client("cloudformation")
    asked = client.describe_stacks

    def last_seen(**words):
        answer = asked(**words)
        monkeypatch.undo()
        client.delete_stack(StackName=answer["Stacks"][0]["StackId"])
        client.get_waiter("stack_delete_complete").wait(StackName=answer["Stacks"][0]["StackId"], WaiterConfig={"Delay": 1})
        return answer

    monkeypatch.setattr(client, "describe_stacks", last_seen)
    found = stack.find(account)
    assert (found.resources, found.status) == ({}, "CREATE_COMPLETE")
    stack.remove(account, found)
    assert stack.find(account) == stack.Stack()
