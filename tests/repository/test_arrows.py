"""The rooms know only whom they may know, and the laptop's paths never import torch."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"conf", "remote", "trainer", "carrier", "twin", "data"}
ALLOWED = {"conf": set(), "carrier": {"conf"}, "data": set(), "twin": set(), "remote": {"conf"}, "trainer": {"conf", "data"}}
LAPTOP = [
    "tasks",
    "trainer.rows.tasks",
    "conf.load",
    "remote.aws.gpu",
    "remote.plan.verbs",
    "remote.view.show",
    "remote.runs.predictions",
    "remote.runs.evaluations",
    "remote.runs.serving",
    "trainer.rows.answer_schema",
    "conf.sweep.sweep",
    "remote.sweep.command",
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
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: relative import")
    return packages


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_whom_it_may(room):
    for path in (ROOT / room).rglob("*.py"):
        assert imported(path) & ROOMS - {room} <= ALLOWED[room], path.relative_to(ROOT)


def files(room: str) -> dict[str, Path]:
    """The modules of a room by their dotted names."""
    paths = [path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py") if not path.name.startswith("__init__")]
    return {".".join(path.with_suffix("").parts): ROOT / path for path in paths}


def arrows(room: str) -> dict[str, set[str]]:
    """Which modules of the same room each one imports, at the top or inside a function."""
    modules = files(room)
    imports = {}
    for module, path in modules.items():
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
        named = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names} | {node.module for node in nodes}
        plain = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import))
        imports[module] = (named | {alias.name for node in plain for alias in node.names}) & set(modules) - {module}
    return imports


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_circle_of_imports_between_files(room):
    try:
        TopologicalSorter(arrows(room)).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


@pytest.mark.parametrize("room", ["carrier", "conf", "remote", "trainer", "twin"])
def test_packages_of_a_room_stand_in_six_levels_at_most(room):
    """A package is on the level above the highest one that it imports. What lies beside the packages, as `__main__`, joins them."""

    def package(module: str) -> str:
        return ".".join(module.split(".")[:2])

    imports = arrows(room)
    packages = {module: package(module) for module in imports if module.count(".") > 1}
    above: dict[str, set[str]] = {name: set() for name in packages.values()}
    for module, name in packages.items():
        above[name] |= {packages[other] for other in imports[module] if other in packages} - {name}
    try:
        sorter = TopologicalSorter(above)
        sorter.prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))
    for level in count():  # noqa: B007
        if not (ready := sorter.get_ready()):
            break
        sorter.done(*ready)
    assert level <= 6


def test_no_folder_holds_more_than_a_reader_takes_in():
    for folder in {path.parent for room in ROOMS for path in files(room).values()}:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 18, folder.relative_to(ROOT)


def test_the_verbs_that_join_rooms_are_a_table_of_contents():
    assert len((ROOT / "tasks.py").read_text().splitlines()) <= 300


@pytest.mark.parametrize("room", ["carrier", "remote", "trainer"])
def test_no_word_of_the_emulation_where_the_product_is(room):
    for path in (ROOT / room).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert "twin" not in path.read_text().lower(), path.relative_to(ROOT)


def test_the_laptop_never_imports_torch():
    """In one interpreter, one module after the other: the first one that brings a heavy library is named."""
    code = f"""import importlib, sys
for module in {LAPTOP}:
    importlib.import_module(module)
    heavy = [name for name in ("torch", "transformers", "peft", "datasets", "pandas") if name in sys.modules]
    assert not heavy, f"{{module}} imports {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_the_table_of_contents_imports_nothing_heavy():
    heavy = ("boto3", "hydra", "omegaconf", "rich", "huggingface_hub")
    code = f"import sys, tasks, remote.view.status_cache; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_argv_is_read_in_one_place():
    places = [ROOT / "tasks.py", *(path for room in ("conf", "remote") for path in (ROOT / room).rglob("*.py"))]
    assert [str(path.relative_to(ROOT)) for path in places if "sys.argv" in path.read_text(encoding="utf-8")] == ["conf/process/argv.py"]


# What was asked for (a table, a rehearsal, answers) is printed; what a step has to say goes through conf/process/screen.py.
PRINTS = {
    "doctor/command.py",
    "plan/command.py",
    "plan/preflight.py",  # `inv plan`
    "runs/predictions.py",
    "sweep/command.py",
    "tasks.py",
    "view/status_cache.py",
}


def test_no_step_writes_to_the_terminal_beside_the_screen():
    prints, complains = set(), set()
    for path in (ROOT / "remote").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                prints.add(path.relative_to(ROOT / "remote").as_posix())
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.stderr":
                complains.add(path.relative_to(ROOT / "remote").as_posix())
    assert prints == PRINTS
    assert not complains


def test_pytest_looks_into_every_folder_of_tests(pytestconfig):
    """By itself it passes over folders called `build`, `dist` and the like: all tests of remote/build went unrun for a day."""
    folders = {part for path in (ROOT / "tests").rglob("test_*.py") for part in path.relative_to(ROOT).parts[:-1]}
    assert not [name for name in folders if any(fnmatch(name, pattern) for pattern in pytestconfig.getini("norecursedirs"))]
