"""What the machine grade needs is said in a sentence where it is missing."""

import os

import pytest
from conftest import ROOT
from machine import lacking

from twin import world
from twin.box.machine import prerequisites


def test_without_root_it_is_a_sentence_and_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(world.WorldError, match="needs Linux and root"):
        world.start(tmp_path / "world", {}, {}, "machine")
    assert not (tmp_path / "world").exists()


def test_missing_programs_are_named_by_their_packages(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(prerequisites, "program", lambda name: None if name in ("dockerd", "mkfs.ext4") else "/bin/true")
    assert prerequisites.missing().endswith("apt-get install --no-install-recommends docker.io e2fsprogs")
    assert prerequisites.missing("losetup") == ""


def test_what_is_lacking_skips_a_test_and_in_ci_fails_it(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="it needs a browser"):
        lacking("it needs a browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="it needs a browser"):
        lacking("it needs a browser")


def test_github_s_system_tests_know_that_they_are_in_ci():
    """sudo takes the environment away, and with it what turns a skip into a failure."""
    commands = [line for line in (ROOT / ".github/workflows/ci.yml").read_text().splitlines() if "sudo" in line]
    assert commands and all("CI=true " in line for line in commands)
