"""The names in Parameter Store of an account that may have none yet."""

import json

from conf.process.screen import screen
from remote.account import stack
from remote.account.init import BACKUP
from remote.aws import session


def fetch(names: list[str], cloud: dict) -> dict[str, str]:
    """What Parameter Store says, and for the rest the names that `init` will give."""
    stored = session.fetch([*names, BACKUP], cloud)
    backup = json.loads(stored.pop(BACKUP, "{}"))  # by an `init` that was killed
    return stack.default_names(cloud) | backup | stored


def fetch_or_defaults(names: list[str], cloud: dict) -> dict[str, str]:
    """The same, with the default names where the login may not read Parameter Store: who asks for their policy has none yet."""
    try:
        return fetch(names, cloud)
    except Exception as error:
        if not session.is_access_denied(error):
            raise
    screen.note("your login may not read Parameter Store (ssm:GetParameters): these are the default names")
    return stack.default_names(cloud)
