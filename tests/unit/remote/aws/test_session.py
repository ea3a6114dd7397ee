"""What AWS refuses because it is busy: tried again from a verb's first call on, and said to be that."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from remote.aws import session
from twin import world


@pytest.mark.slow  # it waits as long as boto3 does between attempts
def test_the_first_call_of_a_verb_is_tried_as_often_as_all_others(aws):
    state, cloud = Path(aws.cloud.state), {"region": aws.cloud.region, "stack": None}
    aws.client("ssm").put_parameter(Name="/a/name", Value="0", Type="String")
    world.fault(state, "throttle", only="ssm.GetParameters", count=3)
    try:
        assert session.fetch(["/a/name"], cloud) == {"/a/name": "0"}
    finally:
        world.clear_faults(state)


def test_a_busy_account_is_told_to_try_again_and_not_to_change_its_policy():
    busy = ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetParameters")
    hint = session.explain(busy).hint
    assert "again" in hint and "policy" not in hint
