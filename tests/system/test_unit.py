"""The unit that starts the supervisor: what systemd says of it, and what a real systemd does with it as the first process of a system."""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from machine import needed

from remote.plan.script import SCRIPTS, compose
from twin.box.machine import prerequisites

pytestmark = pytest.mark.system
PLACES = {"STATE": "/run/fine-tune-slm", "PROGRAMS": "/opt/fine-tune-slm", "PATH": prerequisites.SYSTEM_PATH}
SUPERVISOR = '#!/bin/bash\necho "$$" >>/run/probe/supervisors\nsleep 1000'


@pytest.fixture
def unit(tmp_path):
    """The unit's file, as setup.sh writes it on a box."""
    needed("systemd-analyze")
    function = re.search(r"^word\(\) \{.*?^\}$", (SCRIPTS / "setup.sh").read_text(), re.MULTILINE | re.DOTALL)[0]
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


class System:
    """A system under a real systemd; its disk outlives its boots."""

    def __init__(self, folder: Path):
        self.folder, self.outer = folder, None

    def boot(self) -> None:
        with (self.folder / "log").open("ab") as log:
            words = ["bash", str(Path(__file__).with_name("systemd.sh")), str(self.folder)]
            self.outer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.until(lambda: self.run("systemctl is-active multi-user.target").stdout == "active\n")

    def until(self, promise, seconds: float = 900) -> None:
        deadline = time.monotonic() + seconds
        while not promise():
            assert self.outer.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def first(self) -> int | None:
        for process in psutil.Process(self.outer.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == "systemd":
                    return process.pid
        return None

    def run(self, script: str) -> subprocess.CompletedProcess:
        if not (first := self.first()):
            return subprocess.CompletedProcess([], 1, "", "it has not begun")
        enter = ["nsenter", f"--target={first}", "--all", f"--root=/proc/{first}/root", "--wd=/"]
        environment = {"PATH": prerequisites.SYSTEM_PATH, "HOME": "/root"} | {
            key: os.environ[key] for key in ["TWIN_TRACE"] if key in os.environ
        }
        return subprocess.run([*enter, "bash", "-c", script], env=environment, text=True, capture_output=True)

    def supervisors(self) -> list[str]:
        path = self.folder / "supervisors"
        return path.read_text().split() if path.exists() else []

    def loaded(self) -> str:
        """When systemd has read its units last."""
        return self.run("systemctl show --property UnitsLoadTimestampMonotonic --value").stdout.strip()

    def power_off(self) -> None:
        with suppress(psutil.NoSuchProcess, TypeError):
            os.kill(self.first(), signal.SIGKILL)
        self.outer.wait(10)


@pytest.fixture
def system(tmp_path):
    needed("systemd-analyze", "unshare")
    for name, answer in {"docker": "true", "aws": "true"}.items():
        path = tmp_path / "up/usr/local/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o755)
    made = System(tmp_path)
    made.boot()
    yield made
    made.power_off()
    shutil.rmtree(tmp_path / "up")


def test_systemd_starts_the_supervisor_starts_it_again_and_starts_it_at_the_next_boot(system):
    settings = {
        "REGION": "r",
        "MOUNT_PATH": "/mnt/training",
        "INSTANCE": "i-1",
        "GPU": "no",
        "SUPERVISOR": SUPERVISOR,
        "LIFE_LEFT": "",
        "PRICE": "",
        "PATIENCE": 5,
    }
    (system.folder / "_script.sh").write_text(compose("setup", settings))
    done = system.run("bash /run/probe/_script.sh")
    assert done.returncode == 0 and "@@ changed=yes" in done.stdout, done.stdout + done.stderr
    loaded = system.loaded()
    assert "@@ changed=no" in system.run("bash /run/probe/_script.sh").stdout
    assert system.loaded() == loaded, "a reload takes the GPU from a container"
    assert system.run("systemctl enable fine-tune-slm.service").returncode == 0
    assert system.loaded() != loaded, "what is enabled already reloads, too"
    system.until(lambda: len(system.supervisors()) == 1)
    assert system.run("stat -c %a /run/fine-tune-slm").stdout == "700\n"

    system.run(f"kill -KILL {system.supervisors()[0]}")
    system.until(lambda: len(system.supervisors()) == 2)

    system.power_off()
    system.boot()
    system.until(lambda: len(system.supervisors()) == 3)
    assert system.run("systemctl is-enabled fine-tune-slm.service").stdout == "enabled\n"
