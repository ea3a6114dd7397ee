"""The metadata service: a box knows who it is, acts by its role, and may do what the role allows."""

import http.client
import json
import socket
from datetime import datetime
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

READ = """
E=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
T=$(curl -sS --noproxy '*' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$E/api/token")
get() {
  curl -s --noproxy '*' -o "$BOX_ROOT/tmp/got" -w '%{http_code} ' -H "X-aws-ec2-metadata-token: $T" "$E/meta-data/$1"
  cat "$BOX_ROOT/tmp/got"
  echo
}
"""


@pytest.fixture(scope="module")
def strict(cloud):
    """A box that insists on tokens, as ours do."""
    made = cloud.box(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2})
    yield made
    cloud.ec2.terminate_instances(InstanceIds=[made.instance])


def test_tells_a_box_who_and_where_it_is(strict):
    paths = (
        "instance-id",
        "instance-type",
        "placement/availability-zone",
        "placement/region",
        "instance-life-cycle",
        "spot/instance-action",
    )
    answers = strict.run(READ + "\n".join(f"get {path}" for path in paths))["StandardOutputContent"].splitlines()
    assert answers == [f"200 {strict.instance}", "200 g6.2xlarge", "200 us-east-1a", "200 us-east-1", "200 on-demand", "404 "]


def test_answers_only_to_a_token_of_its_own(strict, box):
    script = (
        'T=%s; curl -s --noproxy "*" -o /dev/null -w "%%{http_code}" $H "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id"'
    )
    assert strict.run(script % "none")["StandardOutputContent"] == "401"
    foreign = box.run(READ + 'echo "$T"')["StandardOutputContent"].strip()
    header = f'curl -s --noproxy "*" -o /dev/null -w "%{{http_code}}" -H "X-aws-ec2-metadata-token: {foreign}" '
    assert strict.run(header + '"$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/instance-id"')["StandardOutputContent"] == "401"
    assert box.run(script % "none")["StandardOutputContent"] == "200"  # where tokens are optional, as IMDSv1 was


def test_the_box_has_no_keys_but_its_roles(strict):
    printed = strict.run("env | grep -c AWS_ACCESS_KEY_ID; aws sts get-caller-identity --query Arn --output text")["StandardOutputContent"]
    assert printed.splitlines() == ["0", f"arn:aws:sts::123456789012:assumed-role/box/{strict.instance}"]
    calls = [json.loads(line) for line in strict.cloud.journal().splitlines()]
    assert [one["by"] for one in calls if one["operation"] == "GetCallerIdentity"][-1] == strict.instance
    assert "imds" in {one["service"] for one in calls}


def test_the_box_may_do_what_its_role_allows_and_nothing_else(strict):
    refused = strict.run("aws ec2 terminate-instances --instance-ids $AWS_SSM_INSTANCE_ID")
    assert refused["Status"] == "Failed" and "UnauthorizedOperation" in refused["StandardErrorContent"]
    assert strict.run("aws s3api list-objects-v2 --bucket things >/dev/null")["Status"] == "Success"
    denied = strict.run("aws s3api create-bucket --bucket another; aws iam list-roles")["StandardErrorContent"]
    assert "AccessDenied" in denied and "iam:ListRoles" in denied


def test_credentials_are_in_no_journal(strict):
    strict.run(READ + 'get iam/security-credentials/box >"$BOX_ROOT/root/got"; aws s3 ls')
    secret = json.loads((strict.root / "root/got").read_text().removeprefix("200 "))["SecretAccessKey"]
    assert len(secret) > 20 and secret not in strict.cloud.journal()


def sdk_v1(address: str, path: str, ttl: str = "21600", **headers: str) -> tuple[int, str]:
    """The answer as aws-sdk-go v1 asks for it: host and port of the address and no path, a token first, whose answer must say how long it
    lives (ec2metadata/token_provider.go); what is not shown by this is that client itself."""
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=60)
    connection.request("PUT", "/latest/api/token", headers={"x-aws-ec2-metadata-token-ttl-seconds": ttl} | headers)
    reply = connection.getresponse()
    token, status = reply.read().decode(), reply.status
    if status != 200:
        return status, token
    assert reply.getheader("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == ttl
    connection = http.client.HTTPConnection(place, timeout=60)
    connection.request("GET", path, headers={"x-aws-ec2-metadata-token": token} | headers)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def address_of(box) -> str:
    return box.run('printf %s "$AWS_EC2_METADATA_SERVICE_ENDPOINT"')["StandardOutputContent"]


def test_each_box_has_an_address_of_its_own_without_a_path(strict, box):
    mine, other = address_of(strict), address_of(box)
    assert urlsplit(mine).hostname == "127.0.0.1" and urlsplit(mine).path == "" and mine != other
    for address, owner in ((mine, strict), (other, box)):
        assert sdk_v1(f"{address}/a/path/that/is/lost", "/latest/meta-data/instance-id") == (200, owner.instance)


def test_the_address_is_gone_with_the_boxs_power(cloud, until):
    made = cloud.box()
    address = address_of(made)
    cloud.ec2.terminate_instances(InstanceIds=[made.instance])
    until(lambda: refused(address))


def refused(address: str) -> bool:
    try:
        socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), 1).close()
    except OSError:
        return True
    return False


def test_every_path_lists_what_is_below_it(strict):
    address = address_of(strict)
    assert sdk_v1(address, "/latest")[1].split() == ["dynamic/", "meta-data/"]
    for path in ("/latest/meta-data", "/latest/meta-data/"):
        assert {"instance-id", "placement/", "iam/", "identity-credentials/"} <= set(sdk_v1(address, path)[1].split())
    assert sdk_v1(address, "/latest/meta-data/iam/security-credentials/") == (200, "box")
    assert sdk_v1(address, "/latest/meta-data/placement/availability-zone-id") == (200, "use1-az6")
    assert sdk_v1(address, "/latest/meta-data/services/domain") == (200, "amazonaws.com")
    assert sdk_v1(address, "/latest/meta-data/no/such/thing")[0] == 404


def test_the_identity_document_has_the_documented_members(strict):
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/retrieve-iid.html"""
    document = json.loads(sdk_v1(address_of(strict), "/latest/dynamic/instance-identity/document")[1])
    documented = "accountId architecture availabilityZone billingProducts devpayProductCodes marketplaceProductCodes imageId instanceId"
    documented += " instanceType kernelId pendingTime privateIp ramdiskId region version"
    assert set(document) == set(documented.split())
    assert datetime.fromisoformat(document["pendingTime"]).tzinfo and document["instanceId"] == strict.instance


def test_no_token_through_a_proxy_nor_for_an_odd_time(strict):
    address = address_of(strict)
    assert sdk_v1(address, "/latest/meta-data/", **{"X-Forwarded-For": "10.0.0.1"})[0] == 403
    assert [sdk_v1(address, "/latest/meta-data/", ttl=ttl)[0] for ttl in ("0", "21601", "long")] == [400, 400, 400]


def test_the_instances_own_credentials_may_do_nothing(strict):
    path = "/latest/meta-data/identity-credentials/ec2"
    assert json.loads(sdk_v1(address_of(strict), f"{path}/info")[1])["AccountId"] == "123456789012"
    keys = json.loads(sdk_v1(address_of(strict), f"{path}/security-credentials/ec2-instance")[1])
    own = {"aws_access_key_id": keys["AccessKeyId"], "aws_secret_access_key": keys["SecretAccessKey"], "aws_session_token": keys["Token"]}
    endpoint = strict.cloud.ssm.meta.endpoint_url
    client = boto3.client("ssm", endpoint_url=endpoint, region_name="us-east-1", **own)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.describe_instance_information()
