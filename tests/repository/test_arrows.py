"""The rooms know only whom they may know, and the laptop's paths never import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"conf", "remote", "trainer", "twin", "data"}
ALLOWED = {"conf": set(), "data": set(), "twin": set(), "remote": {"conf"}, "trainer": {"conf", "data"}}
LAPTOP = [
    "tasks",
    "conf.load",
    "remote.aws.gpu",
    "remote.plan.verbs",
    "remote.view.show",
    "remote.runs.predictions",
    "remote.runs.evaluations",
    "remote.sweep.sweep",
    "remote.sweep.search",
    "trainer.record.leaderboard",
    "remote.view.tensorboard",
    "remote.runs.hub",
    "trainer.hub.publish",
    "trainer.preflight.preflight",
    "trainer.record.report",
    "trainer.rows.splits",
    "trainer.rows.token_lengths",
    "data.check",
    "data.show",
    "trainer.record.compare",
    "twin.world",
]


def imported(path: Path) -> set[str]:
    """The first words of every module that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: relative import")
    return found


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_whom_it_may(room):
    for path in (ROOT / room).rglob("*.py"):
        assert imported(path) & ROOMS - {room} <= ALLOWED[room], path.relative_to(ROOT)


@pytest.mark.parametrize("room", ["remote", "trainer"])
def test_no_word_of_the_emulation_where_the_product_is(room):
    for path in (ROOT / room).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert "twin" not in path.read_text().lower(), path.relative_to(ROOT)


@pytest.mark.parametrize("module", LAPTOP)
def test_the_laptop_never_imports_torch(module):
    code = f"import sys, {module}; print([name for name in ('torch', 'transformers', 'peft', 'datasets', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_table_of_contents_imports_nothing_heavy():
    heavy = ("boto3", "hydra", "omegaconf", "rich", "huggingface_hub")
    code = f"import sys, tasks, remote.view.status_cache; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
