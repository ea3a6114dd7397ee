"""What an image is made of, as CycloneDX has it: docker run --rm --interactive --entrypoint python IMAGE - <docker/sbom.py >sbom.json"""

import json
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

DPKG = Path("/var/lib/dpkg/status")


def main(dpkg: Path = DPKG) -> None:
    components = sorted([*python(), *debian(dpkg.read_text(encoding="utf-8"))], key=lambda one: one["purl"])
    print(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}, indent=1))


def python() -> Iterator[dict]:
    for found in distributions():
        yield component(found.name, found.version, f"pkg:pypi/{found.name.lower().replace('_', '-')}@{quote(found.version)}")


def debian(status: str) -> Iterator[dict]:
    for package in status.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in package.splitlines() if ": " in line and not line[0].isspace())
        if fields.get("Status", "").endswith(" installed"):
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            yield component(name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}")


def component(name: str, version: str, purl: str) -> dict:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main()
