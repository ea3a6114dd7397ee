"""Instances as EC2 describes them."""

from remote.aws.session import Aws


def instance(aws: Aws, instance_id: str) -> dict:
    return aws.client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def instances(aws: Aws, filters: dict[str, list[str]]) -> list[dict]:
    """Those of whose properties each has one of the named values."""
    pages = aws.client("ec2").get_paginator("describe_instances")
    found = pages.paginate(Filters=[{"Name": name, "Values": values} for name, values in filters.items()])
    return [instance for page in found for reservation in page["Reservations"] for instance in reservation["Instances"]]


def capacity_reservation(aws: Aws, id: str) -> dict | None:
    """The account's capacity reservation of this id, also one that is shared with it; None where the region has none."""
    pages = aws.client("ec2").get_paginator("describe_capacity_reservations").paginate()
    return next((one for page in pages for one in page["CapacityReservations"] if one["CapacityReservationId"] == id), None)
