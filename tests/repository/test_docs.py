"""The pages that a reader meets first stay short, and what they name is there."""

import re
import shlex
import subprocess
import tomllib

import pytest
import yaml
from conftest import ROOT
from invoke import Program

import tasks
from conf import load
from conf.process import argv
from conf.sweep import grid, space
from conf.sweep.sweep import Grid
from remote.sweep.command import USAGE

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
PLACE = re.compile(r"`((?:\w+/)+[\w.-]+\.\w+|(?:\w+/)+)`")
WRITTEN = [
    page for page in PAGES if page.name not in ("ANSWERS.md", "ARCHITECTURES.md", "MODELS.md", "TEMPLATES.md")
]  # the others are made by programs
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)  # without a language: what a reader types
COMMANDS = [
    (str(page.relative_to(ROOT)), line)
    for page in WRITTEN
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8"))
    for line in block.splitlines()
    if not language
]
TYPED = [(page, line) for page, line in COMMANDS if line.startswith(("inv ", "make ", "python "))]
OTHERS = ("aws ", "pip ", "eval ", "pre-commit ", "git ", ". .venv/bin/activate")  # programs that are not ours
HISTORY = ("CHANGELOG.md",)  # names what was there then
MADE = re.compile(
    r"conf/(data/mine|local)\.yaml|stack/.*|runs/.*|checkpoints/.*|twin/aws/documented/recorded/?|log/|part/|evaluations/.*|inputs/.*|lives/|boxes/.*"
)


@pytest.mark.parametrize(("page", "lines", "words"), [("README.md", 150, 1300), ("ARCHITECTURE.md", 120, 1500)])
def test_a_page_can_be_read_in_minutes(page, lines, words):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= lines and len(text.split()) <= words


def test_the_decisions_are_few_numbered_and_say_what_they_cost():
    assert 1 <= len(DECISIONS) <= 30
    for number, file in enumerate(DECISIONS, 1):
        text = file.read_text(encoding="utf-8")
        assert file.name.startswith(f"{number:03}-") and text.startswith(f"# {number:03}. "), file.name
        assert [part for part in ("**Context.**", "**Decision.**", "**What it costs.**") if part not in text] == [], file.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(page):
    named = set(PLACE.findall(page.read_text(encoding="utf-8")))
    assert sorted(name for name in named if not MADE.fullmatch(name) and not (ROOT / name).exists()) == []


def settings(words: list[str]):
    return load.load(words, local=ROOT / "none")


@pytest.mark.parametrize(("page", "line"), TYPED, ids=[f"{page}: {line}" for page, line in TYPED])
def test_a_command_names_verbs_options_and_settings_that_there_are(page, line):
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert [word for word in words if "=" not in word and word not in targets] == []
    elif program == "inv":
        parsed = Program(namespace=tasks.namespace, version="0")
        parsed.create_config()
        parsed.parse_core(["inv", *words])
        parsed.parse_collection()
        parsed.parse_tasks()
        verbs = {task.name: {name: option.value for name, option in task.args.items()} for task in parsed.tasks}
        overrides = argv.overrides(words)
        if trials := verbs.get("sweep", {}).get("trials"):
            assert space.read(overrides, int(trials)).axes
        elif "curve" in verbs:
            assert settings([word for word in overrides if not word.startswith("data.train_rows=")])
        elif "sweep" in verbs:
            assert len(Grid(grid.combinations(overrides, USAGE), settings).jobs) > 1
        else:
            assert settings(overrides)
    elif words[0] == "-m":
        assert (ROOT / words[1].replace(".", "/")).is_dir() or (ROOT / f"{words[1].replace('.', '/')}.py").is_file()
    else:
        assert words[0] == "-c" or (ROOT / words[0]).is_file()


def test_every_line_of_a_block_of_commands_is_one():
    assert [(page, line) for page, line in COMMANDS if (page, line) not in TYPED and not line.startswith(OTHERS)] == []


def test_the_hooks_of_a_commit_are_the_programs_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    pinned = {line.partition("  ")[0] for line in (ROOT / "tests/requirements.txt").read_text(encoding="utf-8").splitlines()}
    needed = {package for hook in hooks for package in hook["additional_dependencies"]}
    assert needed and needed <= pinned


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/release-notes").write_bytes((ROOT / ".ci/release-notes").read_bytes())
    (tmp_path / "CHANGELOG.md").write_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), encoding="utf-8")

    def notes(version: str, own: str) -> subprocess.CompletedProcess:
        (tmp_path / "pyproject.toml").write_text(f'version = "{own}"\n', encoding="utf-8")
        return subprocess.run(["bash", ".ci/release-notes", version], cwd=tmp_path, capture_output=True, encoding="utf-8")

    done = notes("0.1.0", "0.1.0")
    assert done.returncode == 0 and done.stdout.strip().startswith("The first version") and "## 0." not in done.stdout
    assert "no dated section" in notes("9.9.9", "9.9.9").stderr and notes("9.9.9", "9.9.9").returncode == 1
    assert "pyproject.toml says 0.2.0" in notes("0.1.0", "0.2.0").stderr


def test_the_version_of_the_package_is_the_newest_of_the_changelog():
    newest = re.search(r"^## (\S+) \(", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == newest
