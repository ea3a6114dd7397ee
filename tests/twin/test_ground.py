"""What the machine grade needs is said in a sentence where it is missing."""

import os

import pytest

from twin import world
from twin.machine import ground


def test_without_root_it_is_a_sentence_and_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(world.WorldError, match="needs Linux and root"):
        world.start(tmp_path / "world", {}, {}, "machine")
    assert not (tmp_path / "world").exists()


def test_missing_programs_are_named_by_their_packages(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ground, "program", lambda name: None if name in ("dockerd", "mkfs.ext4") else "/bin/true")
    assert ground.missing().endswith("apt-get install --no-install-recommends docker.io e2fsprogs")
    assert ground.missing("losetup") == ""
