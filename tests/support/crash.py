"""A laptop that dies at every call of a verb, one call after the other, until the verb has ended by itself."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from conftest import HOSTILE, ROOT


def killed(laptop, *words: str, overrides: tuple[str, ...] = ()) -> list[str]:
    """The verb's calls to AWS and the Hub, in the order in which it was killed at each; at last it has ended by itself, and well."""
    with tempfile.NamedTemporaryFile(dir=laptop.folder, prefix=f"killed-{words[0]}-") as mark:
        environment = os.environ | HOSTILE | {"PYTHONPATH": str(ROOT / "tests/support/killed"), "KILLED_AT": mark.name}
        command = laptop.command(*words, overrides=overrides)
        while True:
            done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=900)
            calls = Path(mark.name).read_text().splitlines()
            if done.returncode != -signal.SIGKILL:
                assert done.returncode == 0, f"after it had been killed at {calls}: {done.stdout}{done.stderr}"
                print(f"{words[0]}: {len(calls)} calls", *calls, sep="\n  ")
                return calls
