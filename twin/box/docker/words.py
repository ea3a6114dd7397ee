"""Command line words of the stand-in docker: options, Go templates, files and failures."""

import json
import re
import time
from pathlib import Path

SHORT = {"-a": "--all", "-d": "--detach", "-e": "--env", "-f": "--force", "-i": "--interactive", "-l": "--label", "-q": "--quiet"}
SHORT |= {"-t": "--time", "-u": "--user", "-v": "--volume", "-w": "--workdir"}


class Failure(Exception):
    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def parse(arguments: list[str], flags: str = "", values: str = "") -> tuple[dict[str, list[str]], list[str]]:
    """Options before the first positional argument, each with its values in order; and the rest."""
    options: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).partition("=")
        name = SHORT.get(name, name)
        if name in flags.split() and not equals:
            options[name] = [""]
        elif name in values.split() and (equals or rest):
            options.setdefault(name, []).append(value if equals else rest.pop(0))
        else:
            raise Failure(f"unknown flag: {name}\nthis emulated docker knows: {flags} {values}", 125)
    return options, rest


def single(rest: list[str]) -> str:
    if len(rest) != 1:
        raise Failure(f"this emulated docker takes exactly one name here, not {len(rest)}")
    return rest[0]


def fill(template: str, document: dict) -> str:
    """A Go template that holds nothing but paths, such as {{.State.ExitCode}} or {{json .Config}}."""

    def value(match: re.Match) -> str:
        current = document
        for key in match["path"].strip(".").split(".") if match["path"] != "." else []:
            if not isinstance(current, dict) or key not in current:
                raise Failure(f'template: :1:2: executing "" at <{match["path"]}>: map has no entry for key "{key}"')
            current = current[key]
        return current if isinstance(current, str) and not match["json"] else json.dumps(current)

    text = re.sub(r"\{\{\s*(?P<json>json )?\s*(?P<path>[.\w]+)\s*\}\}", value, template)
    if "{{" in text:
        raise Failure(f"template parsing error: this emulated docker fills in paths only: {template}", 64)
    return text


def show(document: dict, options: dict) -> None:
    print(fill(options["--format"][-1], document) if "--format" in options else json.dumps([document], indent=4))


def write(path: Path, content: dict, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.touch(mode)
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.rename(path)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
