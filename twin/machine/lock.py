"""Prints the exact version of every package that a requirements file implies: python -m twin.machine.lock trainer/requirements.txt"""

import json
import re
import subprocess
import sys

HEADER = """\
# Every package that goes into the image, with those that requirements.txt only implies; torch brings its own CUDA packages.
# Made by `make lock`, never by hand.
"""
CUDA = ("nvidia-", "cuda-", "triton")


def main(requirements: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", "-r", requirements]
    report = json.loads(subprocess.run(command, encoding="utf-8", stdout=subprocess.PIPE, check=True).stdout)
    found = [one["metadata"] for one in report["install"]]
    pins = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"].partition("+")[0] for one in found}
    print(HEADER + "\n".join(f"{name}=={version}" for name, version in sorted(pins.items()) if not name.startswith(CUDA)))


if __name__ == "__main__":
    main(sys.argv[1])
