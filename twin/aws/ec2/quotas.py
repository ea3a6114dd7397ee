"""Service Quotas for the instances that this project rents, and the refusal of requests for more vCPUs than that."""

from twin.aws import wire
from twin.aws.ec2 import instances

FAMILIES = ("g", "vt")  # that the two quotas count together
MARKETS = {"on-demand": "L-DB2E81BA", "spot": "L-3819A6DF"}
NAMES = {"L-DB2E81BA": "Running On-Demand G and VT instances", "L-3819A6DF": "All G and VT Spot Instance Requests"}
USUAL = 1024.0  # vCPUs; a new account on AWS has 0


class Quotas:
    def __init__(self, region: str):
        self.region = region
        self.values = dict.fromkeys(NAMES, USUAL)
        self.operations: dict[str, wire.Handler] = {
            "servicequotas.GetServiceQuota": self.get,
            "servicequotas.GetAWSDefaultServiceQuota": self.get,
            "servicequotas.ListServiceQuotas": self.listing,
            "ec2.RunInstances": self.run,
            "ec2.StartInstances": self.start,
        }

    def set(self, code: str, value: float) -> dict:
        """A test may give this account more or less."""
        if code not in NAMES:
            raise ValueError(f"quotas are {', '.join(NAMES)}")
        self.values[code] = float(value)
        return self.shown(code)

    def get(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        code = request.parameters["QuotaCode"]
        if request.parameters["ServiceCode"] != "ec2":
            return forward(request)
        if code not in NAMES:
            raise wire.Refusal("NoSuchResourceException", f"this emulation knows the quotas {', '.join(NAMES)} only")
        return wire.answer({"Quota": self.shown(code)})

    def listing(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        return wire.answer({"Quotas": [self.shown(code) for code in NAMES]})

    def shown(self, code: str) -> dict:
        arn = f"arn:aws:servicequotas:{self.region}:{wire.ACCOUNT}:ec2/{code}"
        about = {"ServiceCode": "ec2", "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)", "QuotaCode": code, "QuotaArn": arn}
        return about | {"QuotaName": NAMES[code], "Value": self.values[code], "Unit": "None", "Adjustable": True, "GlobalQuota": False}

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        market = "spot" if request.parameters.get("InstanceMarketOptions.MarketType") == "spot" else "on-demand"
        self.check_limit(market, [request.parameters.get("InstanceType", "m1.small")] * int(request.parameters.get("MaxCount", 1)))
        return forward(request)

    def start(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        records = [instances.find(self.region, one) for one in request.listed("InstanceId")]
        for record in records:
            if record and record._state.name != "running":
                self.check_limit(record.lifecycle or "on-demand", [record.instance_type])
        return forward(request)

    def check_limit(self, market: str, kinds: list[str]) -> None:
        needed = sum(vcpus(kind) for kind in kinds)
        used = sum(vcpus(one.instance_type) for one in instances.all_running(self.region) if (one.lifecycle or "on-demand") == market)
        limit = self.values[MARKETS[market]]
        if not needed or used + needed <= limit:
            return
        if market == "spot":
            raise wire.Refusal("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        raise wire.Refusal(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the instance bucket that "
            "the specified instance type belongs to.",
        )


def vcpus(kind: str) -> int:
    """vCPUs that count against the two quotas; none for another family."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    if kind.split(".")[0].rstrip("0123456789defnaz") not in FAMILIES or kind not in INSTANCE_TYPES:
        return 0
    return INSTANCE_TYPES[kind]["VCpuInfo"]["DefaultVCpus"]
