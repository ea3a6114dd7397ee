"""The loop devices of this machine: which file is behind which, and giving them back."""

import json
import subprocess
import time
from pathlib import Path


def attached() -> dict[str, str]:
    """Every loop device of this machine, and the file behind it."""
    listed = subprocess.run(
        ["losetup", "--list", "--json", "--output", "NAME,BACK-FILE"], encoding="utf-8", capture_output=True, check=True
    ).stdout
    return {one["name"]: one["back-file"] for one in json.loads(listed)["loopdevices"] if one["back-file"]} if listed.strip() else {}


def loops(file: Path) -> list[str]:
    return [loop for loop, back in attached().items() if back.removesuffix(" (deleted)") == str(file)]


def detach(file: Path) -> None:
    """The file's loop device is free again; the kernel may take a moment after the last mount."""
    for _ in range(100):
        devices = loops(file)
        for loop in devices:
            subprocess.run(["losetup", "--detach", loop], capture_output=True)
        if not devices:
            return
        time.sleep(0.05)
    raise RuntimeError(f"{file} is still in use")


def detach_all(state: Path) -> None:
    for back in set(attached().values()):
        if back.startswith(f"{state.resolve()}/"):
            detach(Path(back.removesuffix(" (deleted)")))
