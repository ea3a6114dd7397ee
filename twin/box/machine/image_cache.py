"""Images that were built and pushed once, as the files of their registry: another world's registry has them at once."""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from twin.box.machine import debian

REGISTRY = "docker/registry/v2"  # where a registry keeps `blobs`, named by what is in them, and `repositories`, small files that name them


def locked(cache: Path, name: str) -> AbstractContextManager:
    place(cache, name).parent.mkdir(parents=True, exist_ok=True)
    return debian.locked(place(cache, name))


def place(cache: Path, name: str) -> Path:
    return cache.resolve() / "images" / name


def copy_to_registry(cache: Path, name: str, files: Path) -> bool:
    """Whether the image is kept, and is now among a registry's files."""
    cached = place(cache, name)
    if cached.exists():
        os.utime(cached)  # `tidy.prune` keeps what was used last
        copy(cached, files)
    return cached.exists()


def put(cache: Path, name: str, files: Path) -> None:
    """Keeps what a registry holds, where it is this image alone."""
    if len(list(files.glob(f"{REGISTRY}/repositories/**/_manifests/tags/*"))) == 1:
        part = place(cache, name).with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        copy(files, part)
        part.rename(place(cache, name))


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source / REGISTRY / "blobs", target / REGISTRY / "blobs", copy_function=link, dirs_exist_ok=True)
    # Copied, because a registry overwrites them in place.
    shutil.copytree(source / REGISTRY / "repositories", target / REGISTRY / "repositories", dirs_exist_ok=True)


def link(source: str, target: str) -> None:
    """The same file a second time; a copy where it is on another disk."""
    if not os.path.exists(target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy(source, target)
