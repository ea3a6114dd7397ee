"""What is written down of a real account's answers holds nothing of the account."""

import datetime
import json
from pathlib import Path

import pytest
from aws import record

from twin.aws.documented import documented, examples

ACCOUNT, ADDRESS, TOKEN = "210987654321", "203.0.113.7", "hf_abcdefghijklmnopqrstuvwxyz0123456"
KEY_ID, SECRET = "AKIAIOSFODNN7PLANTED", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYPLANTED"  # of no account
PLANTED = (ACCOUNT, ADDRESS, TOKEN, KEY_ID, SECRET, "i-0123456789abcdef0", "somebody@example.com", "my-bucket", "Jane")
MOMENT = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


def planted(shape, depth: int = 0):
    """An answer of this shape with what must not be written down in each text and each key of it."""
    kind, text = shape.type_name, f"arn:aws:iam::{' '.join(PLANTED)}"
    if kind == "structure":
        return {name: planted(member, depth + 1) for name, member in shape.members.items()} if depth < 12 else {}
    if kind == "list":
        return [planted(shape.member, depth + 1)]
    if kind == "map":
        return {text: planted(shape.value, depth + 1)}
    others = {"boolean": True, "integer": 7, "long": int(ACCOUNT), "float": 0.5, "double": 0.5, "timestamp": MOMENT, "blob": text.encode()}
    return others.get(kind, text)


class Http:
    status_code = 200


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("ec2", "DescribeInstances"),
        ("ec2", "DescribeSecurityGroups"),
        ("sts", "GetCallerIdentity"),
        ("sts", "AssumeRole"),
        ("secretsmanager", "GetSecretValue"),
        ("ssm", "GetParameters"),
        ("ssm", "SendCommand"),
        ("ecr", "GetAuthorizationToken"),
        ("s3", "GetObject"),
        ("iam", "SimulatePrincipalPolicy"),
        ("budgets", "DescribeBudgets"),
    ],
)
def test_no_id_address_key_or_secret_is_in_a_recorded_answer(service, operation, tmp_path):
    model = documented.operation(service, operation).model
    record.note(tmp_path, Http, planted(model.output_shape) | {"ResponseMetadata": {"RequestId": SECRET}}, model)
    text = (tmp_path / f"{service}.{operation}.json").read_text()
    assert [word for word in PLANTED if word in text] == []
    assert set(json.loads(text)[0]) == set(model.output_shape.members)


def test_an_answer_keeps_how_it_is_shaped_and_what_the_service_model_lists(tmp_path):
    model = documented.operation("ec2", "DescribeVolumes").model
    disk = {
        "VolumeId": "vol-1",
        "State": "in-use",
        "Size": 100,
        "Encrypted": True,
        "CreateTime": MOMENT,
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    record.note(tmp_path, Http, {"Volumes": [disk, disk | {"VolumeId": "vol-2"}]}, model)
    tag = {"Key": "text", "Value": "text"}
    volume = {"VolumeId": "text", "State": "in-use", "Size": 100, "Encrypted": True, "CreateTime": record.MOMENT, "Tags": [tag]}
    (written,) = json.loads((tmp_path / "ec2.DescribeVolumes.json").read_text())
    assert written == {"Volumes": [{name: volume[name] for name in written["Volumes"][0]}]} and len(written["Volumes"][0]) == len(volume)


def test_of_a_refusal_the_code_is_kept_and_not_the_message(tmp_path):
    model = documented.operation("ec2", "DescribeVolumes").model

    class Refused:
        status_code = 403

    record.note(tmp_path, Refused, {"Error": {"Code": "UnauthorizedOperation", "Message": f"{ACCOUNT} may not"}}, model)
    record.note(tmp_path, Refused, {"Error": {"Code": SECRET, "Message": ""}}, model)
    refusal = {"operation": "ec2.DescribeVolumes", "code": "UnauthorizedOperation", "status": 403}
    assert json.loads((tmp_path / "refusals.json").read_text()) == [refusal]


@pytest.mark.parametrize("leak", [ACCOUNT, "arn:aws:s3:::b", KEY_ID, ADDRESS, TOKEN, "i-0123456789abcdef0", "a@b.c"])
def test_a_file_that_would_hold_somebodys_is_not_written(leak, tmp_path):
    with pytest.raises(AssertionError, match="looks like somebody's"):
        record.add(tmp_path / "ec2.Any.json", {"Text": leak})
    assert not list(tmp_path.iterdir())


def test_what_was_recorded_documents_its_operation(tmp_path, monkeypatch):
    folder = tmp_path / "recorded"
    folder.mkdir()
    (folder / "scheduler.GetSchedule.json").write_text(json.dumps([{"Name": "text", "State": "ENABLED"}]))
    monkeypatch.setattr(examples, "RECORDED", folder)
    documented.operation.cache_clear()
    schedule = documented.operation("scheduler", "GetSchedule")
    documented.operation.cache_clear()
    assert list(schedule.sources) == ["twin/aws/documented/recorded/scheduler.GetSchedule.json"]
    assert schedule.answer.member("Name") and schedule.answer.member("ScheduleExpression") is None


def test_what_is_in_this_tree_holds_nothing_of_anybody():
    for path in Path(examples.RECORDED).glob("*.json"):
        assert not record.IDENTITY.search(path.read_text()), path
