"""The unit that starts the supervisor at boot is one that systemd takes."""

import re
import subprocess

import pytest
from machine import needed

from remote.step import SCRIPTS
from twin.machine import ground

pytestmark = pytest.mark.system
PLACES = {"STATE": "/run/fine-tune-slm", "PROGRAMS": "/opt/fine-tune-slm", "PATH": ground.SYSTEM_PATH}


@pytest.fixture
def unit(tmp_path):
    """The unit's file, as setup.sh writes it on a box."""
    needed("systemd-analyze")
    function = re.search(r"^unit\(\) \{.*?^\}$", (SCRIPTS / "setup.sh").read_text(), re.MULTILINE | re.DOTALL)[0]
    path = tmp_path / "fine-tune-slm.service"
    path.write_text(subprocess.run(["bash", "-euc", f"{function}\nunit"], env=PLACES, text=True, capture_output=True, check=True).stdout)
    return path


def verified(path) -> subprocess.CompletedProcess:
    return subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], text=True, capture_output=True)


def test_systemd_finds_nothing_wrong_with_it(unit):
    done = verified(unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_find_a_mistake(unit):
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=forever"))
    assert "forever" in verified(unit).stderr
