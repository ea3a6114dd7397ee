"""Whatever the user gets wrong ends in one sentence, a hint with a command, an exit code that is not 0, and no traceback."""

import json

import pytest
from conftest import Laptop

from conf.text.quoting import quoted


def refused(done, what: str, hint: str) -> None:
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stdout + done.stderr
    error, _, rest = done.stderr[done.stderr.index("error: ") :].partition("\n\nhint: ")
    assert what in error
    assert hint in rest


@pytest.mark.parametrize("verb", ["up", "deploy", "train", "publish", "down", "status", "logs", "report", "twin.env"])
def test_without_a_twin_every_verb_names_the_command_that_starts_it(tmp_path, verb):
    refused(Laptop(tmp_path).inv(verb, ok=False), "the twin does not run", "`inv twin.start -- cloud=twin ")


@pytest.mark.parametrize(
    ("verb", "what", "hint"),
    [
        ("deploy", "there is no box", "`inv up -- cloud=twin "),
        ("train", "there is no box", "`inv up -- cloud=twin "),
        ("down", "there is no box", "`inv up -- cloud=twin "),
        ("logs", "there is no run of yours", "`inv train -- cloud=twin "),
        ("publish", "there is no finished smoke run", "`inv train -- cloud=twin "),
        ("report", "there is no finished smoke run", "`inv train -- cloud=twin "),
    ],
)
def test_a_verb_out_of_order_says_what_is_missing(laptop, verb, what, hint):
    refused(laptop.inv(verb, ok=False), what, hint)


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "--tail", "abc"),
        ("logs", "--tail=-5"),
        ("clean", "--older-than", "x"),
        ("clean", "--older-than=-1"),
        ("tensorboard", "--port", "x"),
    ],
)
def test_an_option_that_is_no_number_is_told_which_it_takes(tmp_path, words):
    option = words[1].partition("=")[0]
    refused(Laptop(tmp_path).inv("--dry", *words, ok=False), f"{option} is {words[-1].split('=')[-1]}", f"1 or more: `{option} 10`")


@pytest.mark.parametrize(
    ("overrides", "what", "hint"),
    [
        (("train.lrr=3",), "there is no setting `train.lrr`", "`train.lr`"),
        (("train.steps=many",), "train.steps", "train"),
        (("data.train=nowhere.jsonl",), "nowhere.jsonl", "data.train="),
        (("model.id=nobody/nothing",), "nobody/nothing", "check the name"),
    ],
)
def test_wrong_settings(laptop, overrides, what, hint):
    refused(laptop.inv("train", overrides=overrides, ok=False), what, hint)


def test_a_broken_row_is_named_by_file_and_line(laptop, tmp_path):
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n')
    refused(laptop.inv("train", overrides=(f"data.train={quoted(rows)}",), ok=False), "mine.jsonl:2", "`inv data.check -- cloud=twin ")


def test_a_real_endpoint_is_refused_on_the_twin_and_a_loopback_one_on_aws(laptop):
    from conf import load
    from conf.problem import Problem
    from remote.aws.session import Aws

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        with pytest.raises(Problem, match=r"would talk to https://"):
            Aws(load.load(["cloud=twin"]).cloud).client("s3")
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(Problem, match=r"would talk to http://127.0.0.1:1"):
            Aws(load.load(["cloud=aws"]).cloud).client("s3")


def test_everything_stays_on_loopback_though_the_environment_is_a_real_account(laptop):
    """The laptop fixture's environment holds a real profile, keys and endpoints; the world saw every call all the same."""
    before = len(laptop.journal())
    laptop.inv("status")
    services = {entry["service"] for entry in laptop.journal()[before:]}
    assert {"ec2", "s3"} <= services


def test_a_foreign_box_is_refused_and_never_stopped(laptop):
    ec2 = laptop.client("ec2")
    image = laptop.client("ssm").get_parameter(
        Name="/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    )["Parameter"]["Value"]
    tags = [
        {"Key": "fine-tune-slm:box", "Value": "shared"},
        {"Key": "fine-tune-slm:owner", "Value": "arn:aws:iam::123456789012:user/other"},
    ]
    made = ec2.run_instances(
        ImageId=image, InstanceType="g6.2xlarge", MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )["Instances"][0]["InstanceId"]
    for verb in ("up", "deploy", "down"):
        refused(laptop.inv(verb, overrides=("box.name=shared",), ok=False), "belongs to arn:aws:iam::123456789012:user/other", "box.name=")
    state = ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert state == "running"
    ec2.terminate_instances(InstanceIds=[made])


def test_the_audit_keeps_failures_too(laptop):
    laptop.inv("down", ok=False)
    lines = [json.loads(laptop.object(key)) for key in laptop.objects() if "/audit/" in key]
    assert any(line["verb"] == "down" and line["outcome"] == "failed" for line in lines)


def test_data_check_lists_every_bad_row_without_a_cloud_and_fails(tmp_path):
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n[]\n')
    done = Laptop(tmp_path).inv("data.check", overrides=(f"data.train={quoted(rows)}", "data.fields=null"), ok=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert f"{rows}:2: the line is not JSON" in done.stdout and f"{rows}:3: the row is a list" in done.stdout
    assert "data.validation: length of a row in tokens of" in done.stdout or "tokens are not counted" in done.stdout
