"""The image really built on a box, as `inv deploy` does where ECR has none of the tree: this Dockerfile, a real docker, a real registry."""

import base64
import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Laptop
from machine import needed

from remote.build import context
from twin import world
from twin.box.machine import builder, debian, lifecycle, prerequisites

pytestmark = pytest.mark.system
CACHE = ROOT / ".cache/machine"
ARGUMENTS = {"BASE": "base:here", "WHEELS": "wheels:here"}
LARGE = 1_000_000  # bytes of a wheel that is worth the time


class Machine(Laptop):
    """A laptop whose one box is a machine."""

    def inv(self, *verbs: str, overrides: tuple[str, ...] = ()):
        return super().inv(*verbs, overrides=("cloud.backend=machine", *overrides), timeout=900)

    def deploy(self) -> str:
        return self.inv("deploy", overrides=(f"cloud.build_args={{BASE: '{ARGUMENTS['BASE']}', WHEELS: '{ARGUMENTS['WHEELS']}'}}",)).stdout

    def run(self, script: str, **options) -> str:
        """What a command on the box prints."""
        (box,) = (self.state / "boxes").iterdir()
        environment = {"PATH": prerequisites.SYSTEM_PATH, "HOME": "/root"}
        return subprocess.run(
            [*lifecycle.enter_command(box), "bash", "-c", script], env=environment, stdout=subprocess.PIPE, check=True, **options
        ).stdout.decode()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A laptop whose box is up, with a Debian and an image of wheels in its docker: the build needs no index."""
    needed()
    made = Machine(tmp_path_factory.mktemp("a laptop"))
    try:
        made.inv("twin.start", "up")
        import_into(made, debian.base(CACHE), ARGUMENTS["BASE"])
        made.wheels = wheels(tmp_path_factory.mktemp("wheels"))
        import_into(made, made.wheels, ARGUMENTS["WHEELS"])
        yield made
    finally:
        world.stop(made.state)


def import_into(machine: Machine, folder: Path, name: str) -> None:
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        machine.run(f"docker import - {name}", stdin=tar.stdout)


def wheels(folder: Path) -> Path:
    """A wheel for each of the trainer's packages; of a large one only its name, so that the build takes seconds."""
    for wheel in builder.wheelhouse(CACHE, ROOT / "trainer/requirements.txt", ROOT / "trainer/locked.txt").glob("*.whl"):
        if wheel.stat().st_size < LARGE:
            shutil.copy(wheel, folder)
        else:
            empty(folder, *wheel.name.split("-")[:2])
    return folder


def empty(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode() for path, text in files.items()}
    files[f"{info}/RECORD"] = "".join(f"{path},sha256={digest},\n" for path, digest in digests.items()) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def test_the_box_builds_tries_and_pushes_it_once(machine):
    first = machine.deploy()
    assert "(changed: yes)" in first
    (image,) = machine.client("ecr").describe_images(repositoryName="fine-tune-slm")["imageDetails"]
    assert image["imageTags"] == [context.tag(ROOT, ARGUMENTS)]
    assert image["imageDigest"][:19] in first, "a person reads its beginning"
    assert machine.client("ssm").get_parameter(Name="/fine-tune-slm/ecr/image-digest")["Parameter"]["Value"] == image["imageDigest"]
    assert "(changed: no)" in machine.deploy()


def test_what_was_built_is_what_was_sent_for_an_ordinary_user(machine):
    (image,) = json.loads(
        machine.run("docker image ls --quiet --filter label=fine-tune-slm.content | sort -u | xargs docker image inspect")
    )
    assert image["Config"]["Labels"]["fine-tune-slm.content"] == context.tag(ROOT, ARGUMENTS)
    program = "import os; print(os.getuid(), *(os.path.join(folder, name) for folder, _, names in os.walk('/app') for name in names))"
    user, *files = machine.run(f'docker run --rm --network host --entrypoint python {image["Id"]} -c "{program}"').split()
    assert user == "10001"
    sent = {f"/app/{name}" for name in context.files(ROOT) if not name.startswith("docker/")}
    assert {name for name in files if "__pycache__" not in name} == sent


def test_the_docker_of_a_laptop_makes_pushes_and_verifies_the_same(machine, monkeypatch):
    """Twice: the second push finds the tag and changes nothing."""
    with builder.running(CACHE) as made:
        base = made.imported(debian.base(CACHE))
        for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH"):
            monkeypatch.setenv(name, made.environment[name])
        if subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode:
            pytest.skip("this docker has no buildx, which Debian 12 does not package, and a Dockerfile with `RUN --mount` needs it")
        words = (f"cloud.build_args={{BASE: '{base}', WHEELS: '{made.imported(machine.wheels)}'}}",)
        machine.inv("image.push", overrides=words)
        again = machine.inv("image.push", "image.verify", overrides=words).stdout
        arguments = {"BASE": base, "WHEELS": f"{machine.wheels.name}:local"}
        (image,) = machine.client("ecr").describe_images(
            repositoryName="fine-tune-slm", imageIds=[{"imageTag": context.tag(ROOT, arguments)}]
        )["imageDetails"]
        assert f"ok    digest    {image['imageDigest']}" in again
        assert "ok    start     `python -m trainer --help` works" in again and "WRONG" not in again and "size" in again
        monkeypatch.setenv("PATH", str(machine.folder))
        refused = Laptop.inv(machine, "image.verify", overrides=("cloud.backend=machine", *words), ok=False)
        assert "there is no docker on this machine" in refused.stderr and "`inv deploy -- " in refused.stderr
