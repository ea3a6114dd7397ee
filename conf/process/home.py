"""A home for who has none: a user id without a name and without HOME, as in a container that is run as any user."""

import os
import tempfile
from pathlib import Path


def ensure() -> None:
    """HOME is a folder of this user's own, where libraries that keep a cache below `~` end in an error without one."""
    if os.path.expanduser("~") != "~":
        return
    os.environ["HOME"] = str(_made())


def _made() -> Path:
    """The folder of this user id; where none can be made, one that is nowhere, and a cache fails as on a full disk."""
    try:
        place = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        if place.is_symlink() or place.lstat().st_uid != os.getuid():
            place = Path(tempfile.mkdtemp(prefix="home-"))  # the name was somebody else's first
    except OSError:  # a file of that name, a folder that cannot be written, a full disk, no temporary folder at all
        place = Path("/nonexistent")
    return place
