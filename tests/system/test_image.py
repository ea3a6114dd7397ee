"""The trainer's image, really built: what is in it, what is not, and that it trains where it may write nothing but its run."""

import json
import os
import subprocess

import pytest
from conftest import ROOT, TINY
from machine import needed

from twin.box.machine import requirements_lock

pytestmark = pytest.mark.system
LOCKED_DOWN = ["--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
LARGEST = 1.9e9  # bytes; 1.7e9 were measured, with torch for CPUs


def python(trainer_image, program: str) -> str:
    builder, image = trainer_image
    return builder.docker("run", "--rm", *LOCKED_DOWN, "--entrypoint", "python", image, "-c", program).stdout.strip()


def test_it_trains_as_nobody_in_particular_where_nothing_else_can_be_written(trainer_image, tmp_path):
    """Scores before and after included: the run folder that comes out is whole."""
    builder, image = trainer_image
    runs = tmp_path / "runs"
    runs.mkdir()
    os.chown(runs, 10001, 10001)
    mounts = ["--volume", f"{runs}:/app/runs", "--volume", f"{ROOT}/data:/app/data:ro", "--volume", f"{TINY}:/app/model:ro"]
    words = ["experiment=smoke", "model.id=/app/model", "train.steps=2", "data.eval_rows=2"]
    builder.docker("run", "--rm", *LOCKED_DOWN, *mounts, image, "trainer", *words)
    (run,) = (folder for folder in runs.iterdir() if (folder / "manifest.json").exists())
    assert json.loads((run / "state.json").read_text())["phase"] == "done"
    assert (run / "adapter/adapter_model.safetensors").stat().st_uid == 10001


def test_it_runs_as_an_ordinary_user(trainer_image):
    assert python(trainer_image, "import os; print(os.getuid())") == "10001"


def test_it_has_the_locked_packages_and_no_other(trainer_image):
    program = "import importlib.metadata as m; print(*{f'{d.name}=={d.version.partition(chr(43))[0]}' for d in m.distributions()})"
    have = {
        name.lower().replace("_", "-").replace(".", "-", name.partition("==")[0].count("."))
        for name in python(trainer_image, program).split()
    }
    (torch,) = (line for line in (ROOT / "trainer/requirements.txt").read_text().splitlines() if line.startswith("torch=="))
    assert have == {torch, *requirements_lock.versions(ROOT / "trainer/locked.txt").split()}


def test_neither_rows_nor_weights_nor_tools_to_install_more_are_in_it(trainer_image):
    program = "import os; print(*(os.path.join(folder, name) for folder, _, names in os.walk('/app') for name in names))"
    files = python(trainer_image, program).split()
    assert {
        "/app/data/schema.json",
        "/app/trainer/train/recipe.py",
        "/app/carrier/job.py",
        "/app/conf/trainer.yaml",
        "/app/trainer/record/templates/report.css",
    } <= set(files)
    assert [name for name in files if name.endswith((".jsonl", ".csv", ".safetensors", "local.yaml")) or "/." in name] == []
    builder, image = trainer_image
    assert builder.docker("run", "--rm", "--entrypoint", "sh", image, "-c", "command -v pip pip3 gcc", check=False).returncode != 0


def test_it_stays_small(trainer_image):
    builder, image = trainer_image
    assert int(builder.docker("image", "inspect", "--format", "{{.Size}}", image).stdout) < LARGEST


def test_building_it_again_makes_the_same_image(trainer_image):
    builder, image = trainer_image
    before = builder.docker("image", "inspect", "--format", "{{.Id}}", image).stdout
    builder.build(ROOT, ROOT / "docker/Dockerfile", ROOT / "trainer/requirements.txt", ROOT / "trainer/locked.txt", image)
    assert builder.docker("image", "inspect", "--format", "{{.Id}}", image).stdout == before


def compose() -> list[str] | None:
    """Compose as docker's plug-in, or Debian's docker-compose."""
    from twin.box.machine import prerequisites

    if (docker := prerequisites.program("docker")) and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return [alone] if (alone := prerequisites.program("docker-compose")) else None


def test_the_compose_file_runs_it_on_a_tiny_model(trainer_image, tmp_path):
    if not (command := compose()):
        needed("docker-compose")
    builder, image = trainer_image
    (tmp_path / "runs").mkdir()
    environment = builder.environment | {"IMAGE": image, "OWNER": "0:0", "RUNS": str(tmp_path / "runs")}
    words = [
        "run",
        "--rm",
        "--volume",
        f"{TINY}:/app/model:ro",
        "trainer",
        "experiment=smoke",
        "model.id=/app/model",
        "train.steps=2",
        "data.eval_rows=2",
    ]
    done = subprocess.run([*command, "--file", str(ROOT / "docker/compose.yaml"), *words], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(list((tmp_path / "runs").glob("*/manifest.json"))) == 1
