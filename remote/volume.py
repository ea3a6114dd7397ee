"""The box's data volume: runs and the model cache. It outlives the box. The only file with boto3's ec2 volumes."""

from conf import schema
from remote.aws import Aws
from remote.box import BOX, OWNER

OURS = "fine-tune-slm:created"


def ensure(aws: Aws, box: schema.Box, instance_id: str, zone: str) -> dict:
    """Find the volume by its tag, or create it; attach it to the box."""
    ec2 = aws.client("ec2")
    found = _find(aws, box.name)
    changed = "no"
    if found is None:
        found, changed = _create(aws, box, zone), "created"
    attached = [entry["InstanceId"] for entry in found["Attachments"] if entry["State"] in ("attaching", "attached")]
    if instance_id not in attached:
        ec2.get_waiter("volume_available").wait(VolumeIds=[found["VolumeId"]], WaiterConfig={"Delay": 2, "MaxAttempts": 60})
        ec2.attach_volume(VolumeId=found["VolumeId"], InstanceId=instance_id, Device="/dev/sdf")
        changed = "attached" if changed == "no" else changed
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[found["VolumeId"]], WaiterConfig={"Delay": 2, "MaxAttempts": 60})
    return facts_of(found) | {"volume_changed": changed}


def require(aws: Aws, name: str) -> dict:
    """Find the box's volume by its tag."""
    from conf.problem import Problem

    found = _find(aws, name)
    if found is None:
        raise Problem(f"box `{name}` has no volume", "`inv up` creates and attaches it", reason="refused")
    return facts_of(found)


def facts_of(found: dict) -> dict:
    ours = any(tag["Key"] == OURS for tag in found.get("Tags", []))
    return {"volume_id": found["VolumeId"], "ours": "yes" if ours else "no"}


def _find(aws: Aws, name: str) -> dict | None:
    filters = [{"Name": f"tag:{BOX}", "Values": [name]}, {"Name": f"tag:{OWNER}", "Values": [aws.caller]}]
    found = aws.client("ec2").describe_volumes(Filters=filters)["Volumes"]
    return found[0] if found else None


def _create(aws: Aws, box: schema.Box, zone: str) -> dict:
    # OURS says that this volume began blank, from no snapshot: without it nothing is ever formatted.
    tags = {BOX: box.name, OWNER: aws.caller, OURS: "yes", "Name": f"fine-tune-slm {box.name}"}
    return aws.client("ec2").create_volume(
        AvailabilityZone=zone,
        Size=box.disk_gb,
        VolumeType=box.disk_type,
        Encrypted=True,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}],
    )
