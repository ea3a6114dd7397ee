"""Which file a setting names: the one rule, for all that check, show, upload or read it.

A path in a file of conf/ is relative to the repository, a typed one to the working directory: `from_typed` converts the latter once,
when overrides are read, and from then on `resolve` is the one meaning. A name from elsewhere (a manifest in the bucket) must be in
its own folder: `inside`.
"""

import os
from pathlib import Path

from conf.problem import Problem

ROOT = Path(__file__).resolve().parents[1]
# What `make run` keeps on this machine.
LOCAL_MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": ".cache/models/smollm2-135m",
    "fine-tune-slm/tiny-random-llama": ".cache/models/tiny",
}
HUB = "hub:"  # what a dataset of the Hub begins with; any other source of rows is a file
LONGEST = 300  # characters of a name below a run's folder


def resolve(source: str) -> Path:
    """The file that a setting names."""
    try:
        path = Path(source).expanduser()
    except RuntimeError:  # `~name` of no user of this machine
        path = Path(source)
    return ROOT / path


def rows_file(source: str, setting: str) -> Path:
    """The file of rows that a setting names; a Problem where there is none."""
    path = resolve(source)
    if not is_file(path):
        raise Problem(f"{setting} names {source}, and there is no such file", f"give another: `{setting}=FILE.jsonl`", "bad_data")
    return path


def from_typed(source: str, here: Path) -> str:
    """The setting's value for a file that was typed in the working directory `here`."""
    if source.startswith((HUB, "~")) or os.path.isabs(source) or here.resolve() == ROOT:
        return source
    path = here.resolve() / source
    if not exists(path) and exists(ROOT / source):
        return source  # as the repository's own files are named everywhere
    path = Path(os.path.normpath(path))
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def exists(path: Path) -> bool:
    """Whether there is such a file; a text may also be what no file can be called."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """The same of a file."""
    return exists(path) and path.is_file()


def inside(folder: Path, name: str) -> Path:
    """The file in `folder` that a name from elsewhere refers to; a Problem where it would be outside."""
    parts = name.split("/")
    plain = name.isprintable() and len(name) <= LONGEST and "\\" not in name and not {"", ".", ".."} & set(parts)
    if not plain or not folder.joinpath(*parts).resolve().is_relative_to(folder.resolve()):
        raise Problem(f"{name[:200]!r} names no file in {folder}", "do not use it: its name points out of the folder", "damaged_run")
    return folder.joinpath(*parts)
