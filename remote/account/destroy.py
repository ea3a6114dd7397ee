"""Leaving an account as it was found: what would go is listed with its size; data stays unless it is named, too."""

from dataclasses import dataclass

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import confirm
from remote.account import stack
from remote.aws import auto_stop, capacity, describe, fleet, fleet_end, stop_mail
from remote.aws.instance import ALIVE
from remote.aws.session import Aws, is_access_denied
from remote.aws.tags import BOX, OWNER, tags_of

BUCKET = "DataBucket"


@dataclass(frozen=True)
class Survey:
    stack: stack.Stack
    boxes: list[str]
    volumes: list[str]  # that go
    snapshots: list[str]
    definitions: list[str]  # of jobs of a fleet
    removes: bool  # anything at all
    retained: str  # what stays, in words


def survey(aws: Aws, run: schema.Run, data: bool) -> Survey:
    """List what would be removed, and what would stay."""
    current = stack.find_settled(aws)
    boxes, (volumes, theirs), snapshots = _boxes(aws), _volumes(aws), _snapshots(aws)
    definitions = _definitions(aws, current)
    sizes = _sizes(aws, current)
    for name, id in current.resources.items():
        if name != BUCKET and current.kinds[name] not in ("AWS::SSM::Parameter", "AWS::S3::BucketPolicy"):
            screen.note(f"  - {current.kinds[name].removeprefix('AWS::').replace('::', ' '):26} {id}{sizes.get(name, '')}")
    count = sum(kind == "AWS::SSM::Parameter" for kind in current.kinds.values())
    screen.note(
        f"  - {'SSM Parameter':26} {count} names in Parameter Store" if current.status else "  there is no stack of ours in this account"
    )
    if definitions:
        screen.note(f"  - {'Batch JobDefinition':26} {len(definitions)} of this stack's images")
    for id in boxes:
        screen.note(f"  - {'EC2 Instance':26} {id}, with its root disk")
    bucket = _bucket(aws)
    sign, words = ("-", "") if data else ("=", "  stays; `inv destroy --data` removes it, too")
    for id, size in volumes.items():
        screen.note(f"  {sign} {'EBS Volume':26} {id}, {size} GB{words}")
    for id, size in snapshots.items():
        screen.note(f"  {sign} {'EBS Snapshot':26} {id}, of {size} GB{words}")
    for id, owner in theirs.items():
        screen.note(f"  = {'EBS Volume':26} {id} of {owner}  stays: its owner's `inv down --purge` removes it")
    if bucket:
        screen.note(f"  {sign} {'S3 Bucket':26} {bucket}{words}")
    retained = [] if data else [*volumes, *snapshots, *([f"s3://{aws.cloud.bucket}"] if bucket else [])]
    removes = bool(current.status or boxes or definitions or (data and (volumes or snapshots or bucket)))
    words = f" but {' and '.join(retained)}; `inv destroy --data` removes that, too" if retained else ""
    return Survey(current, boxes, list(volumes) if data else [], list(snapshots), definitions, removes, words)


def confirm_removal(aws: Aws, data: bool, yes: bool) -> None:
    """Ask before anything is removed; about the data, ask once more."""
    confirm.ask(yes, f"remove these from account {aws.caller.split(':')[4]}, {aws.cloud.region}?")
    if data:
        confirm.ask(yes, f"and every run, model and log in s3://{aws.cloud.bucket}, on the volumes and in their copies, for good?")


def remove_boxes(aws: Aws, boxes: list[str], volumes: list[str], mailed: bool = False) -> None:
    """Terminate the stopped boxes, with their spot requests, and the schedules and rules that are about them."""
    ec2 = aws.client("ec2")
    for id in boxes:
        auto_stop.disarm(aws, id)
        if mailed:
            stop_mail.disarm(aws, id)
        capacity.release(aws, id)
        ec2.terminate_instances(InstanceIds=[id])
    if boxes:
        ec2.get_waiter("instance_terminated").wait(InstanceIds=boxes, WaiterConfig={"Delay": 2, "MaxAttempts": 300})
    for id in volumes:
        ec2.get_waiter("volume_available").wait(VolumeIds=[id], WaiterConfig={"Delay": 2, "MaxAttempts": 60})
        ec2.delete_volume(VolumeId=id)


def remove_stack(aws: Aws, existing: stack.Stack) -> None:
    """Let CloudFormation remove the stack; its bucket stays."""
    if existing.status:
        stack.remove(aws, existing)


def remove_data(aws: Aws, snapshots: list[str]) -> None:
    """Remove the volumes' copies and every version of every object; the bucket, too, where `inv init` has made it."""
    s3, bucket = aws.client("s3"), aws.cloud.bucket
    for id in snapshots:
        aws.client("ec2").delete_snapshot(SnapshotId=id)
    if not _bucket(aws):
        return
    ours = stack.TAG in _tags(aws, bucket)
    prefix = "" if ours else aws.cloud.prefix.strip("/") + "/"
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        keys = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions]
        if keys:
            failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors")
            if failed:
                raise Problem(f"S3 did not remove {failed[0]['Key']} ({failed[0]['Code']})", "run the same command again", "refused")
    if ours:
        s3.delete_bucket(Bucket=bucket)
    else:
        screen.note(f"  the bucket {bucket} stays, without s3://{bucket}/{prefix}: `inv init` has not made it")


def _boxes(aws: Aws) -> list[str]:
    boxes = [each for each in describe.instances(aws, {"tag-key": [BOX], "instance-state-name": ALIVE}) if _of_this_stack(aws, each)]
    for instance in boxes:
        tags = tags_of(instance)
        if not aws.is_mine(tags.get(OWNER)):
            what = f"box `{tags[BOX]}` ({instance['InstanceId']}) of {tags.get(OWNER, 'somebody else')} needs this account's stack"
            raise Problem(what, "its owner's `inv down --purge` removes it", reason="refused")
        if instance["State"]["Name"] != "stopped":
            hint = "`inv down` stops it, once everything is delivered"
            raise Problem(f"box `{tags[BOX]}` ({instance['InstanceId']}) is {instance['State']['Name']}", hint, reason="refused")
    return [instance["InstanceId"] for instance in boxes]


def _definitions(aws: Aws, current: stack.Stack) -> list[str]:
    """The fleet's job definitions, those of one that has been removed, too; a Problem while it has a job or an instance."""
    if "SpotQueue" not in current.resources:
        return _definitions_left(aws)
    left = [job["jobName"] for job in fleet_end.unfinished_jobs(aws)] + [one["InstanceId"] for one in fleet.instances(aws)]
    if left:
        raise Problem(f"the fleet still has {', '.join(left)}", "`inv down --fleet` ends its jobs and waits for its instances", "refused")
    return fleet_end.definitions(aws)


def _definitions_left(aws: Aws) -> list[str]:
    """Of a fleet that is no more there. Who may not look has no rights to a fleet, and so has registered none."""
    from botocore.exceptions import ClientError

    try:
        return fleet_end.definitions(aws)
    except ClientError as error:
        if not is_access_denied(error):
            raise
        return []


def _volumes(aws: Aws) -> tuple[dict[str, int], dict[str, str]]:
    """The caller's volumes with their sizes, and everybody else's with whose they are."""
    pages = aws.client("ec2").get_paginator("describe_volumes").paginate(Filters=[{"Name": "tag-key", "Values": [BOX]}])
    ours = [volume for page in pages for volume in page["Volumes"] if _of_this_stack(aws, volume)]
    with_owner = [(volume, tags_of(volume).get(OWNER)) for volume in ours]
    mine = {volume["VolumeId"]: volume["Size"] for volume, owner in with_owner if aws.is_mine(owner)}
    return mine, {volume["VolumeId"]: owner or "somebody else" for volume, owner in with_owner if not aws.is_mine(owner)}


def _snapshots(aws: Aws) -> dict[str, int]:
    """What `down --snapshot` has kept, with the size of the volume that it is of: AWS does not say how much of that is paid for."""
    filters = [{"Name": "tag-key", "Values": [BOX]}, {"Name": f"tag:{OWNER}", "Values": [aws.owner, aws.caller]}]
    pages = aws.client("ec2").get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
    return {
        snapshot["SnapshotId"]: snapshot["VolumeSize"] for page in pages for snapshot in page["Snapshots"] if _of_this_stack(aws, snapshot)
    }


def _of_this_stack(aws: Aws, resource: dict) -> bool:
    """Whether its box has a name of this stack's (`Box.name`)."""
    name = next(tag["Value"] for tag in resource["Tags"] if tag["Key"] == BOX)
    return name.rpartition(":")[0] == (aws.cloud.stack or "")


def _bucket(aws: Aws) -> str:
    """The bucket with how much is in it, or nothing when there is none."""
    s3, name = aws.client("s3"), aws.cloud.bucket
    try:
        pages = list(s3.get_paginator("list_object_versions").paginate(Bucket=name, Prefix=aws.cloud.prefix.strip("/")))
    except s3.exceptions.NoSuchBucket:
        return ""
    versions = [version for page in pages for version in page.get("Versions", [])]
    current = sum(version["IsLatest"] for version in versions)
    return f"{name}, {current} objects, {sum(version['Size'] for version in versions) / 1e6:.1f} MB with older versions"


def _tags(aws: Aws, bucket: str) -> list[dict]:
    s3 = aws.client("s3")
    try:
        return s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchTagSet":
            return []
        raise


def _sizes(aws: Aws, existing: stack.Stack) -> dict[str, str]:
    sizes = {}
    if name := existing.resources.get("Images"):
        pages = aws.client("ecr").get_paginator("describe_images").paginate(repositoryName=name)
        images = [image.get("imageSizeInBytes") or 0 for page in pages for image in page["imageDetails"]]
        sizes["Images"] = f", {len(images)} images, {sum(images) / 1e9:.1f} GB"
    if name := existing.resources.get("Logs"):
        groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        sizes["Logs"] = f", {sum(group.get('storedBytes', 0) for group in groups) / 1e6:.1f} MB; S3 has the same logs"
    if "HubToken" in existing.resources:
        sizes["HubToken"] = ", with the Hub token"
    return sizes
