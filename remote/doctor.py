"""Every reason why the chain would fail, found before it does: all checks side by side, nothing changed, nothing paid for."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from conf import schema
from conf.finding import BROKEN, NOTE, OK, UNKNOWN, Finding
from conf.problem import Problem
from remote import login, needs
from remote.aws import DENIED, Aws, explain
from remote.needs import CHECKS, Check

MARKS = {OK: "ok     ", NOTE: "note   ", BROKEN: "BROKEN ", UNKNOWN: "unknown"}


def examine(aws: Aws, run: schema.Run, tag: str, more: list[Check]) -> list[Finding]:
    """What every check found; where the credentials are no good, only that."""
    found = login.check(aws, run)
    if any(one.verdict == BROKEN for one in found):
        return found
    look = needs.Look(aws, run, tag)
    with ThreadPoolExecutor(8) as pool:
        return found + [one for each in pool.map(lambda check: _carried_out(check, look), [*CHECKS, *more]) for one in each]


def _carried_out(check: Check, look: needs.Look) -> list[Finding]:
    """What the check found; a check that may not look says so, and one that meets a Problem passes it on."""
    try:
        return check.look(look)
    except Problem as problem:
        return [Finding(check.name, BROKEN, problem.what, check.why, problem.hint)]
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        verdict = UNKNOWN if code in DENIED else BROKEN
        return [Finding(check.name, verdict, problem.what, check.why, problem.hint)]


def fine(findings: list[Finding]) -> bool:
    return all(one.verdict != BROKEN for one in findings)


def text(findings: list[Finding]) -> str:
    """A line for each finding, and below what is not as it should be why it matters and what mends it."""
    lines = []
    for one in findings:
        lines.append(f"{MARKS[one.verdict]}  {one.check:<12}  {one.what}")
        if one.verdict != OK:
            lines += [f"{'':23}{word}" for word in (one.why and f"why: {one.why}", one.command and f"do:  {one.command}") if word]
    broken, notes = ([one for one in findings if one.verdict == verdict] for verdict in (BROKEN, NOTE))
    return "\n".join([*lines, f"{len(findings)} checks, {len(broken)} broken, {len(notes)} to look at"])


def as_json(findings: list[Finding]) -> str:
    return json.dumps({"ok": fine(findings), "findings": [asdict(one) for one in findings]}, indent=2)
