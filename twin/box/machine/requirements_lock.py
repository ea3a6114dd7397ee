"""All packages that requirements files imply, by version and hashes: python -m twin.box.machine.requirements_lock requirements.txt"""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HEADER = """\
# Every package that {} implies, with the hash of each of its files in the package index, whatever the platform.
# Made by `make lock`, never by hand.{}
"""
WITHOUT = " Without torch and the CUDA packages that it brings: their hashes are missing."
UNHASHED = ("torch", "nvidia-", "cuda-", "triton")
PIP = (sys.executable, "-m", "pip")
INDEX = "https://pypi.org/simple"
SIMPLE = "application/vnd.pypi.simple.v1+json"  # PEP 691
PATIENCE = 60  # seconds for an answer


def main(requirements: str) -> None:
    """Only what the index itself names is taken: a file that was built on this machine has another hash, and is nobody else's."""
    pins = resolved(requirements)
    asked = {name: version for name, version in sorted(pins.items()) if not name.startswith(UNHASHED)}
    configured = subprocess.run([*PIP, "config", "get", "global.index-url"], encoding="utf-8", capture_output=True).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL") or configured or INDEX
    with ThreadPoolExecutor(8) as pool:
        hashes = pool.map(lambda pin: published(index, *pin), asked.items())
    lines = [" \\\n    ".join([f"{name}=={asked[name]}", *found]) for name, found in zip(asked, hashes, strict=True)]
    print(HEADER.format(requirements, "" if asked == pins else WITHOUT) + "\n".join(lines))


def resolved(requirements: str) -> dict[str, str]:
    command = [*PIP, "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", "-r", requirements]
    report = json.loads(subprocess.run(command, encoding="utf-8", stdout=subprocess.PIPE, check=True).stdout)
    found = [one["metadata"] for one in report["install"]]
    return {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"].partition("+")[0] for one in found}


def published(index: str, name: str, version: str) -> list[str]:
    """pip's words for the hashes of a version's files."""
    request = urllib.request.Request(f"{index.rstrip('/')}/{name}/", headers={"Accept": SIMPLE})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            files = json.load(answer)["files"]
    except (urllib.error.URLError, ValueError, KeyError) as error:
        sys.exit(f"error: {index} does not say which files {name} has ({error}); it must answer as PEP 691 says, as {INDEX} does")
    hashes = {file["hashes"]["sha256"] for file in files if of_version(file["filename"], version) and "sha256" in file["hashes"]}
    if not hashes:
        sys.exit(f"error: {index} has no file of {name} {version} with a hash; pin a version that it has")
    return sorted(f"--hash=sha256:{one}" for one in hashes)


def of_version(filename: str, version: str) -> bool:
    """A wheel's second part, or what stands behind the last dash of a source package."""
    if filename.endswith(".whl"):
        return filename.split("-")[1] == version
    stem = re.sub(r"\.(tar\.gz|zip|tar\.bz2)$", "", filename)
    return stem != filename and stem.rpartition("-")[2] == version


def versions(locked: Path) -> str:
    """A list without its hashes: where they are not asked for, pip takes none."""
    return "".join(
        line.partition(" ")[0] + "\n" for line in locked.read_text(encoding="utf-8").splitlines() if re.match("[a-z0-9].*==", line)
    )


if __name__ == "__main__":
    main(sys.argv[1])
