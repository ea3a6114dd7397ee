"""A run's state.json, as the box's scripts write it too (remote/scripts/container.sh)."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carrier import files
from conf.text import secret

MOST = 65536  # bytes of state.json
ACTIVE = {"created", "starting", "running", "evaluating", "uploading"}
SILENT = timedelta(minutes=10)  # without a sign of life for so long a run is nobody's
NO_LETTERS = re.compile(r'[\x00-\x1f"\\]')


@dataclass(frozen=True)
class State:
    phase: str
    reason: str = ""
    evidence: str = ""
    hint: str = ""

    def text(self) -> bytes:
        evidence = NO_LETTERS.sub("", secret.hide(self.evidence)).encode()[:500].decode(errors="ignore")
        now = utc()
        words = {"phase": self.phase, "since": now, "reason": self.reason, "evidence": evidence, "hint": self.hint, "heartbeat": now}
        return f"{json.dumps(words, ensure_ascii=False)}\n".encode()


def utc() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(body: bytes | None) -> str:
    """The phase that a state.json says; empty where it says none."""
    return str(values(body).get("phase") or "")


def last_sign(body: bytes | None) -> datetime | None:
    """When the run showed its last sign of life."""
    said = values(body)
    try:
        return max(datetime.fromisoformat(str(said[name])) for name in ("heartbeat", "since") if said.get(name))
    except (ValueError, TypeError):
        return None


def lives(body: bytes | None) -> bool:
    """Whether somebody is at work on the run."""
    sign = last_sign(body)
    return phase(body) in ACTIVE and sign is not None and sign.tzinfo is not None and abs(datetime.now(UTC) - sign) < SILENT


def values(body: bytes | None) -> dict:
    """What a JSON object of anybody's says; nothing where it is none."""
    try:
        said = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def read(folder: Path) -> bytes | None:
    return files.take(folder, "state.json", MOST)


def write(folder: Path, state: State, owner: int | None) -> None:
    """The state becomes the run's; `part` is beside the runs, where the trainer cannot write."""
    part = folder.parent / f"{folder.name}.state"
    part.write_bytes(state.text())
    if owner is not None:
        os.chown(part, owner, owner)
    place = folder / "state.json"
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    part.replace(place)
