"""The commands work wherever the tree lies, whoever runs them, and whatever the shell's environment says."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "tasks.py",
    *sorted(path for room in ("conf", "data", "remote", "trainer", "twin") for path in (ROOT / room).rglob("*.py")),
]
BINARY = set("rwabx+")


def without_encoding(source: str) -> list[int]:
    """The lines of all calls that read or write text in whatever encoding the locale names."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if is_text(call) and "encoding" not in {keyword.arg for keyword in call.keywords}]


def is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("read_text", "write_text"):
        return True
    if name in ("run", "Popen", "check_output"):
        return "text" in keywords or "universal_newlines" in keywords
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if name not in ("open", "fdopen", "NamedTemporaryFile", "TextIOWrapper") or owner in ("tarfile", "webbrowser"):
        return False
    modes = [one.value for one in [*call.args, keywords.get("mode")] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    modes = [mode for mode in modes if set(mode) <= BINARY]
    plain = name in ("fdopen", "TextIOWrapper") or isinstance(call.func, ast.Name)  # text where no mode is named
    return any("b" not in mode for mode in modes) or (plain and not modes)


def test_text_is_utf_8_whatever_the_locale_says():
    found = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in without_encoding(path.read_text(encoding="utf-8"))]
    assert not found, "these files and pipes are in the locale's own encoding: name one"


@pytest.mark.parametrize(
    "source", ["path.read_text()", "open('a')", "open('a', 'w')", "path.open(mode='a')", "subprocess.run(words, text=True)"]
)
def test_text_in_the_encoding_of_the_locale_is_noticed(source):
    assert without_encoding(source) == [1]
