"""What an agent asks for at its start beside commands: answered as documented, or refused so."""

import http.client
import json
from urllib.parse import urlsplit

import pytest

from twin import world


def asked(cloud, service: str, operation: str, path: str = "/") -> tuple[int, dict]:
    scope = f"{world.running(cloud.state)['keys']['owner']}/20260101/us-east-1/{service}/aws4_request"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"}
    headers |= {"X-Amz-Target": f"AmazonSSM.{operation}"} if service == "ssm" else {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(cloud.ssm.meta.endpoint_url).netloc, timeout=60)
    connection.request("POST", path, "{}", headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def test_there_are_no_associations(cloud):
    assert cloud.ssm.list_associations()["Associations"] == []


@pytest.mark.parametrize("channel", ["control-channel/i-0123456789abcdef0", "data-channel/somebody-0123"])
def test_the_channel_of_session_manager_is_refused(cloud, channel):
    status, answer = asked(cloud, "ssmmessages", "", f"/v1/{channel}")
    assert (status, answer["__type"]) == (403, "AccessDeniedException") and "ssmmessages:Create" in answer["message"]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("ListInstanceAssociations", {"Associations": []}), ("UpdateInstanceAssociationStatus", {}), ("PutInventory", {"Message": ""})],
)
def test_an_agents_own_calls_are_answered(cloud, operation, expected):
    assert asked(cloud, "ssm", operation) == (200, expected)


def test_no_role_comes_from_systems_manager_itself(cloud):
    status, answer = asked(cloud, "ssm", "RequestManagedInstanceRoleToken")
    assert (status, answer["__type"]) == (400, "AccessDeniedException")
