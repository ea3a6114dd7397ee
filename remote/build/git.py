"""The commit of a source tree."""

import subprocess
from pathlib import Path


def commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit of this tree and whether it has changes; (None, None) outside a repository."""
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, encoding="utf-8")
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        return None, None
    if sha.returncode:
        return None, None
    return sha.stdout.strip(), bool(changes.stdout.strip())
