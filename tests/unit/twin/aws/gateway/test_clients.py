"""Unmodified clients see the world, and see it right."""

import json
import os
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError


def aws(cloud, *words) -> dict | str:
    command = [sys.executable, "-m", "awscli", *words]
    done = subprocess.run(command, env=cloud.environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout


@pytest.mark.slow
def test_aws_cli_sees_the_box_its_commands_and_the_bucket(box):
    command = box.ended(box.send("echo hello"))["CommandId"]
    reservations = aws(box.cloud, "ec2", "describe-instances")["Reservations"]
    assert box.instance in [instance["InstanceId"] for one in reservations for instance in one["Instances"]]
    listed = aws(box.cloud, "ssm", "list-command-invocations", "--command-id", command, "--details")["CommandInvocations"]
    assert listed[0]["CommandPlugins"][0]["Output"] == "hello\n"
    assert " things\n" in aws(box.cloud, "s3", "ls")
    assert "/things" in json.dumps(aws(box.cloud, "logs", "describe-log-groups"))


def test_the_box_uses_s3_by_itself(box):
    invocation = box.run(
        'printf %s data > "$BOX_ROOT/tmp/f"; aws s3 cp --quiet "$BOX_ROOT/tmp/f" s3://things/k && aws s3 cp s3://things/k -'
    )
    assert invocation["StandardOutputContent"] == "data"
    assert box.cloud.s3.head_object(Bucket="things", Key="k")["ContentLength"] == 4


def test_large_objects_go_in_parts_and_come_back_equal(cloud, tmp_path):
    (tmp_path / "up").write_bytes(os.urandom(20_000_000))
    cloud.s3.upload_file(str(tmp_path / "up"), "things", "large")
    cloud.s3.download_file("things", "large", str(tmp_path / "down"))
    assert (tmp_path / "up").read_bytes() == (tmp_path / "down").read_bytes()
    assert "-" in cloud.s3.head_object(Bucket="things", Key="large")["ETag"]


def test_account_is_there(cloud):
    assert cloud.secretsmanager.get_secret_value(SecretId="other/secret")["SecretString"] == "planted-secret"
    assert cloud.secretsmanager.get_secret_value(SecretId="hub/token")["SecretString"] == cloud.environment()["HF_TOKEN"]
    assert cloud.ssm.get_parameters(Names=["/things/size", "/none"])["InvalidParameters"] == ["/none"]
    assert cloud.iam.get_instance_profile(InstanceProfileName="box")["InstanceProfile"]["Roles"][0]["RoleName"] == "box"


def test_image_parameter_names_an_image_that_exists(cloud):
    (image,) = cloud.ec2.describe_images(ImageIds=[cloud.image()])["Images"]
    assert image["RootDeviceName"] == "/dev/sda1" and image["State"] == "available"


def test_a_standard_parameter_holds_4_kb(cloud):
    with pytest.raises(ClientError, match="4096"):
        cloud.ssm.put_parameter(Name="/things/long", Type="String", Value="x" * 4097)
    cloud.ssm.put_parameter(Name="/things/long", Type="String", Value="x" * 4096)


def price(cloud, **fields) -> list[dict]:
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
    return [json.loads(text) for text in cloud.pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]]


def test_price_list_has_the_real_shape(cloud):
    (product,) = price(
        cloud,
        instanceType="g6.2xlarge",
        operatingSystem="Linux",
        tenancy="Shared",
        preInstalledSw="NA",
        capacitystatus="Used",
        regionCode="us-east-1",
    )
    (term,) = product["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert float(dimension["pricePerUnit"]["USD"]) == 0.9776 and dimension["unit"] == "Hrs"
    (product,) = price(cloud, productFamily="Storage", volumeApiName="gp3", regionCode="us-east-1")
    assert '"unit": "GB-Mo"' in json.dumps(product)


def test_an_unknown_product_has_no_price(cloud):
    assert price(cloud, instanceType="p5.48xlarge") == [] and price(cloud, instanceType="g6.2xlarge", operatingSystem="Windows") == []


def test_journal_names_every_call_and_hides_secrets(cloud):
    cloud.secretsmanager.put_secret_value(SecretId="other/secret", SecretString="planted-again")
    cloud.ssm.put_parameter(Name="/things/hidden", Type="SecureString", Value="planted-too")
    cloud.s3.put_object(Bucket="things", Key="bytes", Body=b"\xff\x00")
    url = cloud.s3.generate_presigned_url("get_object", Params={"Bucket": "things", "Key": "bytes"})
    assert subprocess.run(["curl", "-sf", "--noproxy", "*", "-o", "/dev/null", url]).returncode == 0
    journal = cloud.journal()
    lines = [json.loads(line) for line in journal.splitlines()]
    assert {"time", "by", "service", "operation", "target", "status", "request"} == set(lines[0])
    assert {"secretsmanager.PutSecretValue", "ssm.PutParameter", "s3.PUT", "iam.CreateRole"} <= {
        f"{one['service']}.{one['operation']}" for one in lines
    }
    assert "/wA=" in [one["request"] for one in lines]
    assert "HIDDEN_DUE_TO_SECURITY_REASONS" in journal
    for secret in ("planted-secret", "planted-again", "planted-too", cloud.environment()["HF_TOKEN"], "Signature=", "AWS4-HMAC"):
        assert secret not in journal


def test_journal_has_failures_too(cloud):
    with pytest.raises(ClientError):
        cloud.s3.get_object(Bucket="things", Key="absent")
    assert '"target": "/things/absent", "status": 404' in cloud.journal()
