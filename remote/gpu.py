"""The card of a box, as EC2 describes its type."""

from dataclasses import dataclass

from remote.aws import Aws


@dataclass(frozen=True)
class Card:
    name: str  # such as NVIDIA L4
    bytes: int


def card(aws: Aws, instance_type: str) -> Card | None:
    """The card of an instance type; None where EC2 knows none."""
    found = aws.client("ec2").describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
    cards = found[0].get("GpuInfo", {}).get("Gpus", []) if found else []
    if not cards:
        return None
    return Card(f"{cards[0]['Manufacturer']} {cards[0]['Name']}", cards[0]["MemoryInfo"]["SizeInMiB"] * 2**20)
