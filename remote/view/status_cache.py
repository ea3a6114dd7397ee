"""What `inv status` said last, kept on this laptop as a courtesy: shown at once, with its age, and never as current.

With it is kept what that was about: which box, which runs. AWS is asked about these at once, and not taken at its word of then.
Nothing else reads it. It imports next to nothing, so that it is on the screen before the settings are composed.
"""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from conf.process import argv

FOLDER = ".cache/status"


def place(root: Path) -> Path:
    """One file for each set of overrides: another box, another cloud, another memory."""
    local = root / "conf/local.yaml"
    own = local.read_bytes() if local.exists() else b""  # may be no text; the reader of the settings says so
    named = "\0".join(sorted(argv.overrides())).encode("utf-8", "surrogateescape")
    return root / FOLDER / hashlib.sha256(named + b"\0" + own).hexdigest()[:16]


def show(root: Path) -> None:
    """Print what is remembered, if anything, and that it is not current."""
    path = place(root)
    remembered = read(path)
    if not remembered:
        return
    seconds = max(0, time.time() - path.stat().st_mtime)
    age = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
    print(f"last known, {age} old:")
    print("".join(f"  {line}\n" for line in remembered["text"].splitlines()), flush=True)
    print("now:", flush=True)


def subjects(root: Path) -> dict:
    """What the last answer was about; nothing where there was none."""
    return read(place(root)).get("about", {})


def write(root: Path, text: str, about: dict) -> None:
    """Remember it; where nothing can be written, the next answer comes without it."""
    path = place(root)
    part = path.with_suffix(".part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"text": text, "about": about}), encoding="utf-8")
        part.replace(path)


def read(path: Path) -> dict:
    """What the file holds; nothing where it is not there or not ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "text" in content else {}
