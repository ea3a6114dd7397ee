"""Who is let in: programs of the world's owner by keys that it has issued. No stranger, no web page, no box in another's name."""

import http.client
import json
import os
import socket
import stat
import subprocess
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from twin import world
from twin.aws.gateway import guard

PAGE = {"Origin": "http://127.0.0.1:8080"}
CALLS = {
    "ec2": lambda client: client.describe_instances(),
    "s3": lambda client: client.list_buckets(),
    "ssm": lambda client: client.list_commands(),
    "sts": lambda client: client.get_caller_identity(),
    "cloudformation": lambda client: client.list_stacks(),
}
CODES = {"ec2": "AuthFailure", "s3": "InvalidAccessKeyId", "ssm": "UnrecognizedClientException"}


def answered(address: str, path: str = "/", method: str = "GET", body: str = "", **headers) -> tuple[int, dict, str]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read().decode()


def signed(key: str, service: str) -> dict[str, str]:
    scope = f"{key}/20260101/us-east-1/{service}/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"}


def code(call) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"]


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("key", ["twin", "owner", "AKIAIOSFODNN7EXAMPLE", "SCHEDULER", "SHUTDOWN", "EC2-SPOT"])
def test_a_key_that_the_world_has_not_issued_is_no_key(cloud, service, key):
    key = f"{key} " if key in ("twin", "owner") else key  # which the client here would take for a name
    assert code(lambda: CALLS[service](world.client(cloud.state, service, key))) == CODES.get(service, "InvalidClientTokenId")


def test_an_instances_id_is_no_key(cloud, box):
    assert code(lambda: world.client(cloud.state, "ssm", box.instance).list_commands()) == "UnrecognizedClientException"


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/things"), ("DELETE", "/v2/name"), ("POST", "/moto-api/reset")])
def test_without_a_key_nothing_is_answered(cloud, method, path):
    assert answered(cloud.ec2.meta.endpoint_url, path, method)[0] in (401, 403)


@pytest.mark.parametrize("who", [None, "twin"])
def test_the_world_itself_obeys_its_owner_alone(cloud, who):
    headers = {"Content-Type": "application/json"} | (signed(world.running(cloud.state)["keys"][who], "twin") if who else {})
    assert answered(cloud.ec2.meta.endpoint_url, "/_twin/enforce", "POST", '{"documents": null}', **headers)[0] == 403


@pytest.mark.parametrize("headers", [PAGE, {"Host": "evil.example:80"}, {"Host": "127.0.0.1.evil.example"}])
def test_no_web_page_may_ask_and_no_name_leads_here(cloud, box, headers):
    """A page on another port of this machine, and one whose name its owner lets lead to 127.0.0.1."""
    details = world.running(cloud.state)
    metadata = box.run('printf %s "$AWS_EC2_METADATA_SERVICE_ENDPOINT"')["StandardOutputContent"]
    for address, path in ((details["aws"], "/"), (details["hub"], "/"), (metadata, "/latest/meta-data/instance-id")):
        for method in ("GET", "POST", "OPTIONS"):
            own = signed(details["keys"]["owner"], "s3") if address == details["aws"] else {}
            status, answer, _ = answered(address, path, method, **own, **headers)
            assert status == 403 and not [name for name in answer if name.lower().startswith("access-control")]


def test_what_is_said_in_a_world_is_for_its_owner_to_read(cloud):
    assert stat.S_IMODE(cloud.state.stat().st_mode) == 0o700


def test_a_user_is_held_to_its_policies_and_a_key_that_is_gone_is_no_key(cloud):
    cloud.iam.create_user(UserName="reader")
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}]}
    cloud.iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(document))
    key = cloud.iam.create_access_key(UserName="reader")["AccessKey"]["AccessKeyId"]
    assert world.client(cloud.state, "s3", key).list_buckets()["Buckets"]
    assert world.client(cloud.state, "sts", key).get_caller_identity()["Arn"].endswith(":user/reader")
    assert code(lambda: world.client(cloud.state, "ec2", key).describe_instances()) == "UnauthorizedOperation"
    cloud.iam.delete_access_key(UserName="reader", AccessKeyId=key)
    assert code(lambda: world.client(cloud.state, "s3", key).list_buckets()) == "InvalidAccessKeyId"


def test_who_says_of_himself_that_he_is_cloudformation_is_not(cloud):
    """`aws:CalledVia` is what AWS knows, not what a client writes into its User-Agent."""
    cloud.iam.create_user(UserName="builder")
    only = {"ForAnyValue:StringEquals": {"aws:CalledVia": ["cloudformation.amazonaws.com"]}}
    line = {"Effect": "Allow", "Action": "logs:*", "Resource": "*", "Condition": only}
    document = json.dumps({"Version": "2012-10-17", "Statement": [line]})
    cloud.iam.put_user_policy(UserName="builder", PolicyName="build", PolicyDocument=document)
    key = cloud.iam.create_access_key(UserName="builder")["AccessKey"]["AccessKeyId"]
    logs = world.client(cloud.state, "logs", key, user_agent_extra="cloudformation.amazonaws.com")
    assert code(lambda: logs.create_log_group(logGroupName="/mine")) == "AccessDeniedException"


def test_a_boxs_agent_hears_nobody_elses_commands(cloud, box):
    other = cloud.launch()
    script = f"""
service="$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest"
token=$(curl -s -X PUT -H 'x-aws-ec2-metadata-token-ttl-seconds: 60' "$service/api/token")
role=$(curl -s -H "x-aws-ec2-metadata-token: $token" "$service/meta-data/iam/security-credentials/box")
key=$(printf %s "$role" | sed -n 's/.*"AccessKeyId": "\\([^"]*\\)".*/\\1/p')
for instance in {other} {box.instance}; do
  curl -s -o /dev/null -w '%{{http_code}} ' -X POST "$AWS_ENDPOINT_URL/" \\
    -H 'X-Amz-Target: EC2WindowsMessageDeliveryService.AcknowledgeMessage' \\
    -H "Authorization: AWS4-HMAC-SHA256 Credential=$key/20260101/us-east-1/ec2messages/aws4_request, Signature=none" \\
    -d "{{\\"MessageId\\": \\"aws.ssm.none.$instance\\"}}"
done
env | grep -c AGENT_KEY
"""
    assert box.run(script)["StandardOutputContent"].split() == ["400", "200", "0"], "its own key is not its scripts'"
    cloud.ec2.terminate_instances(InstanceIds=[other])


NOBODY = 65_534
ASK = "GET /latest/meta-data/instance-id HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n"
ASKS = f"exec 3<>/dev/tcp/127.0.0.1/$0 && printf '{ASK}' >&3 && cat <&3"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_where_clients_send_no_key_only_the_owners_sockets_are_served(cloud, box):
    address = box.run('printf %s "$AWS_EC2_METADATA_SERVICE_ENDPOINT"')["StandardOutputContent"]
    for who, served in (({}, True), ({"user": NOBODY, "group": NOBODY, "extra_groups": []}, False)):
        shell = ["/bin/bash", "-c", ASKS, str(urlsplit(address).port)]
        done = subprocess.run(shell, capture_output=True, text=True, cwd="/", timeout=600, **who)
        assert (box.instance in done.stdout) is served, done.stdout + done.stderr


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_both_ways_to_learn_whose_a_socket_is_agree(family):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port) if family == socket.AF_INET else ("::ffff:127.0.0.1", port))
        connection, caller = server.accept()
        connection.close()
        assert guard.uid_of(caller) == os.geteuid() and guard.is_own_socket(caller)
        if family == socket.AF_INET:
            assert guard.own_processes(caller) == os.geteuid()
    assert guard.uid_of(caller) is None and guard.own_processes(caller) is None
