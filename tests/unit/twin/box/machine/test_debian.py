"""The Debian of a box is made by apt and debootstrap: what they refuse is a sentence, and a mirror that is renewed is waited for."""

import os
import subprocess

import pytest

from conf import problem
from twin.box.machine import debian

APT = """#!/bin/bash
[ "$3" = -qq ] || exit 0
echo "${@:3}" >>"$CALLS"
case "$*" in *update) [ "$(grep -c update "$CALLS")" -gt "$REFUSED" ] || { echo "E: no Release file" >&2; exit 100; } ;; esac
"""


@pytest.mark.parametrize(("refused", "updates", "installed"), [(0, 1, True), (2, 3, True), (9, 4, False)])
def test_a_mirror_that_is_renewed_is_waited_for(tmp_path, refused, updates, installed):
    for name in ("mount", "chroot", "sleep"):
        (tmp_path / name).write_text(APT if name == "chroot" else "#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    for folder in ("usr/sbin", "etc", "proc", "dev"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    calls = tmp_path / "calls"
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PART": str(tmp_path), "BASE": "below", "PACKAGES": "curl"}
    done = subprocess.run(["bash", "-euc", debian.INSTALL], env=variables | {"CALLS": str(calls), "REFUSED": str(refused)})
    lines = calls.read_text().splitlines()
    assert len([line for line in lines if line.endswith("update")]) == updates
    assert (done.returncode == 0, any("install" in line for line in lines)) == (installed, installed)


def test_what_is_refused_is_a_sentence_with_a_hint():
    with pytest.raises(debian.InstallError) as refusal:
        debian.run(["bash", "-c", "echo E: no Release file >&2; exit 100"], "apt-get in a new box failed")
    told = problem.explain(refusal.value)
    assert told.what == "apt-get in a new box failed:\nE: no Release file" and "then the same command again" in told.hint
