"""Session Manager: a way in without an open port. Its plugin, which is the user's to install, carries what is typed.

The plugin is started as the AWS CLI starts it (awscli/customizations/sessionmanager.py). What lets one into the session goes by its
environment, and never by its arguments, which every program of this machine may read.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from conf.problem import Problem
from remote.aws import describe
from remote.aws.session import DENIED, Aws
from remote.transport.ssm import Ssm

PROGRAM = "session-manager-plugin"
# Later ones take the session from this variable of their environment; these and older ones want it as an argument.
LAST_BY_ARGUMENT, RESPONSE = (1, 2, 497, 0), "AWS_SSM_START_SESSION_RESPONSE"
VERSION = re.compile(r"\d+(\.\d+){0,3}")
HELD, EVERY = 180, 60  # seconds for which the box counts as used, and between two such words
# Documents that AWS has in every account. A shell is by none: the account's preferences, where it has some, are taken then.
COMMAND, PORT = "AWS-StartInteractiveCommand", "AWS-StartPortForwardingSession"


class Unavailable(Exception):
    """Why there is no way in through Session Manager; nothing has been done."""


@dataclass(frozen=True)
class Session:
    """A session that has been started, and what the plugin needs to know of it."""

    id: str
    words: list[str]  # by which the plugin is started
    environment: dict[str, str]


def why_not() -> str:
    """Why the plugin cannot be used here; nothing where it can."""
    path = shutil.which(PROGRAM)
    if not path:
        return f"{PROGRAM} is not installed"
    version = _version(path)
    if not VERSION.fullmatch(version):
        return f"{PROGRAM} does not say its version"
    number = tuple(int(part) for part in version.split("."))
    return "" if number > LAST_BY_ARGUMENT else f"{PROGRAM} {version} takes a session's token as an argument only; later ones do not"


@functools.cache
def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


@contextmanager
def session(aws: Aws, instance_id: str, attend: str, document: str = "", **parameters: str) -> Iterator[Session]:
    """A session on the box, over when this is: a shell, or what a document says. The box counts as used meanwhile. Unavailable where there
    can be none."""
    if reason := why_not():
        raise Unavailable(reason)
    ssm = aws.client("ssm")
    named = {"DocumentName": document, "Parameters": {name: [value] for name, value in parameters.items()}}
    request: dict[str, Any] = {"Target": instance_id} | (named if document else {})
    try:
        answer = ssm.start_session(**request)
    except ssm.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        reasons = {"TargetNotConnected": f"the agent on {instance_id} has no connection to Session Manager"}
        reasons |= dict.fromkeys(DENIED, "your policy lacks ssm:StartSession (`inv policy`)")
        if code not in reasons:
            raise
        raise Unavailable(reasons[code]) from error
    response = {name: answer[name] for name in ("SessionId", "TokenValue", "StreamUrl")}
    words = [PROGRAM, RESPONSE, aws.cloud.region, "StartSession", "", json.dumps(request), ssm.meta.endpoint_url]
    try:
        with _attended(aws, instance_id, attend, lambda: _end(aws, response["SessionId"])):
            yield Session(response["SessionId"], words, dict(os.environ) | {RESPONSE: json.dumps(response)})
    finally:
        _end(aws, response["SessionId"])


def _end(aws: Aws, session_id: str) -> None:
    """It is over, whatever became of its client. One that is left ends by itself after a while, so nothing is said where this fails."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        aws.client("ssm").terminate_session(SessionId=session_id)
    except (ClientError, BotoCoreError):
        return


@contextmanager
def _attended(aws: Aws, instance_id: str, script: str, box_is_off: Callable[[], None]) -> Iterator[None]:
    """The box is not idle while a person is on it, and for at most `HELD` seconds longer. A box that went off ends the session, of which
    the plugin would not hear."""
    from botocore.exceptions import BotoCoreError, ClientError

    left = threading.Event()

    def attend() -> None:
        while True:
            try:
                Ssm(aws, instance_id).run(script, 30, "attend")
            except (Problem, ClientError, BotoCoreError):  # the person stays where he is, unless there is no box any more
                if _is_off(aws, instance_id):
                    box_is_off()
                    return
            if left.wait(EVERY):
                return

    threading.Thread(target=attend, name="attend", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _is_off(aws: Aws, instance_id: str) -> bool:
    """Whether AWS says so; where it says nothing, the box may be there."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return describe.instance(aws, instance_id)["State"]["Name"] not in ("pending", "running")
    except (Problem, ClientError, BotoCoreError):
        return False
