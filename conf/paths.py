"""Which file a setting names: the one rule, for whoever checks, shows, sends or trains it.

What a file of conf/ names lies below the repository, and what is typed lies where the user stands: `typed` writes the latter as
the former once, when the words are read, and from then on there is one meaning, `resolve`. What somebody else names (a manifest in
the bucket) lies in the folder that it is about, or nowhere: `inside`.
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
LONGEST = 300  # characters of a name below a run's folder


def resolve(source: str) -> Path:
    """The file that a setting names."""
    try:
        path = Path(source).expanduser()
    except RuntimeError:  # a `~name` of nobody here
        path = Path(source)
    return ROOT / path


def typed(source: str, here: Path) -> str:
    """What a setting calls the file that somebody who stands in `here` has named so."""
    if source.startswith(("hub:", "~")) or os.path.isabs(source) or here.resolve() == ROOT:
        return source
    place = here.resolve() / source
    if not exists(place) and exists(ROOT / source):
        return source  # as the repository's own files are named everywhere
    place = Path(os.path.normpath(place))
    return str(place.relative_to(ROOT) if place.is_relative_to(ROOT) else place)


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
    """The file in `folder` that somebody else's word names; a Problem where it would lie anywhere else."""
    parts = name.split("/")
    plain = name.isprintable() and len(name) <= LONGEST and "\\" not in name and not {"", ".", ".."} & set(parts)
    if not plain or not folder.joinpath(*parts).resolve().is_relative_to(folder.resolve()):
        raise Problem(f"{name[:200]!r} names no file in {folder}", "whoever wrote that means another file: do not use it", "damaged_run")
    return folder.joinpath(*parts)
