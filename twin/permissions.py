"""What a box may do with its role: an action that no policy of the role allows is refused, as IAM would.

Actions are looked at, resources and conditions are not: a policy that names the wrong bucket passes here.
"""

from collections.abc import Callable

from twin import instances, wire

OBJECT = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject", "DELETE": "DeleteObject"}
FREE = ("imds", "registry", "ec2messages", "twin")  # have doors of their own
ALWAYS = ("sts:GetCallerIdentity",)
DENIED = {"ec2": "UnauthorizedOperation", "s3": "AccessDenied"}


class Permissions:
    def __init__(self, region: str, instance_of: Callable[[str], str | None]):
        self.region, self.instance_of = region, instance_of

    def check(self, request: wire.Request) -> None:
        instance = self.instance_of(request.key)
        wanted = action(request)
        if not instance or request.service in FREE or wanted in ALWAYS:
            return
        role = instances.role(self.region, instance)
        documents = instances.documents(role) if role else []
        if any(instances.allows(one, wanted) for one in documents) and not any(instances.denies(one, wanted) for one in documents):
            return
        who = f"arn:aws:sts::{wire.ACCOUNT}:assumed-role/{role.name if role else '-'}/{instance}"
        code = DENIED.get(request.service, "AccessDeniedException")
        raise wire.Refusal(code, f"User: {who} is not authorized to perform: {wanted}", 403)


def action(request: wire.Request) -> str:
    """The action's name in a policy; S3 names it by method and path."""
    if request.service != "s3":
        return f"{request.service}:{request.operation}"
    if "/" not in request.path.strip("/") and request.operation in ("GET", "HEAD"):
        return "s3:ListBucket"
    return f"s3:{OBJECT.get(request.operation, request.operation)}"
