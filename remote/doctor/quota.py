"""Whether a box can be had: quota, zones, price."""

import functools
import re
from collections.abc import Callable
from dataclasses import replace

from conf.finding import BROKEN, NOTE, OK, Finding
from remote.aws import capacity, pricing, volume
from remote.doctor.check import Context

# Quotas count vCPUs of a family of types. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html
DEMAND = dict.fromkeys(("g", "gr", "vt"), "L-DB2E81BA") | {"p": "L-417A185B"} | dict.fromkeys((*"acdhimrtz", "im", "is"), "L-1216C47A")
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html: of the P types the newer ones have quotas of their own.
SPOT = {"L-DB2E81BA": "L-3819A6DF", "L-1216C47A": "L-34B43A08"}
SPOT_OF_P = {"p2": "L-7212CCBC", "p3": "L-7212CCBC", "p4": "L-7212CCBC", "p5": "L-C4BD4855"}


def codes(kind: str) -> tuple[str | None, str | None]:
    """The quotas that count this type on demand and as spot; None where nobody here knows."""
    known = re.match(r"([a-z]+)(\d*)", kind)
    letters, generation = known.groups() if known else ("", "")
    demand = DEMAND.get(letters)
    return demand, SPOT_OF_P.get(f"p{generation}") if letters == "p" else SPOT.get(demand or "")


def _of_each_type(context: Context, examine: Callable[[Context, str], list[Finding]]) -> list[Finding]:
    """What is found of each type that would do. Where one can be had, the want of another stops nothing."""
    found = [examine(context, kind) for kind in context.run.box.instance_types]
    if any(all(finding.verdict != BROKEN for finding in findings) for findings in found):
        found = [[replace(one, verdict=NOTE) if one.verdict == BROKEN else one for one in findings] for findings in found]
    return [finding for findings in found for finding in findings]


def quota(context: Context) -> list[Finding]:
    """What AWS lets the account run of each type's family, also as spot where that is wanted."""
    return _of_each_type(context, _quotas)


def _quotas(context: Context, kind: str) -> list[Finding]:
    if kind not in context.types:
        return []  # the check of the type says so
    demand, spot = codes(kind)
    why = "AWS launches nothing beyond it; an increase takes hours to days"
    findings = [_quota(context, kind, demand, "on demand", BROKEN, why)]
    if context.run.box.spot:
        findings.append(_quota(context, kind, spot, "as spot", NOTE, "`up` takes a box on demand in its place, which costs more"))
    return findings


def _quota(context: Context, kind: str, code: str | None, market: str, verdict: str, why: str) -> Finding:
    if code is None:
        what = f"it is unknown which quota counts a {kind} {market}"
        return Finding("quota", NOTE, what, why, "`aws service-quotas list-service-quotas --service-code ec2`")
    needed = context.types[kind]["VCpuInfo"]["DefaultVCpus"]
    value = context.aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    what = f"{value:.0f} vCPUs {market} ({code}), of which a {kind} takes {needed}"
    if value >= needed:
        return Finding("quota", OK, what)
    command = f"`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {needed}`"
    return Finding("quota", verdict, what, why, command)


def plan(context: Context) -> list[Finding]:
    """Whether the account may launch more than what is free: accounts made since July 2025 may be on AWS's Free plan."""
    client = context.aws.client("freetier")
    try:
        state = client.get_account_plan_state()
    except client.exceptions.ResourceNotFoundException:  # an account from before there were plans
        return [Finding("plan", OK, "none: the account is older than AWS's plans")]
    if state.get("accountPlanType") != "FREE":
        return [Finding("plan", OK, "paid")]
    credits = state.get("accountPlanRemainingCredits", {}).get("amount")
    left = "" if credits is None else f"; ${credits:.0f} of credits are left"
    return _of_each_type(context, functools.partial(_on_free_plan, left=left))


def _on_free_plan(context: Context, kind: str, left: str) -> list[Finding]:
    if kind not in context.types or context.types[kind].get("FreeTierEligible"):
        return [Finding("plan", OK, f"free, and so is a {kind}")]
    what = f"the account is on AWS's Free plan, which launches no {kind}{left}"
    why = "`up` would be refused; the paid plan keeps your credits, and AWS charges what goes beyond them"
    return [Finding("plan", BROKEN, what, why, capacity.UPGRADE)]


def offered(context: Context) -> list[Finding]:
    """Where each type can be had, and whether that is where the volume is."""
    return _of_each_type(context, functools.partial(_offered, where=volume.zone(context.aws, context.run.box.name)))


def _offered(context: Context, kind: str, where: str | None) -> list[Finding]:
    region, zones = context.run.cloud.region, capacity.zones(context.aws, kind)
    if not zones:
        return [Finding("type", BROKEN, f"{region} has no {kind}", "the box is of this type", "another `box=...` or `cloud.region=...`")]
    if where and where not in zones:
        what = f"the volume is in {where}; {kind} can be had in {', '.join(zones)}"
        command = "`inv down --snapshot`, then make a volume of the snapshot in one of these, with the same tags"
        return [Finding("zone", BROKEN, what, "a volume can be used in its own zone only", command)]
    return [Finding("type", OK, f"{kind} can be had in {', '.join(zones)}" + (f"; the volume is in {where}" if where else ""))]


def prices(context: Context) -> list[Finding]:
    return [_price(context, kind) for kind in context.run.box.instance_types]


def _price(context: Context, kind: str) -> Finding:
    hourly, source = pricing.per_hour(context.aws, kind)
    if hourly is None:
        what = f"unknown: the Price List says nothing of a {kind}"
        return Finding("price", NOTE, what, "what you will pay", "https://aws.amazon.com/ec2/pricing/on-demand/")
    return Finding("price", OK, f"${hourly:.4f} an hour of a {kind} ({source})")
