"""What the image is made of: the allow-list is docker's own, the bytes are the same everywhere, the tag knows all that matters."""

import ast
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from conf.problem import Problem
from remote.build import context

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def tree(tmp_path):
    """A copy of all that is let in, with what a user may have beside it."""
    made = tmp_path / "tree"
    for name in [*context.files(ROOT), ".dockerignore"]:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, made / name)
    for name in ("conf/local.yaml", "conf/data/mine.yaml", "data/train.jsonl", "trainer/__pycache__/x.pyc", "conf/notes.txt", "tasks.py"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("the user's own")
    return made


def names(packed: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return tar.getnames()


def test_the_tarball_holds_what_is_let_in_and_the_dockerfile_and_nothing_else(tree):
    packed = names(context.tarball(tree))
    assert {
        "docker/Dockerfile",
        "trainer/train/recipe.py",
        "trainer/locked.txt",
        "trainer/record/templates/report.css",
        "data/schema.json",
    } <= set(packed)
    assert {"conf/schema.py", "conf/trainer.yaml", "conf/experiment/smoke.yaml", "data/score.py"} <= set(packed)
    strangers = ("local.yaml", "mine.yaml", ".jsonl", ".pyc", "notes.txt", "tasks.py")
    assert [
        name
        for name in packed
        if name.endswith(strangers) or name.startswith(("data/generator/gates", "data/generator/frames", "remote", "twin", "tests"))
    ] == []


def test_the_bytes_depend_on_neither_the_time_nor_the_user(tree):
    first = context.tarball(tree)
    for path in tree.rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert context.tarball(tree) == first == context.tarball(tree)
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {(member.mode, member.uid, member.mtime) for member in tar} == {(0o644, 0, 0)}  # the image's own user can read them


@pytest.mark.parametrize(
    "name", ["trainer/train/recipe.py", "trainer/locked.txt", "conf/model/tiny.yaml", "data/schema.json", "docker/Dockerfile"]
)
def test_each_ingredient_changes_the_tag(tree, name):
    before = context.tag(tree, {})
    with (tree / name).open("a") as file:
        file.write("\n")
    assert context.tag(tree, {}) != before


def test_an_argument_changes_the_tag_and_what_stays_outside_does_not(tree):
    before = context.tag(tree, {})
    (tree / "data/train.jsonl").write_text("other rows")
    (tree / "conf/local.yaml").write_text("cloud: aws")
    assert context.tag(tree, {}) == before
    assert context.tag(tree, {"BASE": "debian:trixie-slim"}) not in (before, context.tag(tree, {"BASE": "debian:bookworm-slim"}))


def test_an_argument_that_the_dockerfile_has_not_is_refused(tree):
    with pytest.raises(Problem, match="docker/Dockerfile has no argument BAES"):
        context.tag(tree, {"BAES": "debian"})


@pytest.mark.parametrize(
    ("patterns", "inside", "outside"),
    [
        (["*", "!a"], ["a", "a/b/c"], ["b"]),
        (["*", "!a/*.py"], ["a/x.py"], ["a/b/x.py", "a/x.txt"]),
        (["*", "!a/**/*.py"], ["a/x.py", "a/b/c/x.py"], ["x.py"]),
        (["*", "!a", "a/b", "!a/b/c"], ["a/x", "a/b/c"], ["a/b/d"]),
        (["**/*.log", "x?"], ["a", "x", "xyz"], ["a/b.log", "b.log", "xy", "xy/z"]),
    ],
)
def test_of_all_patterns_that_match_the_last_decides(patterns, inside, outside):
    assert [name for name in inside + outside if context.is_included(name, patterns)] == inside


def test_no_file_of_the_image_imports_one_that_stays_outside():
    inside = set(context.files(ROOT))
    missing = set()
    for name in (name for name in inside if name.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("conf", "data", "trainer"):
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                paths = [f"{module.replace('.', '/')}.py" for module in modules]
                missing |= {(name, path) for path in paths if (ROOT / path).is_file() and path not in inside}
    assert missing == set()
