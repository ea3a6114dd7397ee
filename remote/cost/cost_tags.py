"""The tags by which AWS's bill tells whose a cost is, on a box that was launched before it got them at its launch, and on its disks."""

from dataclasses import dataclass

from conf.process.screen import screen
from remote.aws import describe
from remote.aws.session import Aws, is_access_denied
from remote.aws.tags import OWNER, RUN, STACK, listed, tags_of


@dataclass(frozen=True)
class Tagged:
    resources: tuple[str, ...]  # those that had to get some


def ensure(aws: Aws, instance_id: str) -> Tagged:
    """See that the box and its disks have the tags that a bill is divided by."""
    attached = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    volumes = aws.client("ec2").describe_volumes(Filters=attached)["Volumes"]
    tags = {instance_id: tags_of(describe.instance(aws, instance_id))} | {each["VolumeId"]: tags_of(each) for each in volumes}
    wanted = {STACK: aws.cloud.own, OWNER: aws.owner}
    # Whose box and data volume these are is written on them, and stays.
    incomplete = [one for one, present in tags.items() if not present.get(OWNER) or present.get(STACK) != aws.cloud.own]
    return Tagged(tuple(one for one in incomplete if _tag(aws, one, {**wanted, **_kept(tags[one])})))


def note_run(aws: Aws, instance_id: str, run_id: str) -> None:
    """Write on the box which run it costs for: until the next one, or until it is started again."""
    _tag(aws, instance_id, {RUN: run_id})


def _kept(tags: dict[str, str]) -> dict[str, str]:
    return {OWNER: tags[OWNER]} if tags.get(OWNER) else {}


def _tag(aws: Aws, resource: str, tags: dict[str, str]) -> bool:
    """Whether it has them now: a bill that cannot be divided is no reason to stop."""
    ec2 = aws.client("ec2")
    try:
        ec2.create_tags(Resources=[resource], Tags=listed(tags))
    except ec2.exceptions.ClientError as error:
        if not is_access_denied(error):
            raise
        arguments = " ".join(f"'Key={key},Value={value}'" for key, value in tags.items())
        hint = f"somebody with that right runs `aws ec2 create-tags --region {aws.cloud.region} --resources {resource} --tags {arguments}`"
        screen.note(f"  AWS's bill does not say what {resource} is for: your policy does not let you tag it; {hint}")
        return False
    return True
