"""How long policies may be, which moto does not count: as on AWS white space is not counted, and inline policies add up.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
"""

import re

from twin.aws import wire

INLINE = {"User": 2_048, "Group": 5_120, "Role": 10_240}  # characters of all inline policies of one of them together
MANAGED = 6_144
TRUST = 2_048


def size(document: str) -> int:
    return len(re.sub(r"\s", "", document))


def inline(request: wire.Request, forward: wire.Forward) -> wire.Response:
    """PutUserPolicy and its like: the error's words are those of terraform's and the CLI's users (cloud-platform issue 3121)."""
    parameters, kind = request.parameters, request.operation.removeprefix("Put").removesuffix("Policy")
    name = parameters[f"{kind}Name"]
    others = sum(size(document) for policy, document in inline_policies(kind, name).items() if policy != parameters["PolicyName"])
    if others + size(parameters["PolicyDocument"]) > INLINE[kind]:
        raise exceeded(f"Maximum policy size of {INLINE[kind]} bytes exceeded for {kind.lower()} {name}")
    return forward(request)


def inline_policies(kind: str, name: str) -> dict[str, str]:
    """The inline policies that a user, group or role has; none for one that does not exist, which moto refuses itself."""
    from moto.iam.models import iam_backends

    backend = iam_backends[wire.ACCOUNT]["aws"]
    known = {"User": backend.users, "Group": backend.groups, "Role": backend.roles}[kind].values()
    entity = next((one for one in known if one.name == name), None)
    return dict(entity.policies) if entity else {}


def managed(request: wire.Request, forward: wire.Forward) -> wire.Response:
    if size(request.parameters["PolicyDocument"]) > MANAGED:
        raise exceeded(f"Cannot exceed quota for PolicySize: {MANAGED}")
    return forward(request)


def trust(request: wire.Request, forward: wire.Forward) -> wire.Response:
    parameters = request.parameters
    if size(parameters.get("AssumeRolePolicyDocument") or parameters.get("PolicyDocument", "")) > TRUST:
        raise exceeded(f"Cannot exceed quota for ACLSizePerRole: {TRUST}")
    return forward(request)


def exceeded(message: str) -> wire.Refusal:
    return wire.Refusal("LimitExceeded", message, 409)


operations: dict[str, wire.Handler] = {
    **{f"iam.Put{kind}Policy": inline for kind in INLINE},
    **dict.fromkeys(("iam.CreatePolicy", "iam.CreatePolicyVersion"), managed),
    **dict.fromkeys(("iam.CreateRole", "iam.UpdateAssumeRolePolicy"), trust),
}
