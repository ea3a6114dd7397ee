"""Credentials of a task's role, at a path that only its container knows.

ECS answers at 169.254.170.2 and names the path in AWS_CONTAINER_CREDENTIALS_RELATIVE_URI. Boxes of the process grade share their machine's
addresses: there the container gets AWS_CONTAINER_CREDENTIALS_FULL_URI, for which SDKs take an address of the loopback, too.
https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

import json
import secrets
from collections.abc import Callable

from twin.aws import wire
from twin.aws.ec2.metadata import stamp
from twin.aws.services.scheduler import role_of

LIFE = 6 * 3600  # seconds, as of an instance's role
PRINCIPAL = "ecs-tasks.amazonaws.com"
PATH = "/_task/credentials/"


class Credentials:
    def __init__(self, region: str, now: Callable[[], float]):
        self.region, self.now = region, now
        self.tasks: dict[str, tuple[str, str]] = {}  # by path: role and task
        self.kept: dict[str, dict] = {}
        self.operations: dict[str, wire.Handler] = {"taskcredentials.GET": self.answer}

    def open(self, role: str, task: str) -> str:
        """The path at which they are, until `close`."""
        path = PATH + secrets.token_hex(16)
        self.tasks[path] = (role, task)
        return path

    def close(self, task: str) -> None:
        for path in [path for path, (_, owner) in self.tasks.items() if owner == task]:
            self.tasks.pop(path)
            self.kept.pop(path, None)

    def answer(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if request.path not in self.tasks:
            return wire.answer({"code": "InvalidIdInRequest", "message": "Credentials not found", "HTTPErrorCode": 400}, 400)
        kept = self.kept.get(request.path)
        if not kept or kept["until"] < self.now() + 3600:
            kept = self.kept[request.path] = self.issue(*self.tasks[request.path])
        return wire.answer({name: value for name, value in kept.items() if name != "until"})

    def issue(self, role: str, task: str) -> dict:
        """A session that has the task's id as its name."""
        from moto.sts.models import sts_backends

        session = sts_backends[wire.ACCOUNT]["aws"].assume_role(self.region, task, role, None, LIFE, None)
        until = self.now() + LIFE
        keys = {"AccessKeyId": session.access_key_id, "SecretAccessKey": session.secret_access_key, "Token": session.session_token}
        return keys | {"RoleArn": role, "Expiration": stamp(until), "until": until}


def problem(role: str) -> str:
    """Why a task cannot have a role, in ECS's words; empty where it can."""
    record = role_of(role)
    if record and PRINCIPAL in json.dumps(record.assume_role_policy_document):
        return ""
    return (
        f"ECS was unable to assume the role '{role}' that was provided for this task. Please verify that the role being passed has the "
        "proper trust relationship and permissions and that your IAM user has permissions to pass this role."
    )
