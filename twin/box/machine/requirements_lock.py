"""All packages that requirements files imply, by version and hashes: python -m twin.box.machine.requirements_lock requirements.txt

With `torch` behind it, only torch and the CUDA packages that it brings.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HEADER = """\
# Every package that {} implies, with the hash of each of its files in the package index, whatever the platform.
# Made by `make lock`, never by hand.{}
"""
WITHOUT = " Torch, and the CUDA packages that it brings, are in torch.txt."
TORCH = """\
# Torch and the CUDA packages that it brings on Linux, as {} implies them, with the hash of each of their files in the package index.
# Made by `make pin`, never by hand.
"""
UNHASHED = ("torch", "nvidia-", "cuda-", "triton")
PIP = (sys.executable, "-m", "pip")
INDEX = "https://pypi.org/simple"
SIMPLE = "application/vnd.pypi.simple.v1+json"  # PEP 691
PATIENCE = 60  # seconds for an answer


def main(requirements: str, only: str = "") -> None:
    """Only what the index itself names is taken: a file that was built on this machine has another hash, and is nobody else's."""
    pins = resolved(requirements)
    listed = {name: version for name, version in sorted(pins.items()) if name.startswith(UNHASHED) is (only == "torch")}
    if only == "torch":
        refuse_other_torch(listed)
    configured = subprocess.run([*PIP, "config", "get", "global.index-url"], encoding="utf-8", capture_output=True).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL") or configured or INDEX
    with ThreadPoolExecutor(8) as pool:
        hashes = pool.map(lambda pin: published(index, pin[0], pin[1].partition("+")[0]), listed.items())
    lines = [
        " \\\n    ".join([f"{name}=={listed[name].partition('+')[0]}", *file_hashes])
        for name, file_hashes in zip(listed, hashes, strict=True)
    ]
    header = TORCH if only == "torch" else HEADER
    print(header.format(requirements, "" if listed == pins else WITHOUT) + "\n".join(lines))


def refuse_other_torch(pins: dict[str, str]) -> None:
    """Which packages torch brings depends on the machine that asks, and on the build that pip would take."""
    here = f"{platform.system()} {platform.machine()}"
    if here != "Linux x86_64":
        sys.exit(f"error: the image is for Linux x86_64, and this is {here}: let .github/workflows/supply-chain.yml do it")
    if "+" in pins["torch"] or len(pins) == 1:
        sys.exit(f"error: pip takes torch {pins['torch']} here, which brings no CUDA: let .github/workflows/supply-chain.yml do it")


def resolved(requirements: str) -> dict[str, str]:
    """What the requirements imply. Versions that are locked already stay, but for what the requirements name themselves: a package that
    was taken over yesterday does not come with somebody else's new version."""
    locked = Path(requirements).with_name("locked.txt")
    named = {
        normalized(re.split(r"[\[=<>~!; ]", line, maxsplit=1)[0]) for line in Path(requirements).read_text(encoding="utf-8").splitlines()
    }
    unchanged = [line for line in versions(locked).splitlines() if line.partition("==")[0] not in named] if locked.exists() else []
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as constraints:
        constraints.write("".join(f"{line}\n" for line in unchanged))
        constraints.flush()
        command = [
            *PIP,
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            "-",
            "-r",
            requirements,
            "-c",
            constraints.name,
        ]
        done = subprocess.run(command, encoding="utf-8", stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"error: pip finds no versions; where a locked one stands in the way, remove its lines from {locked}, and once more")
    report = json.loads(done.stdout)
    packages = [one["metadata"] for one in report["install"]]
    return {normalized(one["name"]): one["version"] for one in packages}


def normalized(name: str) -> str:
    """A package's name as the index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


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
    main(*sys.argv[1:])
