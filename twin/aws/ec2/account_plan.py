"""The account's plan: accounts made since July 2025 begin on a free one, which launches only what is free."""

from twin.aws import wire

KINDS = ("PAID", "FREE")
REFUSED = (
    "The specified instance type is not eligible for Free Tier. For a list of Free Tier instance types, run 'describe-instance-types' with "
    "the filter 'free-tier-eligible=true'."
)


class AccountPlan:
    def __init__(self):
        self.kind = "PAID"
        self.operations: dict[str, wire.Handler] = {
            "freetier.GetAccountPlanState": self.state,
            "freetier.UpgradeAccountPlan": self.upgrade,
            "ec2.RunInstances": self.run,
        }

    def state(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        about = {"accountId": wire.ACCOUNT, "accountPlanType": self.kind, "accountPlanStatus": "ACTIVE"}
        credits = {"accountPlanRemainingCredits": {"amount": 100.0, "unit": "USD"}} if self.kind == "FREE" else {}
        return wire.answer(about | credits)

    def upgrade(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        self.kind = request.parameters["accountPlanType"]
        return wire.answer({"accountId": wire.ACCOUNT, "accountPlanType": self.kind, "accountPlanStatus": "ACTIVE"})

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The words are those of splunk/attack_range issue 1302."""
        if self.kind == "FREE" and not free(request.parameters.get("InstanceType", "m1.small")):
            raise wire.Refusal("InvalidParameterCombination", REFUSED)
        return forward(request)


def free(kind: str) -> bool:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return bool(INSTANCE_TYPES.get(kind, {}).get("FreeTierEligible"))
