"""The box's scripts hold what ShellCheck asks for, without a rule switched off."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from remote.plan.script import ABOVE, SCRIPTS, body

SHELLCHECK = Path(sys.executable).with_name("shellcheck")  # the wheel's, as in `make check`
SHARED = {name for names in ABOVE.values() for name in names}
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem not in {"lib", *SHARED})


def checked(text: str) -> str:
    return subprocess.run([SHELLCHECK, "--shell=bash", "-"], input=text, text=True, capture_output=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_as_they_are_sent(name):
    """After lib.sh; the last line reads what lib.sh sets and not every script needs."""
    parts = ["lib", *ABOVE.get(name, ()), name]
    assert checked("\n".join(["#!/bin/bash", *map(body, parts), ': "$MOUNT" "$STATE" "$PROGRAMS"\n'])) == ""


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *ROOT.glob("twin/box/bin/*.sh"),
            *ROOT.glob("twin/box/machine/*.sh"),
            ROOT / "twin/box/trace.sh",
            *ROOT.glob("twin/box/machine/bin/*"),
        ]
    ),
    ids=str,
)
def test_the_twin_s_own(path):
    assert checked(path.read_text()) == ""


def test_no_rule_is_switched_off():
    texts = [path.read_text() for path in [*SCRIPTS.glob("*.sh"), *ROOT.glob("twin/**/*.sh"), *ROOT.glob("twin/box/machine/bin/*")]]
    assert not any("shellcheck disable" in text for text in texts)
