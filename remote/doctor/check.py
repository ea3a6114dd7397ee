"""What a check is, and what several of them need."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from conf import schema
from conf.finding import Finding
from remote.aws.session import Aws


@dataclass(frozen=True)
class Check:
    name: str
    why: str
    run: Callable[["Context"], list[Finding]]


@dataclass
class Context:
    """What is examined; and what several checks need of it, asked for once."""

    aws: Aws
    run: schema.Run
    tag: str  # of this tree's image
    hub: str  # its address
    driver: int  # the oldest that the image's CUDA works with

    @functools.cached_property
    def ami(self) -> dict:
        ssm = self.aws.client("ssm")
        try:
            image_id = ssm.get_parameter(Name=self.run.box.ami)["Parameter"]["Value"]
        except ssm.exceptions.ParameterNotFound:
            return {}
        images = self.aws.client("ec2").describe_images(ImageIds=[image_id])["Images"]
        return images[0] if images else {}

    @functools.cached_property
    def types(self) -> dict[str, dict]:
        """The box's instance types, as EC2 describes those that it knows here."""
        wanted = [{"Name": "instance-type", "Values": self.run.box.instance_types}]
        pages = self.aws.client("ec2").get_paginator("describe_instance_types").paginate(Filters=wanted)
        return {description["InstanceType"]: description for page in pages for description in page["InstanceTypes"]}
