"""Whether what `inv init` has made is still as it made it: what somebody has changed by hand since, CloudFormation does not see by itself.

Where a thing is missing altogether, the check of that thing says so.
"""

import json
import re
import shlex

from conf.finding import BROKEN, NOTE, OK, Finding
from remote.account import stack
from remote.aws.instance import METADATA
from remote.aws.s3 import Store
from remote.aws.tags import BOX
from remote.doctor.check import Context

NAME = re.compile(r'Name: !Sub "/[^/]+/([^"]+)", Value: !Ref (\w+)')
# What it keeps from boxes that stack.yaml has them launched so.
METADATA_REASONS = {
    "HttpTokens": "without a token, anybody who makes the box fetch an address gets the keys of its role",
    "HttpPutResponseHopLimit": "a container is one hop further from the box's keys than the box, and must not come to them",
}
ENCRYPTED = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
RETENTION = 30  # days
POLICY = "lifecyclePolicyText"
EXPIRE = {"action": {"type": "expire"}}
# As stack.yaml has it: a test compares them.
LIFECYCLE_POLICY = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "keep the ten newest builds: each has a tag, what an index is made of has none",
            "selection": {"tagStatus": "tagged", "tagPatternList": ["*"], "countType": "imageCountMoreThan", "countNumber": 10},
            **EXPIRE,
        },
        {
            "rulePriority": 2,
            "description": "what no tag leads to any more",
            "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1},
            **EXPIRE,
        },
    ]
}


def launch(context: Context) -> list[Finding]:
    """The launch template that every box comes from, and the security group that it names."""
    ec2, name = context.aws.client("ec2"), context.run.cloud.launch_template
    try:
        versions = ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Latest"])["LaunchTemplateVersions"]
    except ec2.exceptions.ClientError as error:
        if not error.response["Error"]["Code"].startswith("InvalidLaunchTemplate"):
            raise
        what, command = f"there is no launch template `{name}`", "`inv destroy`, then `inv init`: both keep the bucket and the volume"
        return [Finding("launch", BROKEN, what, "`up` launches every box with it", command)]
    data = versions[0]["LaunchTemplateData"]
    return _metadata(name, data) + _open_ports(context, data.get("SecurityGroupIds", [])) or [
        Finding("launch", OK, f"template {name}, no way in")
    ]


def _metadata(name: str, data: dict) -> list[Finding]:
    options = data.get("MetadataOptions", {})
    wrong = {key: why for key, why in METADATA_REASONS.items() if options.get(key) != METADATA[key]}
    if not wrong:
        return []
    what = f"launch template `{name}` has {', '.join(f'{key} {options.get(key)}, not {METADATA[key]}' for key in wrong)}"
    fixed = json.dumps(data | {"MetadataOptions": options | METADATA}, separators=(",", ":"), default=str)
    command = f"aws ec2 create-launch-template-version --launch-template-name {name} --launch-template-data {shlex.quote(fixed)}"
    return [Finding("launch", BROKEN, what, "; ".join(wrong.values()), f"`{command}`; a box that is there keeps what it has")]


def _open_ports(context: Context, groups: list[str]) -> list[Finding]:
    if not groups:
        return []
    security_groups = context.aws.client("ec2").describe_security_groups(GroupIds=groups)["SecurityGroups"]
    return [
        finding for group in security_groups for rule in group["IpPermissions"] if (finding := _open_port(context, group["GroupId"], rule))
    ]


def _open_port(context: Context, group: str, rule: dict) -> Finding | None:
    """A way in that `box.ssh=true` has not opened, or that nobody has closed behind it."""
    rest = {key: value for key, value in rule.items() if key not in ("IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs")}
    ours = [one for one in rule.get("IpRanges", []) if one.get("Description", "").startswith(f"{BOX}=")]
    others = {"IpRanges": [one for one in rule.get("IpRanges", []) if one not in ours]}
    others |= {key: rule[key] for key in ("Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs") if rule.get(key)}
    ports = rule.get("FromPort", "every port")
    if any(others.values()):
        command = f"aws ec2 revoke-security-group-ingress --group-id {group} --ip-permissions {shlex.quote(json.dumps([rest | others]))}"
        what = f"security group {group} of the boxes lets in {ports} from {_sources(others)}"
        return Finding("way in", BROKEN, what, "nothing needs to come in but what `box.ssh=true` opens to you alone", f"`{command}`")
    mine = [one["CidrIp"] for one in ours if one["Description"] == f"{BOX}={context.run.box.name}"]
    if mine and not context.run.box.ssh:
        what = f"port {ports} of {group} is open to {', '.join(mine)} since `box.ssh=true`"
        return Finding("way in", NOTE, what, "it stays open until the box is put down", "`inv down` closes it")
    return None


def _sources(rule: dict) -> str:
    names = {"IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6", "PrefixListIds": "PrefixListId", "UserIdGroupPairs": "GroupId"}
    return ", ".join(str(one.get(name)) for key, name in names.items() for one in rule.get(key, []))


def bucket(store: Store) -> list[Finding]:
    """What keeps a bucket's older versions, encrypts it, and refuses plain connections. One that was adopted may lack it on purpose."""
    s3, name, command = store.client, store.bucket, "aws s3api {} --bucket {} {}"
    findings = []
    if s3.get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
        fix = command.format("put-bucket-versioning", name, "--versioning-configuration Status=Enabled")
        what, why = f"bucket `{name}` keeps no older versions", "what is overwritten or removed by mistake is lost"
        findings.append(Finding("versions", NOTE, what, why, f"`{fix}`"))
    if not _get_or_empty(lambda: s3.get_bucket_encryption(Bucket=name), "ServerSideEncryptionConfigurationNotFoundError"):
        fix = f"--server-side-encryption-configuration {shlex.quote(json.dumps(ENCRYPTED))}"
        what, why = f"bucket `{name}` does not say how it is encrypted", "then AWS decides"
        findings.append(Finding("encryption", NOTE, what, why, f"`{command.format('put-bucket-encryption', name, fix)}`"))
    policy = json.loads(_get_or_empty(lambda: s3.get_bucket_policy(Bucket=name), "NoSuchBucketPolicy").get("Policy", "{}"))
    lines = policy.get("Statement", [])
    if not any(statement["Effect"] == "Deny" and "aws:SecureTransport" in json.dumps(statement.get("Condition")) for statement in lines):
        wanted = {"Version": "2012-10-17", "Statement": [*lines, _encrypted_only(store)]}
        fix = command.format("put-bucket-policy", name, f"--policy {shlex.quote(json.dumps(wanted))}")
        what, why = f"bucket `{name}` takes connections that are not encrypted", "rows and models can be read on the way"
        findings.append(Finding("connections", NOTE, what, why, f"`{fix}`"))
    return findings


def _encrypted_only(store: Store) -> dict:
    partition = store.client.meta.partition
    resources = [f"arn:{partition}:s3:::{store.bucket}", f"arn:{partition}:s3:::{store.bucket}/*"]
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    return {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": resources, "Condition": plain}


def _get_or_empty(ask, absent: str) -> dict:
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] != absent:
            raise
        return {}


def repository(context: Context) -> list[Finding]:
    """Tags that do not move, images that are looked at for known holes, and of which the newest builds stay."""
    ecr, name = context.aws.client("ecr"), context.run.cloud.repository
    try:
        description = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]
    except ecr.exceptions.RepositoryNotFoundException:
        return []
    findings, command = [], f"aws ecr {{}} --repository-name {name} {{}}"
    if description["imageTagMutability"] != "IMMUTABLE":
        fix = command.format("put-image-tag-mutability", "--image-tag-mutability IMMUTABLE")
        what, why = f"tags of ECR repository `{name}` can be moved", "a tag stands for what the image is made of"
        findings.append(Finding("tags", NOTE, what, why, f"`{fix}`"))
    if not description["imageScanningConfiguration"]["scanOnPush"]:
        fix = command.format("put-image-scanning-configuration", "--image-scanning-configuration scanOnPush=true")
        what, why = f"ECR repository `{name}` does not scan images", "known vulnerabilities would go unnoticed"
        findings.append(Finding("scan", NOTE, what, why, f"`{fix}`"))
    return [*findings, *_lifecycle(ecr, name, command)]


def _lifecycle(ecr, name: str, command: str) -> list[Finding]:
    """Which images stay: a rule for all of them counts what an index is made of as builds."""
    policy = json.loads(
        _get_or_empty(lambda: ecr.get_lifecycle_policy(repositoryName=name), "LifecyclePolicyNotFoundException").get(POLICY, "{}")
    )
    counted = [rule["selection"]["tagStatus"] for rule in policy.get("rules", []) if rule["selection"]["countType"] == "imageCountMoreThan"]
    if policy and "any" not in counted:
        return []
    what = f"ECR repository `{name}` counts more than tagged images as builds" if policy else f"ECR repository `{name}` keeps every image"
    why = "fewer builds remain than it says" if policy else "they are paid by the GB"
    fix = command.format(
        "put-lifecycle-policy", f"--lifecycle-policy-text {shlex.quote(json.dumps(LIFECYCLE_POLICY, separators=(',', ':')))}"
    )
    return [Finding("builds", NOTE, what, why, f"`{fix}`")]


def logs(context: Context) -> list[Finding]:
    """Logs that end some day: S3 has them all."""
    name = context.run.cloud.log_group
    groups = context.aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    if any(group["logGroupName"] == name and "retentionInDays" not in group for group in groups):
        command = f"`aws logs put-retention-policy --log-group-name {name} --retention-in-days {RETENTION}`"
        return [Finding("retention", NOTE, f"log group `{name}` keeps everything for ever", "it is paid by the GB; S3 has it all", command)]
    return []


def names(context: Context) -> list[Finding]:
    """Names in Parameter Store, each of them there: for one that is missing the default is taken, whatever the stack has made."""
    wanted = {context.run.cloud.root + end: parameter for end, parameter in NAME.findall(stack.TEMPLATE.read_text(encoding="utf-8"))}
    ssm, every, missing = context.aws.client("ssm"), sorted(wanted), []
    for start in range(0, len(every), 10):
        missing += ssm.get_parameters(Names=every[start : start + 10])["InvalidParameters"]
    if not missing:
        return [Finding("names", OK, f"{len(every)} in Parameter Store")]
    values = stack.parameters(context.run)
    one = f"aws ssm put-parameter --type String --name {missing[0]} --value {shlex.quote(values.get(wanted[missing[0]], 'VALUE'))}"
    what = f"Parameter Store has no {', '.join(missing)}"
    return [Finding("names", NOTE, what, "the default is taken in its place", f"`{one}`, or another value; each of them so")]
