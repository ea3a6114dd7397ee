"""Every command that a message names can be run as it is printed, and is printed by the one place that sees to it."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.parser import Parser

import tasks
from conf import commands, renamed

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "tasks.py",
    *sorted(path for room in ("conf", "data", "remote", "trainer", "twin") for path in (ROOT / room).rglob("*.py")),
]
LAPTOP = [ROOT / "tasks.py", ROOT / "conf/cli.py", ROOT / "twin/tasks.py", *sorted((ROOT / "remote").rglob("*.py"))]
TYPED = ["cloud=twin", "cloud.state='/a b'", "box.ssh=false", "experiment=smoke"]
NAMED = re.compile(r"(?<![\w.-])inv [a-z{]")
WHOLE = re.compile(r"inv [a-z0-9. -]+(-- [a-z_.]+=\w+)?")  # a command alone: whoever prints it puts it in backticks


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Every text of a program but its docstrings, with letters in the place of what is filled in."""
    tree = ast.parse(source)
    parts = [part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values]
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "up" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.lineno, node.value


def without_docstrings(source: str) -> list[tuple[int, str]]:
    tree = ast.parse(source)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body]
    skipped = {node.lineno for node in first if isinstance(node, ast.Expr)}
    return [(line, text) for line, text in texts(source) if line not in skipped]


def messages() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        for line, text in without_docstrings(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(ROOT)}:{line}", text
    for path in sorted((ROOT / "remote/scripts").glob("*.sh")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.lstrip().startswith("#"):
                yield f"{path.relative_to(ROOT)}:{number}", line.replace("\\`", "`")


COMMANDS = sorted({command[0] for _, text in messages() for command in commands.COMMAND.finditer(text)})


def test_there_are_commands_to_look_at():
    assert len(COMMANDS) > 40 and "`inv up -- box.ssh=true`" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_message_can_be_run_with_what_was_typed(command):
    verbs, _, own = command.strip("`").partition(" -- ")
    _, *words = shlex.split(commands.runnable(command, TYPED).strip("`"))
    place = words.index("--")
    parsed = Parser(contexts=tasks.namespace.to_contexts()).parse_argv(words[:place])
    assert [one.name for one in parsed], f"{verbs} is no verb"
    settled = [renamed.key(word) for word in shlex.split(own)]
    assert words[place + 1 :] == [word for word in TYPED if renamed.key(word) not in settled] + shlex.split(own)


def test_every_command_in_a_message_stands_in_backticks():
    loose = [place for place, text in messages() if NAMED.search(re.sub("`[^`]*`", "", text)) and not WHOLE.fullmatch(text)]
    assert not loose, "commands without backticks get no overrides"


def raw(path: Path) -> list[str]:
    """Where a text that names a command is printed without the one place that makes it fit to be seen."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    printed = [ast.unparse(call) for call in calls if getattr(call.func, "id", "") == "print"]
    return [text for text in printed if "`inv " in text and "shown(" not in text]


def test_what_names_a_command_is_printed_by_the_one_place_that_makes_it_fit():
    assert not [(path.name, text) for path in LAPTOP for text in raw(path)]


def test_the_name_of_a_new_stack_is_a_setting_of_all_that_follows(monkeypatch):
    from conf.process import argv

    monkeypatch.setattr(sys, "argv", ["inv", "init", "--name", "demo"])
    argv.add("cloud.stack=demo")
    assert commands.runnable("`inv up`") == "`inv up -- cloud.stack=demo`"
