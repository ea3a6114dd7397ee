"""What an agent asks for beside commands: State Manager's associations, of which there are none here.

ListInstanceAssociations and the two calls after it are the agent's own; their shapes are those of the `ssm` model in its repository.
"""

from twin.aws import wire

ANSWERS = {
    "ListAssociations": {"Associations": []},
    "ListInstanceAssociations": {"Associations": []},
    "UpdateInstanceAssociationStatus": {},
    "PutConfigurePackageResult": {},
    "PutComplianceItems": {},
    "PutInventory": {"Message": ""},
}


def answered(content: dict) -> wire.Handler:
    return lambda request, forward: wire.answer(content)


def no_host_management(request: wire.Request, forward: wire.Forward) -> wire.Response:
    """What an agent without a role tries last: Default Host Management, which no region of this account has turned on."""
    raise wire.Refusal("AccessDeniedException", "Systems Manager's instance management role is not configured for account", 400)


operations: dict[str, wire.Handler] = {f"ssm.{name}": answered(content) for name, content in ANSWERS.items()}
operations |= {"ssm.RequestManagedInstanceRoleToken": no_host_management}
