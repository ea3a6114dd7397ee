"""Every reason why the chain would fail, found before it does: all checks side by side, nothing changed, nothing paid for."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

from conf.finding import BROKEN, NOTE, OK, UNKNOWN, Finding
from conf.problem import Problem
from remote.aws import session
from remote.aws.session import explain
from remote.doctor import account, drift, instance, login, network, notices, permissions, quota, shell
from remote.doctor.check import Check, Context
from remote.runs import runs

LONGEST = 1000  # characters of a line: what a finding repeats may be somebody else's text
MARKS = {OK: "ok     ", NOTE: "note   ", BROKEN: "BROKEN ", UNKNOWN: "unknown"}


CHECKS = [
    Check("permissions", "what the verbs call", permissions.laptop),
    Check("box role", "what the box calls", permissions.box_role),
    Check("stop role", "what stops a dead box", permissions.scheduler_role),
    Check("bucket", "runs, logs and data are in it", account.bucket),
    Check("image", "the box runs it", account.repository),
    Check("repository", "the image is kept in it", drift.repository),
    Check("retention", "logs are paid by the GB", drift.logs),
    Check("launch", "`up` launches every box with it", drift.launch),
    Check("names", "every verb reads them", drift.names),
    Check("ami", "the box starts from it", account.ami),
    Check("log group", "runs mirror their log to it", account.logs),
    Check("plan", "what AWS lets the account launch", quota.plan),
    Check("quota", "how much AWS lets you run", quota.quota),
    Check("type", "what can be had where", quota.offered),
    Check("price", "what you will pay", quota.prices),
    Check("network", "the box must reach AWS and the Hub", network.routes),
    Check("notices", "somebody is told when a run or the box ends", notices.receivers),
    Check("shell", "how one gets on to the box", shell.way_in),
    Check("box", "the box that is there", instance.box_state),
]


def fetch(login_findings: list[Finding], names: list[str], cloud: dict) -> dict[str, str]:
    """Values of Parameter Store, once login, region and clock are sound; what was found about these is added to `login_findings`."""
    login_findings += login.check_login(session.region(cloud), functools.partial(session.early_client, cloud=cloud))
    if wrong := [finding for finding in login_findings if finding.verdict == BROKEN]:
        raise Problem(wrong[0].what, wrong[0].command, reason="refused")
    try:
        return session.fetch(names, cloud)
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        raise problem from error


def settings_unreadable(login_findings: list[Finding], problem: Problem) -> list[Finding]:
    """What is wrong where the settings could not be read: then there is nothing else to examine."""
    if any(finding.verdict == BROKEN for finding in login_findings):
        return login_findings
    return [*login_findings, Finding("settings", BROKEN, problem.what, "every verb reads its names from Parameter Store", problem.hint)]


def run_checks(context: Context, more_checks: list[Check]) -> list[Finding]:
    """What every check found; where the credentials are no good, only that."""
    findings = login.check_login(context.run.cloud.region, context.aws.client)
    if any(one.verdict == BROKEN for one in findings):
        return findings
    with ThreadPoolExecutor(8) as pool:
        findings += [one for each in pool.map(lambda check: _run_check(check, context), [*CHECKS, *more_checks]) for one in each]
    return on_one_line([replace(one, command=session.with_region(one.command, context.run.cloud.region)) for one in findings])


def on_one_line(findings: list[Finding]) -> list[Finding]:
    """The findings, what each says on a line of its own."""
    return [replace(one, what=_one_line(one.what), why=_one_line(one.why)) for one in findings]


def _one_line(text: str) -> str:
    """The text on one line of bounded length: a line end in it would begin a finding that is none."""
    line = " ".join(text[: 2 * LONGEST].split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def _run_check(check: Check, context: Context) -> list[Finding]:
    """What the check found; a check that may not look says so, and one that meets a Problem passes it on."""
    try:
        return check.run(context)
    except Problem as problem:
        return [Finding(check.name, BROKEN, problem.what, check.why, problem.hint)]
    except runs.BROKEN as error:
        what = f"an answer is not as its service documents it ({type(error).__name__}: {error})"
        return [Finding(check.name, UNKNOWN, what, check.why, "`inv doctor` asks again")]
    except Exception as error:
        meaning = explain(error)
        if meaning is None:
            raise
        verdict = UNKNOWN if session.is_access_denied(error) else BROKEN
        return [Finding(check.name, verdict, meaning.what, check.why, meaning.hint)]


def all_ok(findings: list[Finding]) -> bool:
    """Whether the chain can work: what nobody could look at may stand against it."""
    return not any(finding.verdict in (BROKEN, UNKNOWN) for finding in findings)


def as_text(findings: list[Finding]) -> str:
    """A line for each finding; below a problem, why it matters and what fixes it."""
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.verdict]}  {finding.check:<12}  {finding.what}")
        if finding.verdict != OK:
            lines += [
                f"{'':23}{word}" for word in (finding.why and f"why: {finding.why}", finding.command and f"do:  {finding.command}") if word
            ]
    broken, unknown, notes = (sum(finding.verdict == verdict for finding in findings) for verdict in (BROKEN, UNKNOWN, NOTE))
    return "\n".join([*lines, f"{len(findings)} checks, {broken} broken, {unknown} unknown, {notes} to look at"])


def as_json(findings: list[Finding]) -> str:
    return json.dumps({"ok": all_ok(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)
