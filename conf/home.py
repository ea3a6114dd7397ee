"""A home for who has none: a user id without a name and without HOME, as in a container that is run as any user."""

import os
import tempfile
from pathlib import Path


def ensure() -> None:
    """HOME is a folder of this user's own, where libraries that keep a cache below `~` end in an error without one."""
    if os.path.expanduser("~") != "~":
        return
    place = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        if place.is_symlink() or place.lstat().st_uid != os.getuid():
            place = Path(tempfile.mkdtemp(prefix="home-"))  # the name was somebody else's first
    os.environ["HOME"] = str(place)
