"""An account as a whole: all that is in it, and a laptop that notices whether a command has changed any of it."""

import json
from pathlib import Path

from conftest import Laptop

# What every command leaves on purpose, a line in the audit; locks, which come and go; what a running box says of itself.
ASIDE = ("/audit/", "/locks/", "/boxes/", "/notices/")


def snapshot(laptop: Laptop) -> dict[str, object]:
    """What there is in the account, each kind in an order of its own."""
    s3, iam = laptop.client("s3"), laptop.client("iam")
    buckets = [one["Name"] for one in s3.list_buckets()["Buckets"]]
    # Roles of AWS's own services stay: they are made at their first use, and belong to nobody's stack.
    roles = [one["RoleName"] for one in iam.list_roles()["Roles"] if not one["Path"].startswith("/aws-service-role/")]
    return {
        "buckets": buckets,
        "objects": {key: tag for bucket in buckets for key, tag in objects(s3, bucket).items()},
        "roles": {role: inline(iam, role) for role in roles},
        "profiles": [one["InstanceProfileName"] for one in iam.list_instance_profiles()["InstanceProfiles"]],
        "providers": [one["Arn"] for one in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]],
        **machines(laptop.client("ec2")),
        **rest(laptop),
    }


def objects(s3, bucket: str) -> dict[str, str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    etags = {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}
    return {key: tag for key, tag in etags.items() if not any(part in f"/{key}" for part in ASIDE)}


def inline(iam, role: str) -> dict:
    return {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }


def machines(ec2) -> dict[str, list]:
    boxes = [instance for group in ec2.describe_instances()["Reservations"] for instance in group["Instances"]]
    ours = [{"Name": "tag-key", "Values": ["fine-tune-slm:box"]}]
    return {
        "boxes": [{"id": one["InstanceId"], "state": one["State"]["Name"]} for one in boxes if one["State"]["Name"] != "terminated"],
        "volumes": [(one["VolumeId"], one["Size"], one["State"]) for one in ec2.describe_volumes()["Volumes"]],
        "snapshots": [one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"], Filters=ours)["Snapshots"]],
        "templates": [(one["LaunchTemplateId"], one["LatestVersionNumber"]) for one in ec2.describe_launch_templates()["LaunchTemplates"]],
        "groups": [one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"] if one["GroupName"] != "default"],
    }


def rest(laptop: Laptop) -> dict[str, object]:
    ecr, secrets = laptop.client("ecr"), laptop.client("secretsmanager")
    names = [one["repositoryName"] for one in ecr.describe_repositories()["repositories"]]
    pages = laptop.client("ssm").get_paginator("get_parameters_by_path").paginate(Path="/fine-tune-slm", Recursive=True)
    summaries = laptop.client("cloudformation").list_stacks()["StackSummaries"]
    return {
        "images": {name: ecr.list_images(repositoryName=name)["imageIds"] for name in names},
        "secrets": {one["Name"]: one.get("SecretVersionsToStages") for one in secrets.list_secrets()["SecretList"]},
        "parameters": {parameter["Name"]: parameter["Value"] for page in pages for parameter in page["Parameters"]},
        "logs": [one["logGroupName"] for one in laptop.client("logs").describe_log_groups()["logGroups"]],
        "schedules": [one["Name"] for one in laptop.client("scheduler").list_schedules()["Schedules"]],
        "budgets": [one["BudgetName"] for one in laptop.client("budgets").describe_budgets(AccountId="123456789012").get("Budgets", [])],
        "stacks": [one["StackName"] for one in summaries if one["StackStatus"] != "DELETE_COMPLETE"],
    }


class Story(Laptop):
    """A laptop with a Hub token, in an account with nothing in it."""

    def __init__(self, folder: Path):
        from twin import world

        super().__init__(folder)
        self.inv("twin.start", "--empty")
        self.token = folder / "token"
        self.token.write_text(world.environment(self.state)["HF_TOKEN"] + "\n")
        self.said: dict[str, list[str]] = {}
        self.changed: dict[str, dict] = {}
        self.clients: dict = {}  # each costs a fifth of a second to make

    def client(self, service: str):
        if service not in self.clients:
            self.clients[service] = super().client(service)
        return self.clients[service]

    def twice(self, verb: str, *words: str, overrides: tuple[str, ...] = ()) -> None:
        """The command, and the same command again."""
        self.said.setdefault(verb, []).append(self.inv(verb, *words, overrides=overrides).stdout)
        self.again(verb, *words, overrides=overrides)

    def again(self, verb: str, *words: str, overrides: tuple[str, ...] = ()) -> None:
        """A command that has been given before: what it says, and what it changes."""
        before = snapshot(self)
        self.said.setdefault(verb, []).append(self.inv(verb, *words, overrides=overrides).stdout)
        after = snapshot(self)
        changed = {name: (before[name], after[name]) for name in after if not same(before[name], after[name])}
        self.changed.setdefault(verb, {}).update(changed)


def same(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)
