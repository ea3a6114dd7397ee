"""Answers are cut to what AWS documents: by its own examples where they show the operation, else by its service model."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from werkzeug.test import EnvironBuilder

from twin.aws import wire
from twin.aws.documented import answers, documented, examples

VOLUME = """<{0}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>{1}</{0}Response>"""
MADE = "<volumeId>vol-1</volumeId><size>8</size><tagSet><item><key>a</key><value/></item></tagSet>"


def asked(service: str, operation: str, path: str = "/", method: str = "POST", **options) -> wire.Request:
    return wire.Request(EnvironBuilder(path, method=method, **options).get_environ(), service, operation, "us-east-1", b"")


def xml(request: wire.Request, body: str, status: int = 200) -> list[str]:
    """The names of all elements that are left."""
    response = answers.cut(request, wire.Response(body, status, content_type="text/xml"))
    return [node.tag.rpartition("}")[2] for node in ElementTree.fromstring(response.get_data()).iter()][1:]


def cut(service: str, operation: str, content: dict) -> dict:
    return json.loads(answers.cut(asked(service, operation), wire.answer(content)).get_data())


def test_a_new_volume_says_nothing_of_attachments():
    body = VOLUME.format("CreateVolume", f"{MADE}<attachmentSet/><sseType>none</sseType>")
    assert xml(asked("ec2", "CreateVolume"), body) == ["volumeId", "size", "tagSet", "item", "key", "value"]


def test_what_aws_leaves_out_at_times_is_left_out_where_it_is_empty():
    attached = "<attachmentSet><item><instanceId>i-1</instanceId></item></attachmentSet>"
    volumes = "<volumeSet><item>{}</item></volumeSet>"
    assert "attachmentSet" not in xml(asked("ec2", "DescribeVolumes"), VOLUME.format("DescribeVolumes", volumes.format("<attachmentSet/>")))
    assert "instanceId" in xml(asked("ec2", "DescribeVolumes"), VOLUME.format("DescribeVolumes", volumes.format(attached)))
    assert xml(asked("ec2", "DescribeVolumes"), VOLUME.format("DescribeVolumes", "<volumeSet/>")) == ["volumeSet"]


def test_json_is_cut_at_every_depth_and_the_keys_of_a_map_are_the_callers_own():
    command = {"CommandId": "c", "Invented": 1, "Parameters": {"commands": ["true"]}, "AlarmConfiguration": {"Alarms": []}}
    assert cut("ssm", "SendCommand", {"Command": command}) == {"Command": {"CommandId": "c", "Parameters": {"commands": ["true"]}}}


def test_a_query_services_answer_is_cut_inside_its_wrapper():
    role = "<Role><Arn>a</Arn><SourceRoleTemplate>t</SourceRoleTemplate></Role>"
    body = f"<GetRoleResponse><GetRoleResult>{role}</GetRoleResult></GetRoleResponse>"
    assert xml(asked("iam", "GetRole"), body) == ["GetRoleResult", "Role", "Arn"]


def test_headers_are_members_too_and_a_body_of_bytes_is_not_touched():
    had = {"ETag": '"e"', "x-amz-storage-class": "STANDARD", "x-amz-meta-mine": "kept", "Date": "kept"}
    request = asked("s3", "GET", "/bucket/key", "GET")
    response = answers.cut(request, wire.Response(b"<not xml", headers=had, content_type="text/xml"))
    assert response.get_data() == b"<not xml"
    assert set(response.headers.keys()) == {"ETag", "x-amz-meta-mine", "Date", "Content-Type", "Content-Length"}


def test_a_listing_of_s3_keeps_its_names_as_they_are():
    body = "<ListBucketResult><Contents><Key> a&amp;b\n</Key><Size>1</Size></Contents><Contents><Key>c</Key></Contents></ListBucketResult>"
    response = answers.cut(asked("s3", "GET", "/bucket?list-type=2", "GET"), wire.Response(body, content_type="application/xml"))
    assert [node.text for node in ElementTree.fromstring(response.get_data()).iter("Key")] == [" a&b\n", "c"]


def test_what_botocore_itself_reads_stays():
    body = "<IsTruncated>false</IsTruncated><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><EncodingType>url</EncodingType>"
    documented = ["IsTruncated", "CommonPrefixes", "Prefix", "EncodingType"]  # by the last of them it decodes names
    assert xml(asked("s3", "GET", "/bucket?list-type=2", "GET"), f"<ListBucketResult>{body}</ListBucketResult>") == documented


def test_a_refusal_is_not_touched():
    assert xml(asked("ec2", "CreateVolume"), "<Response><Errors><Error/></Errors></Response>", 400) == ["Errors", "Error"]


@pytest.mark.parametrize(
    ("method", "address", "headers", "operation"),
    [
        ("GET", "/", {}, "ListBuckets"),
        ("GET", "/b?list-type=2", {}, "ListObjectsV2"),
        ("GET", "/b?versions", {}, "ListObjectVersions"),
        ("GET", "/b?lifecycle", {}, "GetBucketLifecycleConfiguration"),
        ("HEAD", "/b/k/l", {}, "HeadObject"),
        ("PUT", "/b/k", {}, "PutObject"),
        ("PUT", "/b/k", {"x-amz-copy-source": "/b/l"}, "CopyObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", {}, "UploadPart"),
        ("POST", "/b?delete", {}, "DeleteObjects"),
    ],
)
def test_a_rest_request_means_the_operation_that_asks_for_most_of_it(method, address, headers, operation):
    assert answers.operation(asked("s3", method, address, method, headers=headers)) == operation


def test_examples_are_read_as_people_write_them():
    page = """
**An example** ::

    aws ec2 describe-things --query "Things[].Id"

Output::

    {"Id": "no answer"}

Another one::

    aws ec2 describe-things

Output::

    {
        "Things": [
            {"Arn": "arn:a quote is missing,
             "Size": 8,},
            ...
        ],
        "Empty": [],
        ...
    }

Words behind it: { "not": "an answer" }
"""
    shown = [{"Things": [{"Arn": "arn:a quote is missing,", "Size": "8"}, "..."], "Empty": [], "...": ""}]
    assert list(examples.outputs(page)) == shown


def test_a_member_is_optional_where_an_example_leaves_it_out_or_its_documentation_says_so():
    volumes = documented.operation("ec2", "DescribeVolumes").answer.member("Volumes")
    assert volumes.optional("Attachments") and volumes.optional("KmsKeyId") and not volumes.optional("VolumeId")
    assert documented.operation("ec2", "DescribeInstances").answer.member("Reservations").member("Instances").optional("PublicIpAddress")


def test_what_callers_send_they_get_back_whatever_an_example_shows():
    rules = documented.operation("s3", "GetBucketLifecycleConfiguration").answer.member("Rules")
    assert rules.member("NoncurrentVersionExpiration") and rules.optional("NoncurrentVersionExpiration")
    assert documented.operation("ec2", "DescribeVolumes").answer.member("Volumes").member("VolumeArn") is None


def test_without_an_example_the_service_model_speaks():
    schedule = documented.operation("scheduler", "GetSchedule")
    assert not schedule.sources and schedule.answer.member("ScheduleExpression")


@pytest.mark.parametrize("kind", ["returned", "always"])
def test_what_is_vouched_for_is_in_the_service_model_and_names_a_source_that_is_there(kind):
    for name, members in documented.vetted()[kind].items():
        known = documented.operation(*name.split(".", 1))
        for path, source in members.items():
            place = known.answer
            *above, last = path.split(".")
            for part in above:
                place = place.member(part)
            assert last in {"*", *place.shape.members}, (name, path)
            assert source.startswith(("https://", "awscli/", "botocore/")), source
            if source.startswith("awscli/"):
                page = examples.CLI.parent.parent / source.split()[0]
                assert f'"{last}"' in Path(page).read_text(), source
