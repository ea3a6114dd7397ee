"""Whether runs can train on the fleet, where the settings name one: `inv doctor -- fleet=batch`."""

import functools
import math

from conf import schema
from conf.finding import BROKEN, NOTE, OK, Finding
from conf.problem import Problem
from remote.aws import fleet, session
from remote.doctor import fleet_drift, network, quota
from remote.doctor.check import Check, Context

INIT = "`inv init -- fleet=batch`"
TOLD = ("refused", "model_unavailable", "unreachable")  # what is wrong with token or base model: their own checks say so
# https://docs.aws.amazon.com/batch/latest/userguide/using-service-linked-roles.html: Batch makes its own with the first environment, and
# EC2's for spot is made by hand or by the first spot instance that a user launches.
LINKED = {"batch": "AWSServiceRoleForBatch", "spot": "AWSServiceRoleForEC2Spot"}


def checks(too_small) -> list[Check]:
    """What is examined; `too_small` names the types on which the planned run has no room."""
    return [
        Check("fleet", "runs train on it", environments),
        Check("fleet ends", "`inv costs` reads them", ends),
        Check("fleet quota", "how many instances AWS lets it have", quotas),
        Check("fleet network", "its instances must reach AWS and the Hub", routes),
        Check("fleet image", "its runs are containers of it", image),
        Check("fleet roles", "Batch and EC2 act by them", linked_roles),
        Check("fleet memory", "a run must fit into each of its types", functools.partial(memory, too_small=too_small)),
    ]


def _wanted(context: Context) -> list[str]:
    """The names of the environments that the settings use; none without a fleet."""
    if context.run.fleet.engine is schema.Engine.none:
        return []
    return [f"{context.run.cloud.own}-{market}" for market in fleet.MARKETS[context.run.fleet.market]]


def environments(context: Context) -> list[Finding]:
    if not (names := _wanted(context)):
        return []
    there = {one["computeEnvironmentName"]: one for one in fleet.environments(context.aws)}
    findings = [_environment(context, name, there.get(name)) for name in names]
    return [*findings, *fleet_drift.changed(context, [there[name] for name in names if name in there])]


def ends(context: Context) -> list[Finding]:
    """The rule that writes down when instances end; nothing where the fleet's own check says that there is none."""
    there = {one["computeEnvironmentName"] for one in fleet.environments(context.aws)} if (names := _wanted(context)) else set()
    return fleet_drift.rule(context) if there & set(names) else []


def _environment(context: Context, name: str, one: dict | None) -> Finding:
    why = "a job that is handed over waits in its queue"
    if one is None:
        return Finding("fleet", BROKEN, f"AWS Batch has no compute environment `{name}`", why, f"{INIT} makes it")
    if one["status"] == "INVALID":
        what = f"`{name}` is INVALID: {one.get('statusReason') or 'Batch says no reason'}"
        return Finding(
            "fleet", BROKEN, what, why, f"`inv destroy`, then {INIT}: both keep the bucket, and an invalid one is no more to be had"
        )
    if one["state"] != "ENABLED":
        command = f"`aws batch update-compute-environment --compute-environment {name} --state ENABLED`"
        return Finding("fleet", BROKEN, f"`{name}` is {one['state']}", why, command)
    computed, settings = one["computeResources"], context.run.fleet
    has, wanted = (computed["maxvCpus"], sorted(computed["instanceTypes"])), (settings.max_vcpus, sorted(settings.instance_type))
    if has != wanted:
        what = f"`{name}` has {has[0]} vCPUs of {', '.join(has[1])}, and your settings say {wanted[0]} of {', '.join(wanted[1])}"
        return Finding("fleet", NOTE, what, "the stack's are used", f"{INIT} changes them")
    return Finding("fleet", OK, f"{name}: {one['status']}, {has[0]} vCPUs of {', '.join(has[1])} at most")


def quotas(context: Context) -> list[Finding]:
    """AWS counts vCPUs on demand and on spot apart, by families of types: of a type that would do one quota at least must have room."""
    if not _wanted(context):
        return []
    types = list(context.run.fleet.instance_type)
    described = context.aws.client("ec2").describe_instance_types(InstanceTypes=types)["InstanceTypes"]
    vcpus = {one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in described}
    return [
        _quota(context, kind, vcpus[kind], market) for market in fleet.MARKETS[context.run.fleet.market] for kind in types if kind in vcpus
    ]


def _quota(context: Context, kind: str, vcpus: int, market: str) -> Finding:
    code = quota.codes(kind)[market == "spot"]
    words, why = {"spot": "as spot"}.get(market, "on demand"), "AWS launches nothing beyond it; an increase takes hours to days"
    if code is None:
        what = f"it is unknown which quota counts a {kind} {words}"
        return Finding("fleet quota", NOTE, what, why, "`aws service-quotas list-service-quotas --service-code ec2`")
    value = context.aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    most = context.run.fleet.max_vcpus
    what = f"{value:.0f} vCPUs {words} ({code}): {math.floor(min(value, most) / vcpus)} of {kind} at once"
    if value >= most:
        return Finding("fleet quota", OK, what)
    command = f"`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {most}`"
    verdict = NOTE if value >= vcpus else BROKEN
    return Finding("fleet quota", verdict, f"{what}; fleet.max_vcpus is {most}", why, command)


def routes(context: Context) -> list[Finding]:
    """A way out of each subnet of its environments."""
    names, ec2 = _wanted(context), context.aws.client("ec2")
    there = [one for one in fleet.environments(context.aws) if one["computeEnvironmentName"] in names] if names else []
    used = sorted({subnet for one in there for subnet in one["computeResources"]["subnets"]})
    if not used:
        return []  # the check of the fleet says so
    subnets = ec2.describe_subnets(SubnetIds=used)["Subnets"]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [subnets[0]["VpcId"]]}])["RouteTables"]
    closed = [subnet["SubnetId"] for subnet in subnets if not network.has_way_out(subnet, tables)]
    if not closed:
        return [Finding("fleet network", OK, f"{len(subnets)} subnets, each with a way out")]
    what = f"no way out of {', '.join(closed)}: neither a public address with an internet gateway nor another gateway"
    command = f"name a subnet that has one, {INIT.rstrip('`')} box.subnet=subnet-...`; or route 0.0.0.0/0 to a gateway"
    verdict = BROKEN if len(closed) == len(subnets) else NOTE
    return [Finding("fleet network", verdict, what, "an instance there never joins, and its job waits", command)]


def image(context: Context) -> list[Finding]:
    if not _wanted(context):
        return []
    ecr, name = context.aws.client("ecr"), context.run.cloud.repository
    try:
        ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": context.tag}])
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        what = f"ECR repository `{name}` has no image of this tree (tag {context.tag})"
        command = "`inv up deploy down` builds it on the box once, or `inv image.push` here"
        return [Finding("fleet image", BROKEN, what, "a fleet builds none", command)]
    return [Finding("fleet image", OK, f"{context.tag} is in ECR")]


def linked_roles(context: Context) -> list[Finding]:
    names = ["batch", *(["spot"] if context.run.fleet.market is not schema.Market.on_demand else [])] if _wanted(context) else []
    return [finding for name in names if (finding := _linked_role(context, name))]


def _linked_role(context: Context, service: str) -> Finding:
    iam = context.aws.client("iam")
    try:
        iam.get_role(RoleName=LINKED[service])
    except iam.exceptions.NoSuchEntityException:
        command = f"`aws iam create-service-linked-role --aws-service-name {service}.amazonaws.com`"
        what = f"there is no service-linked role {LINKED[service]}"
        return Finding("fleet roles", BROKEN, what, f"{service}.amazonaws.com launches instances by it", command)
    return Finding("fleet roles", OK, LINKED[service])


def memory(context: Context, too_small) -> list[Finding]:
    if not _wanted(context):
        return []
    types = context.run.fleet.instance_type
    try:
        small = too_small(context.aws, context.run)
    except Problem as problem:  # none of it is the fleet's
        return [] if problem.reason in TOLD else [Finding("planned run", BROKEN, problem.what, "it would not begin anywhere", problem.hint)]
    except Exception as error:
        if not session.is_access_denied(error):
            raise
        return []  # the same
    if small:
        what = f"the planned run has no room on {', '.join(small)}"
        rest = [kind for kind in types if kind not in small]
        command = f"'fleet.instance_type=[{','.join(rest) or 'g6e.2xlarge'}]'; `inv plan` shows what it needs"
        return [Finding("fleet memory", BROKEN, what, "Batch takes any of the types, and the run would fail there", command)]
    return [Finding("fleet memory", OK, f"the planned run fits into {' and '.join(types)}")]
