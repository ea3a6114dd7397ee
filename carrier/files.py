"""Files of the trainer's, as root takes them: nothing in its folder is trusted, and at any moment a file may be a link or a pipe.

Every name is opened one folder after the other, without following: a link on the way leads nowhere.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened(folder: Path, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A regular file of one name only, below the folder; an OSError for anything else."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
    try:
        *above, last = name.split("/")
        for part in above:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | FLAGS, dir_fd=place)
            os.close(place)
            place = below
        file = os.open(last, flags | FLAGS, 0o600, dir_fd=place)
    finally:
        os.close(place)
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:  # of no name is what was removed this moment
            raise OSError(f"{name} is no file of its own")
        yield file
    finally:
        os.close(file)


def take(folder: Path, name: str, most: int, offset: int = 0) -> bytes | None:
    """So many bytes of the file at most; None where there is no such file."""
    with suppress(OSError), opened(folder, name) as file:
        pieces = []
        while most > 0 and (piece := os.pread(file, min(most, 1 << 20), offset)):
            pieces.append(piece)
            offset, most = offset + len(piece), most - len(piece)
        return b"".join(pieces)
    return None


def size(folder: Path, name: str) -> int:
    with suppress(OSError), opened(folder, name) as file:
        return os.fstat(file).st_size
    return 0


def put(folder: Path, name: str, body: bytes, offset: int | None = None) -> None:
    """Write into the file at the offset, or behind its end."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if offset is None else 0)
    with suppress(OSError), opened(folder, name, flags) as file:
        os.write(file, body) if offset is None else os.pwrite(file, body, offset)


def listed(folder: Path, below: str = ".") -> dict[str, int | None]:
    """Every name below, with its size; None of what is no file of its own."""
    names: dict[str, int | None] = {}
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
        try:
            for parent, folders, files, here in os.fwalk(below, dir_fd=place, follow_symlinks=False):
                for name in [*files, *folders]:
                    about = os.stat(name, dir_fd=here, follow_symlinks=False)
                    path = os.path.normpath(f"{parent}/{name}")
                    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
                        names[path] = about.st_size
                    elif not stat.S_ISDIR(about.st_mode):
                        names[path] = None
        finally:
            os.close(place)
    return names


def last_line(folder: Path, name: str, most: int = 65536) -> str:
    """The last line that says anything."""
    end = take(folder, name, most, max(0, size(folder, name) - most)) or b""
    return next((line.decode(errors="replace") for line in reversed(end.splitlines()) if line.strip()), "")
