"""The lists of packages with their hashes: whole, of one mind with the requirements, and of the index alone."""

import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT

from twin.box.machine import requirements_lock

LISTS = {"requirements.txt": "locked.txt", "trainer/requirements.txt": "trainer/locked.txt"}


def asked(requirements: str) -> dict[str, str]:
    """What a requirements file names itself, by the index's spelling."""
    lines = (line.partition(";")[0] for line in (ROOT / requirements).read_text(encoding="utf-8").splitlines() if "==" in line)
    pins = (re.sub(r"\[.*?\]", "", line).strip().split("==") for line in lines)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def held(locked: str) -> dict[str, str]:
    return dict(line.split("==") for line in requirements_lock.versions(ROOT / locked).split())


@pytest.mark.parametrize("locked", LISTS.values())
def test_every_package_has_hashes(locked):
    text = re.sub(r"^#.*\n", "", (ROOT / locked).read_text(encoding="utf-8"), flags=re.MULTILINE)
    packages = text.replace(" \\\n", " ").splitlines()
    assert len(packages) == len(held(locked)) > 40
    assert [one for one in packages if not re.fullmatch(r"[a-z0-9-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", one)] == []


@pytest.mark.parametrize(("requirements", "locked"), LISTS.items())
def test_what_is_asked_for_is_what_is_locked(requirements, locked):
    """Torch alone is held by its version: the image may take it from an index of its own."""
    named = asked(requirements)
    assert named.pop("torch", None) == (None if requirements == "requirements.txt" else "2.13.0")
    assert named.items() <= held(locked).items()


def test_the_list_of_torch_is_of_the_torch_that_is_asked_for_or_says_that_it_has_none():
    pins = held("trainer/torch.txt")
    assert pins == {} or pins["torch"] == asked("trainer/requirements.txt")["torch"]
    text = (ROOT / "trainer/torch.txt").read_text(encoding="utf-8")
    missing = "their hashes are missing" in text
    assert missing is (pins == {}) and text.count("--hash=sha256:") >= len(pins)
    assert ("torch's hashes and the base's digest are missing" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")) is missing


def test_laptop_and_image_read_settings_and_templates_by_the_same_packages():
    laptop, image = (held(locked) for locked in LISTS.values())
    assert {name: laptop[name] for name in asked("requirements.txt") if name in image} == {
        name: image[name] for name in asked("requirements.txt") if name in image
    }


def test_the_image_takes_nothing_but_torch_from_an_index_without_a_hash():
    lines = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if re.search(r"\binstall (-|\$)", line) and "--quiet" not in line and "--no-index" not in line]
    without = [line for line in installs if "--require-hashes" not in line]
    assert len(installs) == 4 and without == ['        install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"; \\']


def chosen(folder, torch_txt: str, index: str = "") -> subprocess.CompletedProcess:
    """How the Dockerfile's own lines install torch: the words that pip gets."""
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    (part,) = re.findall(r"      if \[ -n \"\$TORCH_INDEX.*?\n      fi; ", text, re.DOTALL)
    (folder / "torch.txt").write_text(torch_txt)
    lines = part.replace("\\\n", "\n").replace("/build/torch.txt", shlex.quote(f"{folder}/torch.txt"))
    before = f'set -eu; TORCH_INDEX={index}; torch=torch==2.13.0; install() {{ echo "$@"; }}\n'
    return subprocess.run(["sh", "-c", before + lines], text=True, capture_output=True)


def test_torch_is_installed_by_its_hashes_once_there_are_any(tmp_path):
    assert chosen(tmp_path, "# none\n").stdout == "torch==2.13.0\n"
    assert chosen(tmp_path, "torch==2.13.0 \\\n --hash=sha256:00\n").stdout.startswith("--require-hashes --no-deps --requirement ")
    assert chosen(tmp_path, "torch==2.13.0 \\\n", "https://example.org").stdout == "--index-url https://example.org torch==2.13.0\n"
    other = chosen(tmp_path, "torch==2.13.01 \\\n --hash=sha256:00\n")
    assert (other.returncode, other.stdout) == (1, "") and "make pin" in other.stderr


@pytest.fixture
def index(monkeypatch):
    """An index of packages, as PEP 691 has it: what it answers by name, on this machine alone."""
    answers: dict[str, list[dict]] = {}

    class Simple(BaseHTTPRequestHandler):
        def do_GET(self):
            files = answers.get(self.path.strip("/").rpartition("/")[2])
            self.send_response(404 if files is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"files": files}).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Simple) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield answers
        server.shutdown()


def test_the_list_of_torch_holds_torch_and_what_is_cuda_s(index, monkeypatch, capsys):
    monkeypatch.setattr(requirements_lock.platform, "system", lambda: "Linux")
    monkeypatch.setattr(requirements_lock.platform, "machine", lambda: "x86_64")
    versions = {"some-package": "1.2", "torch": "2.13.0", "nvidia-cublas": "13", "triton": "3"}
    monkeypatch.setattr(requirements_lock, "resolved", lambda _: versions)
    for name, version in (("torch", "2.13.0"), ("nvidia-cublas", "13"), ("triton", "3")):
        index[name] = [file(f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "a")]
    requirements_lock.main("trainer/requirements.txt", "torch")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines if "==" in line] == ["nvidia-cublas==13", "torch==2.13.0", "triton==3"]
    assert len([line for line in lines if "--hash=" in line]) == 3


@pytest.mark.parametrize(
    ("pins", "machine"),
    [
        ({"torch": "2.13.0+cpu", "nvidia-cublas": "13"}, "x86_64"),
        ({"torch": "2.13.0"}, "x86_64"),
        ({"torch": "2.13.0", "triton": "3"}, "arm64"),
    ],
)
def test_a_torch_that_is_not_the_images_is_not_written_down(index, monkeypatch, capsys, pins, machine):
    monkeypatch.setattr(requirements_lock.platform, "system", lambda: "Linux")
    monkeypatch.setattr(requirements_lock.platform, "machine", lambda: machine)
    monkeypatch.setattr(requirements_lock, "resolved", lambda _: pins)
    with pytest.raises(SystemExit, match="error: .*supply-chain.yml"):
        requirements_lock.main("trainer/requirements.txt", "torch")
    assert capsys.readouterr().out == ""


def file(name: str, digit: str) -> dict:
    return {"filename": name, "hashes": {"sha256": digit * 64}}


def test_the_hashes_are_those_of_all_platforms_and_of_this_version_alone(index, monkeypatch, capsys):
    monkeypatch.setattr(requirements_lock, "resolved", lambda _: {"some-package": "1.2", "torch": "2.13.0", "nvidia-cublas": "13"})
    index["some-package"] = [
        file("some_package-1.2-cp311-cp311-manylinux_2_28_x86_64.whl", "a"),
        file("some_package-1.2-cp313-cp313-macosx_14_0_arm64.whl", "b"),
        file("some-package-1.2.tar.gz", "c"),
        file("some_package-1.2.1-py3-none-any.whl", "d"),
        file("some-package-11.2.tar.gz", "e"),
    ]
    requirements_lock.main("requirements.txt")
    *comments, first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first == "some-package==1.2 \\" and "are in torch.txt" in " ".join(comments)
    assert [line.strip(" \\") for line in (second, third, fourth)] == [f"--hash=sha256:{digit * 64}" for digit in "abc"]


@pytest.mark.parametrize("files", [[], [file("some_package-1.1-py3-none-any.whl", "a")], None])
def test_a_version_that_the_index_does_not_have_is_refused_in_a_sentence(index, monkeypatch, files):
    """One that was built on this machine has a hash, too, which nobody else can check."""
    monkeypatch.setattr(requirements_lock, "resolved", lambda _: {"some-package": "1.2+local"})
    if files is not None:
        index["some-package"] = files
    with pytest.raises(SystemExit, match="error: http://127.0.0.1"):
        requirements_lock.main("requirements.txt")


PIP = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
Path("constraints").write_text(Path(words[words.index("-c") + 1]).read_text())
print(json.dumps({"install": [{"metadata": {"name": "Some_Package", "version": "2+local"}}]}))
sys.exit(Path("fails").exists())
"""


def test_what_is_locked_stays_but_for_what_is_asked_for(tmp_path, monkeypatch):
    """`make lock` took whatever had been published that day."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pip.py").write_text(PIP)
    (tmp_path / "requirements.txt").write_text("# a\nSome_Package[all]==2\nplain; python_version > '3'\n")
    (tmp_path / "locked.txt").write_text("other==1 \\\n    --hash=sha256:00\nplain==1\nsome-package==1 \\\n    --hash=sha256:00\n")
    monkeypatch.setattr(requirements_lock, "PIP", (sys.executable, "pip.py"))
    assert requirements_lock.resolved("requirements.txt") == {"some-package": "2+local"}
    assert (tmp_path / "constraints").read_text() == "other==1\n"
    (tmp_path / "fails").touch()
    with pytest.raises(SystemExit, match="remove its lines from locked.txt"):
        requirements_lock.resolved("requirements.txt")


def test_versions_are_the_list_without_its_hashes(tmp_path):
    (tmp_path / "locked.txt").write_text("# a==b\na==1 \\\n    --hash=sha256:00\nb==2\n", encoding="utf-8")
    assert requirements_lock.versions(tmp_path / "locked.txt") == "a==1\nb==2\n"
