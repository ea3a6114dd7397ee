"""Files that are whole or absent, hashes that stream, JSON that every reader accepts."""

import hashlib
import json
import math
import os
from pathlib import Path

from conf.text import secret


def write(path: Path, text: str) -> None:
    """Put a whole file in place, or leave what was there; no secret stands in it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(secret.hide(text))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def digest(path: Path, size: int | None = None) -> str:
    """The sha256 of a file, or of its first `size` bytes."""
    sha = hashlib.sha256()
    left = path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            sha.update(block)
            left -= len(block)
    return sha.hexdigest()


def line(values: dict) -> str:
    """One line of a JSONL file."""
    return json.dumps(finite(values), ensure_ascii=False, allow_nan=False) + "\n"


def page(values: dict) -> str:
    """A JSON file that people read too."""
    return json.dumps(finite(values), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def lines(path: Path) -> list[dict]:
    """The objects of a JSONL file; none if there is no such file."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text] if path.exists() else []


def finite(value):
    """`value` with null for every NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    return [finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def cut_torn_line(path: Path) -> None:
    """Drop the last line of a JSONL file whose writer was killed while writing it."""
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)
