"""The ground of the system tests: real programs on this machine, each test skipped with the reason where one is missing."""

import pytest
from conftest import ROOT

from twin.machine import builder, ground

CACHE = ROOT / ".cache/machine"


@pytest.fixture(scope="session")
def trainer_image():
    """A builder that has built the trainer's image, and the image's name."""
    if reason := ground.missing("dockerd", "debootstrap"):
        pytest.skip(reason)
    with builder.running(CACHE) as made:
        made.build(ROOT, ROOT / "docker/Dockerfile", ROOT / "trainer/requirements.txt", ROOT / "trainer/locked.txt", "fine-tune-slm:test")
        yield made, "fine-tune-slm:test"
