"""The cards of a box, as EC2 describes its type."""

from dataclasses import dataclass

from remote.aws.session import Aws


@dataclass(frozen=True)
class Card:
    name: str  # such as NVIDIA L4
    bytes: int
    count: int = 1  # of such cards in the box

    @property
    def words(self) -> str:
        return self.name if self.count == 1 else f"{self.count} x {self.name}"


def card(aws: Aws, instance_type: str) -> Card | None:
    """The card of an instance type; None where EC2 knows none."""
    return cards(aws, (instance_type,)).get(instance_type)


def cards(aws: Aws, types: tuple[str, ...]) -> dict[str, Card]:
    """The card of each of these types that the region knows and that has one, in their order."""
    pages = aws.client("ec2").get_paginator("describe_instance_types").paginate(Filters=[{"Name": "instance-type", "Values": list(types)}])
    gpus = {
        description["InstanceType"]: description.get("GpuInfo", {}).get("Gpus", [])
        for page in pages
        for description in page["InstanceTypes"]
    }
    return {kind: _card(gpus[kind][0]) for kind in types if gpus.get(kind)}


def _card(gpu: dict) -> Card:
    return Card(f"{gpu['Manufacturer']} {gpu['Name']}", gpu["MemoryInfo"]["SizeInMiB"] * 2**20, gpu.get("Count", 1))
