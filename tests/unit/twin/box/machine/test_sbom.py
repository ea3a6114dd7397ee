"""What an image is made of, as a file that others' programs read: here of the Python that runs this, and of a machine's packages."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import ROOT

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library: Shared libraries
 Contains: the standard libraries

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: g++
Status: hold ok installed
Architecture: amd64
Version: 4:12.2.0-3
"""


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    """As the workflow runs it: from standard input, by whichever Python there is."""
    status = tmp_path_factory.mktemp("dpkg") / "status"
    status.write_text(STATUS, encoding="utf-8")
    program = (ROOT / "docker/sbom.py").read_text(encoding="utf-8").replace("/var/lib/dpkg/status", str(status))
    done = subprocess.run([sys.executable, "-I", "-"], input=program, capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def test_it_names_each_package_of_python_once(bill):
    """By the names and addresses of the package-url specification: lower case, dashes for underscores."""
    packages = [one for one in bill["components"] if one["purl"].startswith("pkg:pypi/")]
    assert {"type", "bom-ref", "name", "version", "purl"} == set().union(*packages)
    assert f"pkg:pypi/huggingface-hub@{version('huggingface_hub')}" in {one["purl"] for one in packages}
    assert len({one["bom-ref"] for one in bill["components"]}) == len(bill["components"])


def test_it_names_what_debian_has_installed_and_nothing_that_is_gone(bill):
    packages = [one["purl"] for one in bill["components"] if one["purl"].startswith("pkg:deb/")]
    assert packages == ["pkg:deb/debian/g%2B%2B@4%3A12.2.0-3?arch=amd64", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64"]


def test_it_says_which_format_it_has(bill):
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
