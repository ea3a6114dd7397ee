"""What a compute environment launches: which instance types, with which rights, from which template; and what stands against it."""

from twin.aws import wire
from twin.aws.ec2 import instances


def types_of(word: str) -> list[str]:
    """The instance types that a word of `instanceTypes` stands for: one type, a family, or `optimal`."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    families = ("m4", "c4", "r4") if word == "optimal" else (word,)
    return [word] if word in INSTANCE_TYPES else [name for name in INSTANCE_TYPES if name.split(".")[0] in families]


def problem(resources: dict, service_role: str, region: str) -> str:
    """Why Batch could launch nothing with these computeResources; empty where it could."""
    backend, role = instances.backend(region), resources["instanceRole"]
    if not profile(role):
        return f"Invalid IAM Instance Profile: {role}"
    if "aws-service-role" not in service_role and not role_is_there(service_role):
        return f"Not authorized to perform sts:AssumeRole on {service_role}"
    if missing := [one for one in resources["subnets"] if one not in {subnet.id for subnet in backend.describe_subnets()}]:
        return f"The subnet ID '{missing[0]}' does not exist"
    groups = {group.id for group in backend.describe_security_groups()}
    if missing := [one for one in resources.get("securityGroupIds", []) if one not in groups]:
        return f"The security group '{missing[0]}' does not exist"
    return template_problem(resources["launchTemplate"], region) if "launchTemplate" in resources else ""


def template_problem(named: dict, region: str) -> str:
    found = template(named, region)
    id = named.get("launchTemplateId") or named.get("launchTemplateName")
    if not found:
        return f"You must use a valid fully-formed launch template. The specified launch template, {id}, does not exist."
    wanted = named.get("version") or "$Default"
    if wanted not in ("$Default", "$Latest") and wanted not in {str(one.number) for one in found.versions}:
        return f"Could not find launch template version {wanted} of {id}"
    return ""


def template(named: dict, region: str):
    """Moto's record of a launch template, or None."""
    id, name = named.get("launchTemplateId"), named.get("launchTemplateName")
    return next((one for one in instances.backend(region).launch_templates.values() if id == one.id or name == one.name), None)


def data(named: dict | None, region: str) -> dict:
    """What the version of the launch template says that an environment names; nothing where it names none."""
    found = template(named, region) if named else None
    return found.get_version(named.get("version") or "$Default").data if found else {}


def profile(role: str):
    """The instance profile that `instanceRole` names by its name or its ARN, or None."""
    from moto.iam.models import iam_backends

    profiles = iam_backends[wire.ACCOUNT]["aws"].instance_profiles.values()
    return next((one for one in profiles if role in (one.name, one.arn)), None)


def role_is_there(arn: str) -> bool:
    from moto.iam.models import iam_backends

    return any(arn in (one.arn, one.name) for one in iam_backends[wire.ACCOUNT]["aws"].roles.values())
