"""The ground of the system tests: real programs on this machine, each test skipped with the reason where one is missing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from machine import Machine, needed

from twin import world
from twin.box.machine import builder, debian, loops

CACHE = ROOT / ".cache/machine"
PACKAGES = (ROOT / "trainer/requirements.txt", ROOT / "trainer/locked.txt")


@pytest.fixture(scope="session")
def prepared():
    """What takes minutes the first time, side by side: one waits for the disk, the other for the network."""
    needed("dockerd", "debootstrap")
    with ThreadPoolExecutor() as pool:
        for part in [pool.submit(debian.box_layers, CACHE), pool.submit(builder.wheelhouse, CACHE, *PACKAGES)]:
            part.result()


@pytest.fixture(scope="module")
def trainer_image(prepared):
    """A builder that has built the trainer's image, and the image's name."""
    with builder.running(CACHE) as made:
        made.build(ROOT, ROOT / "docker/Dockerfile", *PACKAGES, "fine-tune-slm:test")
        yield made, "fine-tune-slm:test"


@pytest.fixture(scope="session")
def machine(prepared, tmp_path_factory):
    """A laptop on whose box the whole chain has run once; the box is up again, with its volume mounted."""
    needed()
    made = Machine(tmp_path_factory.mktemp("a laptop"))
    try:
        made.first = made.inv("twin.start", "up", "deploy", "train", "publish", "down")
        made.inv("up", "deploy")
        yield made
    finally:
        world.stop(made.state)
    assert [back for back in loops.attached().values() if back.startswith(str(made.state))] == []
    assert str(made.state) not in Path("/proc/self/mounts").read_text()
