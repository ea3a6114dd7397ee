"""Who may do what: a box by its role, the laptop by the policies that a test or `inv twin.enforce` gives it, else as an administrator.

Policies are held against action, resource and context, as `policy.py` and `actions.py` say; SimulatePrincipalPolicy answers by the same.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from xml.sax.saxutils import escape

from twin.aws import wire
from twin.aws.ec2 import instances
from twin.aws.iam import actions, policy
from twin.aws.iam.keys import LAPTOP, is_box

UNCHECKED = ("registry", "taskcredentials", "ec2messages", "twin")  # check their callers themselves
ALWAYS = ("sts:GetCallerIdentity",)
DENIED = {
    "ec2": "UnauthorizedOperation",
    "s3": "AccessDenied",
    "iam": "AccessDenied",
    "sts": "AccessDenied",
    "cloudformation": "AccessDenied",
}
SESSION = "me"  # of the role by which it may act
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
SPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


class Permissions:
    def __init__(self, region: str, roleless: Callable[[str], bool] = lambda key: False):
        self.region, self.roleless = region, roleless
        self.laptop: list[dict] | None = None
        self.own_tags: Callable[[str], policy.Context] = lambda arn: {}  # of Batch's own things and of sessions, as conditions ask for them
        self.role = ""  # by which the laptop acts, as after a login by SSO; none: as a user
        self.asked: dict[str, dict[str, actions.Access]] = {"laptop": {}, "box": {}}  # each once
        self.operations: dict[str, wire.Handler] = {
            "iam.SimulatePrincipalPolicy": self.simulate,
            "sts.GetCallerIdentity": self.identify,
        }

    def enforce(self, documents: list[dict] | None = None, role: str = "") -> dict:
        """The laptop's policies from now on; none: it may do everything. With a role's name it acts by that role."""
        self.laptop, self.role = documents, role
        return {"documents": len(documents or [])}

    @property
    def caller(self) -> str:
        return f"arn:aws:sts::{wire.ACCOUNT}:assumed-role/{self.role}/{SESSION}" if self.role else wire.CALLER

    def identity(self, by: str) -> tuple[str, str]:
        """The ARN and the id of who asks; the ids of this emulation are made up."""
        if by != LAPTOP:
            return by, by
        return self.caller, f"AROATWIN:{SESSION}" if self.role else "AIDATWIN"

    def identify(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if request.by != LAPTOP or not self.role:
            return forward(request)
        about = f"<Arn>{self.caller}</Arn><UserId>AROATWIN:{SESSION}</UserId><Account>{wire.ACCOUNT}</Account>"
        space, inner = "https://sts.amazonaws.com/doc/2011-06-15/", f"<GetCallerIdentityResult>{about}</GetCallerIdentityResult>"
        return wire.Response(f'<GetCallerIdentityResponse xmlns="{space}">{inner}</GetCallerIdentityResponse>', content_type="text/xml")

    def used(self) -> dict:
        """All that was asked for so far: by the laptop while it was held to policies, by boxes."""
        return {who: [asdict(one) for one in accesses.values()] for who, accesses in self.asked.items()}

    def check_request(self, request: wire.Request) -> None:
        who, documents = self.rights(request.by, request.key)
        if documents is None or request.service in UNCHECKED:
            return
        source = self.source(request.by) | {"aws:userid": self.identity(request.by)[1]}
        for access in actions.required(request):
            access = replace(access, context=access.context | source | self.own_tags(access.resource))
            self.require(request.by, who, documents, access, DENIED.get(request.service, "AccessDeniedException"))

    def source(self, by: str) -> policy.Context:
        """What a request says of where it comes from: credentials of an instance's role name the instance."""
        return {"ec2:SourceInstanceARN": f"arn:aws:ec2:{self.region}:{wire.ACCOUNT}:instance/{by}"} if by.startswith("i-") else {}

    def require_all(self, by: str, wanted: Iterable[actions.Access]) -> None:
        """What CloudFormation is about to call for the caller is allowed him."""
        who, documents = self.rights(by)
        if documents is not None:
            for access in wanted:
                self.require(by, who, documents, access, "AccessDenied")

    def require(self, by: str, who: str, documents: list[dict], access: actions.Access, code: str) -> None:
        """A refusal unless the policies allow it."""
        self.asked["box" if is_box(by) else "laptop"].setdefault(str(access), access)
        decision = policy.decide(documents, access.action, access.resource, access.context)
        if access.action not in ALWAYS and decision != policy.ALLOWED:
            what = f"User: {who} is not authorized to perform: {access.action} on resource: {access.resource}"
            because = "with an explicit deny in" if decision == policy.EXPLICIT else "because no identity-based policy allows it:"
            raise wire.Refusal(code, f"{what} {because} {access.action}", 403)

    def rights(self, by: str, key: str = "") -> tuple[str, list[dict] | None]:
        """Who asks, and by which policies; None: as AWS itself, or as the account's owner."""
        if by == LAPTOP:
            return self.caller, self.laptop
        if by.startswith("arn:"):
            return by, policies_of(by)
        if not by.startswith("i-"):
            return by, None
        role = None if self.roleless(key) else instances.role(self.region, by)
        who = f"arn:aws:sts::{wire.ACCOUNT}:assumed-role/{role.name if role else '-'}/{by}"
        return who, instances.documents(role) if role else []

    def simulate(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """What would be decided for each action on all of the resources, in the context that is given."""
        parameters = request.parameters
        documents = self.documents(parameters["PolicySourceArn"])
        actions_asked, resources = request.listed("ActionNames.member"), request.listed("ResourceArns.member") or ["*"]
        try:
            results = "".join(result(documents, action, resources, context(request)) for action in actions_asked)
        except policy.Unknown as error:
            raise wire.Refusal("PolicyEvaluation", str(error), 500) from error
        body = f"<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>"
        text = f'<SimulatePrincipalPolicyResponse xmlns="{SPACE}">{body}</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>'
        return wire.Response(text, content_type="text/xml")

    def documents(self, source: str) -> list[dict]:
        from moto.iam.models import iam_backends

        roles = [one for one in iam_backends[wire.ACCOUNT]["aws"].roles.values() if one.arn == source]
        if source == wire.CALLER or (roles and roles[0].name == self.role):
            return [EVERYTHING] if self.laptop is None else self.laptop
        if not roles:
            raise wire.Refusal("NoSuchEntity", f"The entity {source} cannot be found.", 404)
        return instances.documents(roles[0])


def policies_of(arn: str) -> list[dict]:
    """The policies of a user, or of the role of a session."""
    from moto.iam.models import iam_backends

    backend, (_, kind, name) = iam_backends[wire.ACCOUNT]["aws"], re.split("[:/]", arn.split("::")[1])[:3]
    holders = backend.users.values() if kind == "user" else backend.roles.values()
    return next((instances.documents(one) for one in holders if one.name == name), [])


def result(documents: list[dict], action: str, resources: list[str], context: policy.Context) -> str:
    decisions = {one: policy.decide(documents, action, one, context) for one in resources}
    worst = next((one for one in (policy.EXPLICIT, policy.IMPLICIT) if one in decisions.values()), policy.ALLOWED)
    each = "".join(
        f"<member><EvalResourceName>{escape(one)}</EvalResourceName><EvalResourceDecision>{decision}</EvalResourceDecision></member>"
        for one, decision in decisions.items()
    )
    about = f"<EvalActionName>{action}</EvalActionName><EvalResourceName>{escape(resources[0])}</EvalResourceName>"
    return f"<member>{about}<EvalDecision>{worst}</EvalDecision><ResourceSpecificResults>{each}</ResourceSpecificResults></member>"


def context(request: wire.Request) -> policy.Context:
    parameters, values = request.parameters, {}
    for key, name in parameters.items():
        if key.endswith(".ContextKeyName"):
            values[name] = request.listed(f"{key.removesuffix('.ContextKeyName')}.ContextKeyValues.member")
    return values
