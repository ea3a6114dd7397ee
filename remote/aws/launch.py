"""How a box begins: an instance is launched, or one that the user has is taken."""

import hashlib
import time

from conf import schema
from conf.problem import Problem
from remote import confirm
from remote.aws import capacity, describe
from remote.aws.session import Aws, is_access_denied
from remote.aws.tags import BOX, OWNER, STACK, listed, tags_of

ALIVE = ["pending", "running", "stopping", "stopped"]
UNATTENDED = 30  # minutes that a new box runs though nobody has come to set it up
# cloud-init runs it at the first boot, and its copy at each later one: until setup.sh has its supervisor running, nothing else on the
# box would stop it. What setup.sh calls off may come before this or after it, for the agent takes commands while the box still boots.
USER_DATA = f"""#!/bin/sh
[ ! -e "${{BOX_ROOT:-}}/opt/fine-tune-slm/supervise.sh" ] || exit 0
boots="${{BOX_ROOT:-}}/var/lib/cloud/scripts/per-boot"
mkdir -p "$boots"
[ "$0" = "$boots/fine-tune-slm" ] || cp -p "$0" "$boots/fine-tune-slm"
shutdown -h +{UNATTENDED}
[ ! -e "${{BOX_ROOT:-}}/run/fine-tune-slm/supervised" ] || shutdown -c
"""


def launch(aws: Aws, box: schema.Box, volume_zone: str | None) -> str:
    """The id of a new box, in the volume's zone where there is one."""
    ec2 = aws.client("ec2")
    paid_by = {STACK: aws.cloud.own, OWNER: aws.owner}
    tags = paid_by | {BOX: box.name, "Name": f"fine-tune-slm {box.name}"}
    root_tags = paid_by | {"Name": f"fine-tune-slm {box.name} root"}  # not BOX: by that the data volume is found
    image = aws.client("ssm").get_parameter(Name=box.ami)["Parameter"]["Value"]
    root = ec2.describe_images(ImageIds=[image])["Images"][0]["RootDeviceName"]
    disk = {"VolumeSize": box.root_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    reserved = {"CapacityReservationTarget": {"CapacityReservationId": box.reservation}}
    # A lost answer and a second try within a minute are one launch; but a box that has ended meanwhile is not launched by its old token.
    moment = f"{int(time.time() // 60)}-{_recently_terminated(aws, box.name)}"

    def in_zone(kind: str, zone: str, market: dict) -> str:
        answer = ec2.run_instances(
            ImageId=image,
            InstanceType=kind,
            MinCount=1,
            MaxCount=1,
            # Its role, its closed network and its metadata service stand there (stack.yaml). A stack's change is a new version of it.
            LaunchTemplate={"LaunchTemplateName": aws.cloud.launch_template, "Version": "$Latest"},
            BlockDeviceMappings=[{"DeviceName": root, "Ebs": disk}],
            TagSpecifications=[{"ResourceType": "instance", "Tags": listed(tags)}, {"ResourceType": "volume", "Tags": listed(root_tags)}],
            UserData=USER_DATA,
            # By its hash: a token has 64 characters at most.
            ClientToken=hashlib.sha256(f"{box.name}-{moment}-{zone}-{market}-{kind}-{box.reservation}".encode()).hexdigest(),
            **({"SubnetId": box.subnet} if box.subnet else {"Placement": {"AvailabilityZone": zone}}),
            **({"InstanceMarketOptions": market} if market else {}),
            **({"CapacityReservationSpecification": reserved} if box.reservation else {}),
        )
        return answer["Instances"][0]["InstanceId"]

    return capacity.launch_where_available(aws, box, _zone(aws, box, volume_zone), in_zone)


def _zone(aws: Aws, box: schema.Box, volume_zone: str | None) -> str | None:
    """The only zone in which the box can be: the volume's, or that of the subnet that the user has named."""
    if not box.subnet:
        return volume_zone
    zone = aws.client("ec2").describe_subnets(SubnetIds=[box.subnet])["Subnets"][0]["AvailabilityZone"]
    if volume_zone not in (None, zone):
        what = f"{box.subnet} is in {zone}, but the volume is in {volume_zone}"
        raise Problem(what, f"name a subnet of {volume_zone}: `box.subnet=...`", reason="refused")
    return zone


def _recently_terminated(aws: Aws, name: str) -> int:
    """How many boxes of this name have ended lately: AWS shows them for an hour."""
    return len(describe.instances(aws, {f"tag:{BOX}": [name], "instance-state-name": ["shutting-down", "terminated"]}))


def adopt(aws: Aws, id: str, name: str) -> dict:
    """The instance that the user has named, tagged as the box from now on, once he has seen what it is and agreed."""
    description = _adoptable(aws, id)
    tags = tags_of(description)
    profile = description.get("IamInstanceProfile", {}).get("Arn", "no role").rpartition("/")[2]
    about = f"{description['InstanceType']}, {description['State']['Name']}, "
    about += f"launched {description['LaunchTime']:%Y-%m-%d} from {description['ImageId']}"
    about += f" with {profile}; tags: {', '.join(' '.join(f'{key}={value}'.split()) for key, value in sorted(tags.items())) or 'none'}"
    confirm.ask(
        False,
        f"{id} is {about}.\nTake it as the box `{name}`, run scripts on it as root and stop it when it is idle?",
        "it stays as it is",
        "run it at a terminal",
    )
    ec2 = aws.client("ec2")
    try:
        ec2.create_tags(Resources=[id], Tags=[{"Key": BOX, "Value": name}, {"Key": OWNER, "Value": aws.owner}])
    except ec2.exceptions.ClientError as error:
        if not is_access_denied(error):
            raise
        # Who may tag any instance as a box may stop any instance: no policy of ours allows it.
        tag_arguments = f"Key={BOX},Value={name} Key={OWNER},Value={aws.owner}"
        hint = f"somebody with that right runs `aws ec2 create-tags --resources {id} --tags {tag_arguments}`; then `inv up`"
        raise Problem(f"your policy does not let you take {id}", hint, reason="refused") from error
    return description


def _adoptable(aws: Aws, id: str) -> dict:
    """The instance as it is; a Problem where there is none, or it cannot become a box."""
    try:
        description = describe.instance(aws, id)
    except aws.client("ec2").exceptions.ClientError as error:
        if error.response["Error"]["Code"].startswith("InvalidInstanceID"):
            raise Problem(f"there is no instance {id}", "name one of this region: `box.adopt=i-...`", reason="refused") from error
        raise
    tags = tags_of(description)
    if description["State"]["Name"] not in ALIVE or BOX in tags:
        what = f"the box `{tags[BOX]}` of {tags.get(OWNER, 'somebody')}" if BOX in tags else description["State"]["Name"]
        raise Problem(f"{id} is {what}", "name an instance that is nobody's box: `box.adopt=i-...`", reason="refused")
    return description
