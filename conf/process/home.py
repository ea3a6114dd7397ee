"""HOME for a user id that has no name and no HOME, as in a container that runs as any user."""

import os
import tempfile
from pathlib import Path


def ensure() -> None:
    """HOME is a folder of this user's own, where libraries that keep a cache below `~` end in an error without one."""
    if os.path.expanduser("~") != "~":
        return
    os.environ["HOME"] = str(_own_folder())


def _own_folder() -> Path:
    """The folder of this user id; where none can be made, one that is nowhere, and a cache fails as on a full disk."""
    try:
        folder = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
            folder = Path(tempfile.mkdtemp(prefix="home-"))  # another user has a folder of this name
    except OSError:  # a file of that name, a folder that cannot be written, a full disk, no temporary folder at all
        folder = Path("/nonexistent")
    return folder
