"""What an account has already of what `inv init` makes: it is used as it is, and left alone."""

from dataclasses import dataclass

from conf import schema
from conf.problem import Problem
from remote.account import fleet, names, stack
from remote.aws.session import Aws

# What the stack makes unless it is there already: the resource's name in the template, the parameter that decides, how to look.
ADOPTED = {
    "DataBucket": ("MakeBucket", "bucket", lambda aws, name: aws.client("s3").head_bucket(Bucket=name)),
    "Images": ("MakeRepository", "repository", lambda aws, name: aws.client("ecr").describe_repositories(repositoryNames=[name])),
    "Logs": ("MakeLogGroup", "log_group", lambda aws, name: _log_group(aws, name)),
    "Role": ("MakeBoxRole", "box_role", lambda aws, name: aws.client("iam").get_role(RoleName=name)),
    "Profile": ("MakeInstanceProfile", "instance_profile", lambda aws, name: _profile(aws, name)),
    "StopRole": ("MakeSchedulerRole", "scheduler_role", lambda aws, name: aws.client("iam").get_role(RoleName=name)),
    "HubToken": ("MakeHubSecret", "hub_secret", lambda aws, name: aws.client("secretsmanager").describe_secret(SecretId=name)),
}
ABSENT = ("404", "NoSuchBucket", "NoSuchEntity", "RepositoryNotFoundException", "ResourceNotFoundException")
GITHUB = "token.actions.githubusercontent.com"


@dataclass(frozen=True)
class Survey:
    wanted: dict[str, str]  # the template's parameters
    adopted: list[str]  # what is there and is used as it is, in words
    by_hand: list[dict[str, str]]  # names in Parameter Store that were put there by hand


def survey(aws: Aws, run: schema.Run) -> Survey:
    """Look at what the account has already: it is used as it is, and left alone."""
    current, cloud = stack.find_settled(aws), run.cloud
    wanted, adopted = stack.parameters(run), []
    for name, (parameter, setting, describe) in ADOPTED.items():
        value = getattr(cloud, setting)
        used = name not in current.resources and exists(aws, describe, value)
        wanted[parameter] = "no" if used else "yes"
        if used:
            adopted.append(f"{setting.replace('_', ' ')} {value}")
    if cloud.github:
        providers = aws.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
        used = any(provider["Arn"].endswith(GITHUB) for provider in providers) and "GithubProvider" not in current.resources
        wanted["MakeGithubProvider"] = "no" if used else "yes"
    if not current.created and launch_template(aws, cloud.launch_template):
        remove = f"`aws ec2 delete-launch-template --launch-template-name {cloud.launch_template}`"
        hint = f"name another, `cloud.launch_template=...`, or remove it: {remove}"
        raise Problem(f"there is a launch template `{cloud.launch_template}` that no stack of ours made", hint, reason="refused")
    if wanted["MakeInstanceProfile"] == "no":
        _check_profile_role(aws, cloud)
    wanted["Vpc"] = _network(aws, run.box.subnet)
    wanted |= fleet.wanted(aws, run, current, wanted["Vpc"])
    by_hand = names.set_by_hand(aws, current)
    by_name = {record["Name"].removeprefix(cloud.root): record["Value"] for record in by_hand}
    wanted |= {parameter: by_name[name] for name, parameter in stack.BY_HAND.items() if name in by_name}
    return Survey(wanted, adopted, by_hand)


def _check_profile_role(aws: Aws, cloud: schema.Cloud) -> None:
    """A Problem when the profile that is adopted hands out another role than the one that may be passed."""
    roles = [role["RoleName"] for role in _profile(aws, cloud.instance_profile)["InstanceProfile"]["Roles"]]
    if roles != [cloud.box_role]:
        what = f"the instance profile `{cloud.instance_profile}` hands out {', '.join(roles) or 'no role'}, not `{cloud.box_role}`"
        hint = f"`cloud.box_role={roles[0]}`" if roles else "put a role into it, or name another: `cloud.instance_profile=...`"
        raise Problem(what, hint, reason="refused")


def exists(aws: Aws, describe, name: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        return describe(aws, name) is not None
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ABSENT:
            return False
        if code == "403":
            raise Problem(f"`{name}` belongs to somebody else", "name another: `inv init -- cloud.bucket=...`", reason="refused") from error
        raise


def _log_group(aws: Aws, name: str) -> dict | None:
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return next((group for group in groups if group["logGroupName"] == name), None)


def _profile(aws: Aws, name: str) -> dict:
    return aws.client("iam").get_instance_profile(InstanceProfileName=name)


def launch_template(aws: Aws, name: str) -> dict | None:
    templates = aws.client("ec2").describe_launch_templates(Filters=[{"Name": "launch-template-name", "Values": [name]}])["LaunchTemplates"]
    return templates[0] if templates else None


def _network(aws: Aws, subnet: str | None) -> str:
    ec2 = aws.client("ec2")
    if subnet:
        return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    networks = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not networks:
        hint = "name a subnet of yours, `box.subnet=subnet-...`, or make one: `aws ec2 create-default-vpc`"
        raise Problem(f"region {aws.cloud.region} has no default network", hint, reason="refused")
    return networks[0]["VpcId"]
