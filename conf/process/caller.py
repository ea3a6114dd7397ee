"""The user who runs this: boxes and locks are named after him."""

import getpass
import os
import re


def name() -> str:
    """The login name; for a user id without one, as in `docker run --user 12345`, its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises the latter
        return number()


def number() -> str:
    return f"uid-{os.getuid()}"


def box_name() -> str:
    """The same in small letters, digits and '-', of which the name of a box consists."""
    simple = re.sub(r"[^a-z0-9-]+", "-", name().lower())
    return simple if simple.strip("-") else number()
