"""What the trainer's image is made of: the files that .dockerignore lets in, as one tarball, and the hash that names the image."""

import hashlib
import io
import re
import tarfile
from functools import cache
from pathlib import Path

from conf.problem import Problem

DOCKERFILE = "docker/Dockerfile"


def files(root: Path) -> list[str]:
    """The Dockerfile, and every file of the tree that .dockerignore lets in, by its path."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    # Only below what is let in: a tree may hold a repository, an environment and models.
    tops = {pattern[1:].split("/")[0] for pattern in patterns if pattern.startswith("!")}
    paths = [path for top in tops for path in ([root / top] if (root / top).is_file() else (root / top).rglob("*"))]
    names = {path.relative_to(root).as_posix() for path in paths if path.is_file()}
    return sorted({name for name in names if is_included(name, patterns)} | {DOCKERFILE})


def is_included(name: str, patterns: list[str]) -> bool:
    """What docker makes of .dockerignore: of all patterns that match a file or a folder above it, the last one decides."""
    matching = [pattern for pattern in patterns if _expression(pattern.removeprefix("!")).fullmatch(name)]
    return not matching or matching[-1].startswith("!")


@cache
def _expression(pattern: str) -> re.Pattern:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts) + "(?:/.*)?")


def tag(root: Path, arguments: dict[str, str]) -> str:
    """The hash of all that decides what the image is: these files, the Dockerfile among them, and the build's arguments."""
    known = re.findall(r"^ARG (\w+)", (root / DOCKERFILE).read_text(encoding="utf-8"), re.M)
    if unknown := set(arguments) - set(known):
        raise Problem(
            f"{DOCKERFILE} has no argument {', '.join(sorted(unknown))}", f"`cloud.build_args` may set {', '.join(sorted(set(known)))}"
        )
    lines = [f"{name} {hashlib.sha256((root / name).read_bytes()).hexdigest()}" for name in files(root)]
    lines += [f"argument {name}={value}" for name, value in sorted(arguments.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def tarball(root: Path) -> bytes:
    """The same bytes for the same files, wherever and whenever: no owner, no time, no mode of this machine, no compression."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in files(root):
            body, info = (root / name).read_bytes(), tarfile.TarInfo(name)
            info.size, info.mode = len(body), 0o644
            tar.addfile(info, io.BytesIO(body))
    return packed.getvalue()
