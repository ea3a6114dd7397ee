"""What the chain needs of an account, one check each: rights, quota, capacity, network, image, price. All of them only look."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from conf import schema
from conf.finding import BROKEN, NOTE, OK, Finding
from remote import box, permissions, price, volume
from remote.aws import Aws
from remote.permissions import Statement
from remote.store import Store

# Quotas count vCPUs of a family of types: on demand, spot.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html
QUOTAS = {"g": ("L-DB2E81BA", "L-3819A6DF"), "p": ("L-417A185B", "L-7212CCBC"), "": ("L-1216C47A", "L-34B43A08")}
UNPACKED = 3  # room of an image on the box, in sizes of what is downloaded: archive, layers, and a second version beside it


@dataclass(frozen=True)
class Check:
    name: str
    why: str
    look: Callable[["Look"], list[Finding]]


@dataclass
class Look:
    """What several checks need, asked for once."""

    aws: Aws
    run: schema.Run
    tag: str

    @functools.cached_property
    def ami(self) -> dict:
        ssm = self.aws.client("ssm")
        try:
            found = ssm.get_parameter(Name=self.run.box.ami)["Parameter"]["Value"]
        except ssm.exceptions.ParameterNotFound:
            return {}
        images = self.aws.client("ec2").describe_images(ImageIds=[found])["Images"]
        return images[0] if images else {}

    @functools.cached_property
    def kind(self) -> dict | None:
        """The instance type as EC2 describes it."""
        wanted = [{"Name": "instance-type", "Values": [self.run.box.instance_type]}]
        found = self.aws.client("ec2").describe_instance_types(Filters=wanted)["InstanceTypes"]
        return found[0] if found else None


def laptop(look: Look) -> list[Finding]:
    at = permissions.place(look.aws)
    source = at.principal
    if source.endswith(":root"):
        return [Finding("permissions", OK, "the root user may do everything")]
    return _simulated("permissions", look, source, permissions.laptop(at), f"the policy of {source}")


def box_role(look: Look) -> list[Finding]:
    name = look.run.cloud.instance_profile
    iam = look.aws.client("iam")
    try:
        roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    except iam.exceptions.NoSuchEntityException:
        roles = None
    if not roles:
        what = f"there is no instance profile `{name}`" if roles is None else f"the instance profile `{name}` has no role"
        return [Finding("box role", BROKEN, what, "the box acts by it", "name another: `cloud.instance_profile=...`")]
    return _simulated("box role", look, roles[0]["Arn"], permissions.box(permissions.place(look.aws)), f"the role {roles[0]['RoleName']}")


def scheduler_role(look: Look) -> list[Finding]:
    name, why = look.run.cloud.scheduler_role, "it is what stops a box that can no longer stop itself"
    iam = look.aws.client("iam")
    try:
        role = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return [Finding("stop role", BROKEN, f"there is no role `{name}`", why, "name another: `cloud.scheduler_role=...`")]
    if "scheduler.amazonaws.com" not in str(role["AssumeRolePolicyDocument"]):
        command = (
            f"let scheduler.amazonaws.com assume it: `aws iam update-assume-role-policy --role-name {name} --policy-document file://...`"
        )
        return [Finding("stop role", BROKEN, f"the scheduler may not take the role `{name}`", why, command)]
    return _simulated("stop role", look, role["Arn"], permissions.stopping(permissions.place(look.aws)), f"the role {name}")


def _simulated(check: str, look: Look, source: str, wanted: list[Statement], where: str) -> list[Finding]:
    """One finding with every policy line that is missing."""
    lacking = [(one, gone) for one in wanted if (gone := _denied(look.aws, source, one))]
    if not lacking:
        return [Finding(check, OK, f"{where} allows all {len({action for one in wanted for action in one.actions})} actions")]
    what = f"{where} lacks " + ", ".join(sorted({action for _, gone in lacking for action in gone}))
    lines = "\n".join(permissions.line(one, gone) for one, gone in lacking)
    return [Finding(check, BROKEN, what, "; ".join(dict.fromkeys(one.why for one, _ in lacking)), f"add to {where}:\n{lines}")]


def _denied(aws: Aws, source: str, one: Statement) -> list[str]:
    entries = [
        {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [_example(_first(value))]}
        for tests in one.condition.values()
        for key, value in tests.items()
    ]
    request = {"PolicySourceArn": source, "ActionNames": list(one.actions), "ResourceArns": [_example(each) for each in one.resources]}
    pages = aws.client("iam").get_paginator("simulate_principal_policy").paginate(**request, ContextEntries=entries)
    return [result["EvalActionName"] for page in pages for result in page["EvaluationResults"] if result["EvalDecision"] != "allowed"]


def _first(value: str | list[str]) -> str:
    return value if isinstance(value, str) else value[0]


def _example(pattern: str) -> str:
    return pattern if pattern == "*" else pattern.replace("??????", "AbCdEf").replace("*", "example")


def bucket(look: Look) -> list[Finding]:
    store, region = Store(look.aws), look.run.cloud.region
    why = "runs, logs and data are in it"
    try:
        found = store.client.head_bucket(Bucket=store.bucket).get("BucketRegion") or region
    except store.client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return [
            Finding("bucket", BROKEN, f"there is no bucket `{store.bucket}`", why, f"`aws s3 mb s3://{store.bucket} --region {region}`")
        ]
    if found != region:
        what = f"bucket `{store.bucket}` is in {found}, the box would be in {region}"
        return [
            Finding(
                "bucket", BROKEN, what, "each byte between regions is slow and costs", f"`cloud.region={found}`, or another `cloud.bucket`"
            )
        ]
    return [Finding("bucket", OK, f"{store.bucket} in {found}")]


def repository(look: Look) -> list[Finding]:
    """The image of this tree, and whether the box's root disk has room for it."""
    ecr, name = look.aws.client("ecr"), look.run.cloud.repository
    try:
        ecr.describe_repositories(repositoryNames=[name])
        found = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": look.tag}])["imageDetails"][0]
    except ecr.exceptions.RepositoryNotFoundException:
        why = "the trainer's image is kept there"
        return [
            Finding(
                "repository", BROKEN, f"there is no ECR repository `{name}`", why, f"`aws ecr create-repository --repository-name {name}`"
            )
        ]
    except ecr.exceptions.ImageNotFoundException:
        what = f"ECR repository `{name}` has no image of this tree (tag {look.tag})"
        return [Finding("image", NOTE, what, "the box runs the image of exactly this tree", "`inv deploy` makes it ready")]
    size = found.get("imageSizeInBytes") or 0
    room, need = look.run.box.root_gb * 1e9, UNPACKED * size
    if need > room:
        what = f"box.root_gb={look.run.box.root_gb} is less than {UNPACKED} times the image of {size / 1e9:.1f} GB"
        return [Finding("root disk", BROKEN, what, "the image is unpacked there", f"`box.root_gb={int(need / 1e9) + 40}`")]
    return [Finding("image", OK, f"{look.tag}, {size / 1e9:.1f} GB, pushed {found['imagePushedAt']:%Y-%m-%d}, is of this tree")]


def ami(look: Look) -> list[Finding]:
    name, why = look.run.box.ami, "the box starts from it"
    if not look.ami:
        return [
            Finding("ami", BROKEN, f"the public parameter {name} names no image here", why, "another `box.ami=...`, such as conf/box has")
        ]
    root = next((one["Ebs"] for one in look.ami["BlockDeviceMappings"] if one["DeviceName"] == look.ami["RootDeviceName"]), {})
    if (least := root.get("VolumeSize") or 0) > look.run.box.root_gb:
        what = f"box.root_gb={look.run.box.root_gb} is less than the {least} GB of {look.ami['ImageId']}"
        return [Finding("ami", BROKEN, what, why, f"`box.root_gb={least}`")]
    return [Finding("ami", OK, f"{look.ami['ImageId']} ({look.ami.get('Name')})")]


def quota(look: Look) -> list[Finding]:
    if look.kind is None:
        return []  # the check of the type says so
    family, needed = look.run.box.instance_type.split(".")[0], look.kind["VCpuInfo"]["DefaultVCpus"]
    code, _ = next(codes for start, codes in QUOTAS.items() if family.startswith(start))
    value = look.aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    what = f"{value:.0f} vCPUs on demand ({code}), of which a {look.run.box.instance_type} takes {needed}"
    if value >= needed:
        return [Finding("quota", OK, what)]
    command = f"`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {needed}`"
    return [Finding("quota", BROKEN, what, "AWS launches nothing beyond it; an increase takes hours to days", command)]


def offered(look: Look) -> list[Finding]:
    """Where the type can be had, and whether that is where the volume is."""
    kind, region = look.run.box.instance_type, look.run.cloud.region
    request = {"LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": [kind]}]}
    pages = look.aws.client("ec2").get_paginator("describe_instance_type_offerings").paginate(**request)
    zones = sorted(one["Location"] for page in pages for one in page["InstanceTypeOfferings"])
    if not zones:
        return [Finding("type", BROKEN, f"{region} has no {kind}", "the box is of this type", "another `box=...` or `cloud.region=...`")]
    where = volume.zone(look.aws, look.run.box.name)
    if where and where not in zones:
        what = f"the volume is in {where}; {kind} can be had in {', '.join(zones)}"
        command = "`inv down --snapshot`, then make a volume of the snapshot in one of these, with the same tags"
        return [Finding("zone", BROKEN, what, "a volume can be used in its own zone only", command)]
    return [Finding("type", OK, f"{kind} can be had in {', '.join(zones)}" + (f"; the volume is in {where}" if where else ""))]


def network(look: Look) -> list[Finding]:
    """A way from the default subnets out to AWS and the Hub."""
    ec2, why = look.aws.client("ec2"), "the box must reach ssm, ecr, s3 and the Hub; nothing reaches it"
    subnets = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    if not subnets:
        return [Finding("network", BROKEN, "the account has no default network here", why, "`aws ec2 create-default-vpc`")]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [subnets[0]["VpcId"]]}])["RouteTables"]
    closed = [one["SubnetId"] for one in subnets if not _way_out(one, tables)]
    if closed:
        command = "route 0.0.0.0/0 to an internet gateway or a NAT gateway: `aws ec2 create-route --route-table-id ... --gateway-id ...`"
        return [Finding("network", BROKEN, f"no way out of {', '.join(closed)}", why, command)]
    return [Finding("network", OK, f"{len(subnets)} subnets, each with a way out")]


def _way_out(subnet: dict, tables: list[dict]) -> bool:
    own = [one for one in tables if any(link.get("SubnetId") == subnet["SubnetId"] for link in one["Associations"])]
    main = [one for one in tables if any(link.get("Main") for link in one["Associations"])]
    for route in (own or main or [{"Routes": []}])[0]["Routes"]:
        if route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole":
            through = route.get("GatewayId") or ""
            return not through.startswith("igw-") or subnet["MapPublicIpOnLaunch"]
    return False


def logs(look: Look) -> list[Finding]:
    name = look.run.cloud.log_group
    groups = look.aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    if any(one["logGroupName"] == name for one in groups):
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


def boxes(look: Look) -> list[Finding]:
    """The box, where there is one: whose it is, and whether its agent answers."""
    found = box.find(look.aws, look.run.box.name)
    if found is None:
        return [Finding("box", OK, f"`{look.run.box.name}`: none yet")]
    if found.state != "running":
        return [Finding("box", OK, f"{found.id} is {found.state}")]
    wanted = [{"Key": "InstanceIds", "Values": [found.id]}]
    agents = look.aws.client("ssm").describe_instance_information(Filters=wanted)["InstanceInformationList"]
    if not agents or agents[0]["PingStatus"] != "Online":
        why = "every command for the box goes through it"
        return [Finding("agent", BROKEN, f"the agent on {found.id} does not answer", why, "`inv down` and `inv up` restart it")]
    return [Finding("agent", OK, f"{found.id}: version {agents[0].get('AgentVersion', '?')}, {agents[0]['PingStatus']}")]


def prices(look: Look) -> list[Finding]:
    hourly, source = price.per_hour(look.aws, look.run.box.instance_type)
    if hourly is None:
        return [
            Finding(
                "price", NOTE, "unknown: the Price List does not say", "what you will pay", "https://aws.amazon.com/ec2/pricing/on-demand/"
            )
        ]
    return [Finding("price", OK, f"${hourly:.4f} an hour ({source})")]


CHECKS = [
    Check("permissions", "what the verbs call", laptop),
    Check("box role", "what the box calls", box_role),
    Check("stop role", "what stops a dead box", scheduler_role),
    Check("bucket", "runs, logs and data are in it", bucket),
    Check("image", "the box runs it", repository),
    Check("ami", "the box starts from it", ami),
    Check("quota", "how much AWS lets you run", quota),
    Check("type", "what can be had where", offered),
    Check("network", "the box must reach AWS and the Hub", network),
    Check("log group", "runs mirror their log to it", logs),
    Check("box", "the box that is there", boxes),
    Check("price", "what you will pay", prices),
]
