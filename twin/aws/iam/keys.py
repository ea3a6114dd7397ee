"""Whose an access key is: only those that this world has issued are taken. What is secret is the key's id: no signature is checked.

The laptop and the account's owner have one each, which stand in `state.json`; a box's agent has one; IAM and STS
give out the rest, for users and roles.
"""

import re
import secrets
import threading

from twin.aws import wire

LAPTOP, OWNER = "twin", "owner"
# How each service says that it does not know a key.
UNKNOWN_KEY = {"s3": ("InvalidAccessKeyId", 403), "ec2": ("AuthFailure", 401)} | dict.fromkeys(wire.QUERY, ("InvalidClientTokenId", 403))
TASK = re.compile(r"arn:aws:sts::\d+:assumed-role/[^/]+/[0-9a-f]{32}")  # the session of an ECS task, which has the task's id
WORDS = "The security token included in the request is invalid."


class Keys:
    def __init__(self, roles: dict[str, str]):
        self.roles = roles  # the access key ids of boxes' roles, to their instances
        self.own = {issued(): name for name in (LAPTOP, OWNER)}
        self.agents: dict[str, str] = {}  # by instance
        self.behalf: dict[str, str] = {}  # by the caller of CloudFormation
        self.lock = threading.Lock()

    def of(self, name: str) -> str:
        return next(key for key, owner in self.own.items() if owner == name)

    def of_agent(self, instance: str) -> str:
        with self.lock:
            return self.agents.setdefault(instance, issued())

    def on_behalf(self, by: str) -> str:
        """The key by which CloudFormation acts with the rights of its caller."""
        with self.lock:
            return self.behalf.setdefault(by, issued())

    def caller_of(self, request: wire.Request) -> tuple[str, list[str]]:
        """Who asks, and through which services: `twin`, `owner`, an instance, the ARN of a user or a session; nobody without a key."""
        key = request.key
        if not key or key in self.own or key in self.roles:
            return self.own.get(key) or self.roles.get(key, ""), []
        for issued_to, via in ((self.agents, []), (self.behalf, [wire.STACKS])):
            if name := next((name for name, one in issued_to.items() if one == key), None):
                return name, via
        if name := principal(key):
            return name, []
        code, status = UNKNOWN_KEY.get(request.service, ("UnrecognizedClientException", 400))
        raise wire.Refusal(code, WORDS, status)


def is_box(by: str) -> bool:
    """Whether an instance asks, or a container on one."""
    return by.startswith("i-") or bool(TASK.fullmatch(by))


def issued() -> str:
    return f"TWIN{secrets.token_hex(16).upper()}"


def principal(key: str) -> str | None:
    """The user or the role's session to whom IAM or STS has given this key."""
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    access_key = iam_backends[wire.ACCOUNT]["aws"].access_keys.get(key)
    if access_key and access_key.status == "Active" and access_key.user_name:  # a session's key has none
        return f"arn:aws:iam::{wire.ACCOUNT}:user/{access_key.user_name}"
    sessions = sts_backends[wire.ACCOUNT]["aws"].assumed_roles
    return next((one.arn for one in sessions if one.access_key_id == key), None)
