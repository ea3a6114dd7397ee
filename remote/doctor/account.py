"""Whether what the account must have is there: bucket, image, AMI, log group."""

from datetime import UTC, datetime

from conf.finding import BROKEN, NOTE, OK, Finding
from remote.aws.s3 import Store
from remote.doctor import drift
from remote.doctor.check import Context

CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED")
NAMED = 5  # holes that are named in a line
UNPACKED = 3  # room of an image on the box, in sizes of what is downloaded: archive, layers, and a second version beside it


def bucket(context: Context) -> list[Finding]:
    store, region = Store(context.aws), context.run.cloud.region
    why = "runs, logs and data are in it"
    try:
        actual_region = store.client.head_bucket(Bucket=store.bucket).get("BucketRegion") or region
    except store.client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return [
            Finding("bucket", BROKEN, f"there is no bucket `{store.bucket}`", why, f"`aws s3 mb s3://{store.bucket} --region {region}`")
        ]
    if actual_region != region:
        what = f"bucket `{store.bucket}` is in {actual_region}, the box would be in {region}"
        return [
            Finding(
                "bucket",
                BROKEN,
                what,
                "each byte between regions is slow and costs",
                f"`cloud.region={actual_region}`, or another `cloud.bucket`",
            )
        ]
    return [_closed(store) or Finding("bucket", OK, f"{store.bucket} in {actual_region}, closed to the public"), *drift.bucket(store)]


def _closed(store: Store) -> Finding | None:
    """Nothing when no policy and no list can open the bucket to the world."""
    try:
        access_block = store.client.get_public_access_block(Bucket=store.bucket)["PublicAccessBlockConfiguration"]
    except store.client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchPublicAccessBlockConfiguration":
            raise
        access_block = {}
    if all(access_block.get(name) for name in CLOSED):
        return None
    command = f"aws s3api put-public-access-block --bucket {store.bucket} --public-access-block-configuration "
    what = f"bucket `{store.bucket}` may be made public"
    return Finding("bucket", BROKEN, what, "your rows and models are in it", f"`{command}{','.join(f'{name}=true' for name in CLOSED)}`")


def repository(context: Context) -> list[Finding]:
    """The image of this tree, and whether the box's root disk has room for it."""
    ecr, name = context.aws.client("ecr"), context.run.cloud.repository
    try:
        ecr.describe_repositories(repositoryNames=[name])
        image = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": context.tag}])["imageDetails"][0]
    except ecr.exceptions.RepositoryNotFoundException:
        why = "the trainer's image is kept there"
        return [
            Finding(
                "repository", BROKEN, f"there is no ECR repository `{name}`", why, f"`aws ecr create-repository --repository-name {name}`"
            )
        ]
    except ecr.exceptions.ImageNotFoundException:
        what = f"ECR repository `{name}` has no image of this tree (tag {context.tag}); {_newest(ecr, name)}"
        return [Finding("image", NOTE, what, "the box runs the image of exactly this tree", "`inv deploy` makes it ready")]
    size = image.get("imageSizeInBytes") or 0
    room, need = context.run.box.root_gb * 1e9, UNPACKED * size
    if need > room:
        what = f"box.root_gb={context.run.box.root_gb} is less than {UNPACKED} times the image of {size / 1e9:.1f} GB"
        return [Finding("root disk", BROKEN, what, "the image is unpacked there", f"`box.root_gb={int(need / 1e9) + 40}`")]
    finding = Finding("image", OK, f"{context.tag}, {size / 1e9:.1f} GB, pushed {image['imagePushedAt']:%Y-%m-%d}, is of this tree")
    return [finding, _scanned(ecr, name, context.tag)]


def _scanned(ecr, name: str, tag: str) -> Finding:
    """What ECR's scan knows of the image: holes by their severity, the critical ones by name. Nothing fails for it."""
    image, why = f"--repository-name {name} --image-id imageTag={tag}", "known vulnerabilities in the image's packages"
    try:
        # One call: 1,000 findings are the most that it gives; those counted are all of them.
        answer = ecr.describe_image_scan_findings(repositoryName=name, imageId={"imageTag": tag}, maxResults=1000)
    except ecr.exceptions.ScanNotFoundException:
        what = "ECR has not scanned the image: its repository did not ask for it when it was pushed"
        return Finding("holes", NOTE, what, f"{why} are not known", f"`aws ecr start-image-scan {image}`")
    shown = f"`aws ecr describe-image-scan-findings {image}`"
    status, scan = answer["imageScanStatus"], answer.get("imageScanFindings")
    if scan is None or status["status"] not in ("COMPLETE", "ACTIVE"):
        words = f": {status['description']}" if status.get("description") else ""
        return Finding("holes", NOTE, f"ECR's scan of the image is {status['status']}{words}", f"{why} are not known", shown)
    counts = scan.get("findingSeverityCounts") or {}
    summary = ", ".join(f"{counts[one]} {one}" for one in SEVERITIES if counts.get(one)) or "none"
    if not (critical := counts.get("CRITICAL")):
        return Finding("holes", OK, f"known to ECR's scan: {summary}")
    named = [one["name"] for one in scan.get("findings") or [] if one["severity"] == "CRITICAL"]
    more = f" and {critical - len(named[:NAMED])} more" if critical > len(named[:NAMED]) else ""
    return Finding("holes", NOTE, f"known to ECR's scan: {summary}; critical: {', '.join(named[:NAMED])}{more}", why, shown)


def _newest(ecr, name: str) -> str:
    """How old the newest image of another tree is."""
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=name)
    pushed = [image["imagePushedAt"] for page in pages for image in page["imageDetails"]]
    if not pushed:
        return "it has none at all"
    return f"the newest is of another tree, {(datetime.now(UTC) - max(pushed)).days} days old"


def ami(context: Context) -> list[Finding]:
    name, why = context.run.box.ami, "the box starts from it"
    if not context.ami:
        return [
            Finding("ami", BROKEN, f"the public parameter {name} names no image here", why, "another `box.ami=...`, such as conf/box has")
        ]
    root: dict = next((one["Ebs"] for one in context.ami["BlockDeviceMappings"] if one["DeviceName"] == context.ami["RootDeviceName"]), {})
    if (least := root.get("VolumeSize") or 0) > context.run.box.root_gb:
        what = f"box.root_gb={context.run.box.root_gb} is less than the {least} GB of {context.ami['ImageId']}"
        return [Finding("ami", BROKEN, what, why, f"`box.root_gb={least}`")]
    return [Finding("ami", OK, f"{context.ami['ImageId']} ({context.ami.get('Name')})")]


def logs(context: Context) -> list[Finding]:
    name = context.run.cloud.log_group
    groups = context.aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    if any(group["logGroupName"] == name for group in groups):
        return [Finding("log group", OK, name)]
    return [
        Finding(
            "log group",
            BROKEN,
            f"there is no log group `{name}`",
            "runs mirror their log to it",
            f"`aws logs create-log-group --log-group-name {name}`",
        )
    ]
