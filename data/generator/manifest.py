"""manifest.json: what was made from what, so that anyone can tell whether a file is the shipped one."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent


def write(folder: Path, sets: dict[str, list[dict]], seed: int, version: int) -> None:
    """Write manifest.json beside the files of `sets`."""
    files = {
        f"{name}.jsonl": {
            "sha256": sha256((folder / f"{name}.jsonl").read_bytes()).hexdigest(),
            "rows": len(rows),
            "styles": _counts(row["meta"]["style"] for row in rows),
            "phenomena": _counts(name for row in rows for name in row["meta"]["phenomena"]),
        }
        for name, rows in sets.items()
    }
    manifest = {"generator": version, "seed": seed, "tables": tables_sha256(), "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")


def tables_sha256() -> str:
    """One hash of everything the generator reads: knowledge, frames and styles."""
    paths = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.toml"))
    return sha256(b"".join(path.encode() + b"\0" + (FOLDER / path).read_bytes() for path in paths)).hexdigest()


def _counts(names) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
