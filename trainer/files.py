"""Files that are complete or absent, hashes that stream, JSON that every parser accepts."""

import hashlib
import json
import math
import os
from pathlib import Path

from conf.text import secret


def write(path: Path, text: str) -> None:
    """Write a file atomically, with secrets hidden."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(secret.hide(text))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def digest(path: Path, size: int | None = None) -> str:
    """The sha256 of a file, or of its first `size` bytes."""
    sha = hashlib.sha256()
    remaining = path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while remaining > 0 and (block := file.read(min(remaining, 1 << 20))):
            sha.update(block)
            remaining -= len(block)
    return sha.hexdigest()


def json_line(values: dict) -> str:
    """One line of a JSONL file."""
    return json.dumps(finite(values), ensure_ascii=False, allow_nan=False) + "\n"


def json_page(values: dict) -> str:
    """A JSON file that people read too."""
    return json.dumps(finite(values), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def read_json_lines(path: Path) -> list[dict]:
    """The objects of a JSONL file; none if there is no such file."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text] if path.exists() else []


def finite(value):
    """`value` with null for every NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def cut_torn_line(path: Path) -> None:
    """Drop the last line of a JSONL file whose writer was killed while writing it."""
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)
