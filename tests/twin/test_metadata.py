"""The metadata service: a box knows who it is, acts by its role, and may do what the role allows."""

import json

import pytest

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
    found = strict.run(READ + "\n".join(f"get {path}" for path in paths))["StandardOutputContent"].splitlines()
    assert found == [f"200 {strict.instance}", "200 g6.2xlarge", "200 us-east-1a", "200 us-east-1", "200 on-demand", "404 "]


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
    found = strict.run("env | grep -c AWS_ACCESS_KEY_ID; aws sts get-caller-identity --query Arn --output text")["StandardOutputContent"]
    assert found.splitlines() == ["0", f"arn:aws:sts::123456789012:assumed-role/box/{strict.instance}"]
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
