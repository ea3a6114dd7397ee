"""What AWS itself puts into every account and moto lacks, or loads so slowly that it comes in when it is first asked for."""

import json
from datetime import UTC, datetime
from pathlib import Path

from twin.aws import wire

AMIS = Path(__file__).parents[1] / "ec2/amis.json"
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"


def attach_policy(request: wire.Request, forward: wire.Forward) -> wire.Response:
    """Knows every policy that AWS manages; moto would read all 1,400 of them at its start, which takes over a second."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data as text
    from moto.iam.models import AWSManagedPolicy, iam_backends

    known = iam_backends[wire.ACCOUNT]["aws"].managed_policies
    arn = request.parameters["PolicyArn"]
    name = arn.rpartition("/")[2]
    position = text.find(f'"{name}":{{')
    if arn.startswith("arn:aws:iam::aws:policy/") and arn not in known and position >= 0:
        content, _ = json.JSONDecoder().raw_decode(text, text.index("{", position))
        known[arn] = AWSManagedPolicy.from_data(name, wire.ACCOUNT, "us-east-1", content)
    return forward(request)


def get_parameter(request: wire.Request, forward: wire.Forward) -> wire.Response:
    """Knows the public parameter that names the newest Deep Learning AMI."""
    from moto.ssm.models import Parameter, ssm_backends

    parameters = ssm_backends[wire.ACCOUNT][request.region]._parameters
    if IMAGE_PARAMETER not in parameters:
        image = json.loads(AMIS.read_text(encoding="utf-8"))[0]["ami_id"]
        about = {"data_type": "aws:ec2:image", "version": 1, "last_modified_date": datetime.now(UTC)}
        unset = {"description": None, "allowed_pattern": None, "keyid": None}
        parameters[IMAGE_PARAMETER] = [Parameter(wire.ACCOUNT, IMAGE_PARAMETER, image, "String", **about, **unset)]
    return forward(request)


operations: dict[str, wire.Handler] = {
    "iam.AttachRolePolicy": attach_policy,
    "ssm.GetParameter": get_parameter,
    "ssm.GetParameters": get_parameter,
}
