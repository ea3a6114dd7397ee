"""What each script of remote/scripts answers: one dataclass for one script, held to the `out:` line in its header by a test."""

import re
from dataclasses import MISSING, dataclass, fields
from typing import TypeVar, get_type_hints

from conf.problem import Problem, of_reason

R = TypeVar("R")


@dataclass(frozen=True)
class Setup:
    warming: bool  # run it again
    gpu: str
    changed: bool


@dataclass(frozen=True)
class Volume:
    mount: str
    free_gb: int
    formatted: bool
    changed: bool


@dataclass(frozen=True)
class Build:
    building: bool
    changed: bool


@dataclass(frozen=True)
class Deploy:
    image: str
    changed: bool


@dataclass(frozen=True)
class Train:
    container: str  # its state
    changed: bool


@dataclass(frozen=True)
class Predict:
    answers: str  # their name in S3
    changed: bool


@dataclass(frozen=True)
class Evaluate:
    scoring: bool
    changed: bool


@dataclass(frozen=True)
class Serve:
    loading: bool
    address: str  # of the container, which the box alone reaches
    port: int
    changed: bool


@dataclass(frozen=True)
class Cancel:
    run_id: str
    phase: str
    changed: bool


@dataclass(frozen=True)
class Held:
    mounted: bool
    going: tuple[str, ...] = ()  # ids of runs; none where the volume is not mounted
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clean:
    changed: bool
    freed_gb: int | None = None  # where the volume is mounted


@dataclass(frozen=True)
class Stop:
    stopped_run: str  # empty: none went on
    changed: bool


@dataclass(frozen=True)
class Probe:
    driver: str  # empty: no GPU answers
    gpu_lost: tuple[str, ...]  # runs
    unreachable: tuple[str, ...]  # names


def read(script: str, answer: type[R], facts: dict[str, str]) -> R:
    """A script's `@@ key=value` lines as its dataclass: a Problem where one is missing, unknown, or of another type."""
    hints, known = get_type_hints(answer), {one.name: one for one in fields(answer)}  # type: ignore[arg-type]
    missing = [name for name, one in known.items() if name not in facts and one.default is MISSING]
    if missing:
        raise _strange(f"{script}.sh does not answer {', '.join(missing)}")
    if unknown := sorted(facts.keys() - known.keys()):
        raise _strange(f"{script}.sh answers {unknown[0]}={facts[unknown[0]]}, and it is not for a script to say that")
    return answer(**{name: _typed(script, name, hints[name], text) for name, text in facts.items()})


def problem(said: dict[str, str]) -> Problem:
    """Why a script has failed, as it says itself."""
    return of_reason(said["problem"], said.get("hint") or "`inv doctor` looks at the box", said.get("reason", ""))


def _typed(script: str, name: str, kind: object, text: str) -> object:
    if kind is bool and text in ("yes", "no"):
        return text == "yes"
    if kind in (int, int | None) and re.fullmatch("-?[0-9]{1,18}", text):
        return int(text)
    if kind == tuple[str, ...]:
        return tuple(text.split())
    if kind is str:
        return text
    raise _strange(f"{script}.sh answers {name}={text}, which is no {'yes or no' if kind is bool else 'whole number'}")


def _strange(what: str) -> Problem:
    return Problem(what, "`inv doctor` looks at the box; do not use one whose answers are not its scripts'", "crashed")
