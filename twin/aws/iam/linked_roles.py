"""Roles of AWS's own services in the account: each is made by hand, or by the service itself at its first use.

moto has names of its own for some of them, and makes one twice.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateServiceLinkedRole.html
"""

from twin.aws import wire

# https://docs.aws.amazon.com/batch/latest/userguide/using-service-linked-roles.html and
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html
NAMES = {"batch": "Batch", "spot": "EC2Spot"}


def name(service: str) -> str:
    """What policies call the role, with its path."""
    return f"aws-service-role/{service}/AWSServiceRoleFor{NAMES.get(service.split('.')[0], service)}"


def ensure(service: str) -> None:
    """The role is there: of a service that is used for the first time it is made."""
    if not _exists(service):
        _backend().create_service_linked_role(service, "", "")


def create(request: wire.Request, forward: wire.Forward) -> wire.Response:
    service = request.parameters["AWSServiceName"]
    if _exists(service):
        what = f"Service role name AWSServiceRoleFor{NAMES.get(service.split('.')[0], service)} has been taken in this account, "
        raise wire.Refusal("InvalidInput", what + "please try a different suffix.")
    return forward(request)


def _exists(service: str) -> bool:
    return any(role.path == f"/aws-service-role/{service}/" for role in _backend().roles.values())


def _backend():
    from moto.iam import models  # costs a second

    models.SERVICE_NAME_CONVERSION.update(NAMES)
    return models.iam_backends[wire.ACCOUNT]["aws"]


operations: dict[str, wire.Handler] = {"iam.CreateServiceLinkedRole": create}
