"""A plan carried out, part by part, or only shown."""

import contextlib
import re
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.session import Aws
from remote.plan import answers, script
from remote.plan.plan import Call, Latest, Plan, Reference, Step
from remote.transport.transport import Transport

R = TypeVar("R")
DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")  # of which a person reads the beginning
RETRY = 60  # seconds between two tries of what is tried again
KILLED = 137  # 128 and SIGKILL, which the kernel sends when memory runs out
CLOCK = ("RequestTimeTooSkewed", "InvalidSignatureException")  # what AWS calls it


class Outcome:
    """What the parts of a plan have found out."""

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}  # of each part that was carried out
        self.done = ""  # the plan's final words
        self.parts: list[tuple[str, float]] = []  # what was carried out, and in how many seconds

    def of(self, kind: type[R]) -> R | None:
        """The latest answer of this kind, if there is one."""
        return next((one for _, one in sorted(self.answers.items(), reverse=True) if isinstance(one, kind)), None)

    def value(self, value: Any) -> Any:
        """The value, or what stands behind it where it is a reference; None where that is not known."""
        if isinstance(value, Latest):
            return next((known for one in reversed(value.of) if (known := self.value(one)) is not None), None)
        return getattr(self.answers.get(value.number), value.name, None) if isinstance(value, Reference) else value

    def values(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: self.value(value) for name, value in inputs.items()}


def perform(plan: Plan, aws: Aws, transport: Callable[[Aws, str], Transport], outcome: Outcome | None = None) -> Outcome:
    """Carry out a plan, part by part, and put what its parts find out into `outcome`. It stops at the first part that fails."""
    outcome = Outcome() if outcome is None else outcome
    try:
        for number, part in enumerate(plan):
            if outcome.value(part.when):
                _renew(plan, aws, outcome)
                _perform(plan, number, part, outcome, aws, transport)
    except BaseException:
        if plan.failure:
            words, inputs = plan.failure
            if message := words(**outcome.values(inputs)):
                screen.note(message)
        with contextlib.suppress(Exception):  # what went wrong is what the user must read
            _release(plan, aws, outcome)
        raise
    _release(plan, aws, outcome)
    if plan.end:
        text, inputs = plan.end
        outcome.done = DIGEST.sub(r"\1", text.format(**{name: _shown(value) for name, value in outcome.values(inputs).items()}))
    return outcome


def _shown(value: object) -> object:
    return script.word(value) if isinstance(value, bool) else value


def _release(plan: Plan, aws: Aws, outcome: Outcome) -> None:
    if plan.held and (value := outcome.value(plan.held.value)) is not None:
        plan.held.release(aws, value)


def _renew(plan: Plan, aws: Aws, outcome: Outcome) -> None:
    if plan.held and (value := outcome.value(plan.held.value)) is not None:
        plan.held.renew(aws, value)


def _perform(plan: Plan, number: int, part: Call | Step, outcome: Outcome, aws: Aws, transport: Callable[[Aws, str], Transport]) -> None:
    started = time.monotonic()
    screen.status(part.intent)
    try:
        _run_part(plan, number, part, outcome, aws, transport)
    finally:
        outcome.parts.append((part.intent, time.monotonic() - started))
    if part.announce:
        name = f"{part.script}.sh: " if isinstance(part, Step) else ""
        screen.detail(f"  {name}{part.intent} ({time.monotonic() - started:.1f} s)")


def _run_part(plan: Plan, number: int, part: Call | Step, outcome: Outcome, aws: Aws, transport: Callable[[Aws, str], Transport]) -> None:
    if isinstance(part, Call):
        outcome.answers[number] = _call(plan, part, outcome, aws)
    else:
        facts = _run(part, outcome, transport(aws, outcome.value(part.on)))
        while facts is not None and part.repeat_while and facts.get(part.repeat_while) == "yes":
            _renew(plan, aws, outcome)
            facts = _run(part, outcome, transport(aws, outcome.value(part.on)))
        if facts is not None:
            outcome.answers[number] = answers.read(part.script, part.answer, facts)


def _call(plan: Plan, call: Call, outcome: Outcome, aws: Aws) -> Any:
    """What the action answers; one that may be tried again is, for as long as it says."""
    deadline = time.monotonic() + (call.retry.seconds if call.retry else 0)
    while True:
        try:
            return call.action(aws, **outcome.values(call.inputs))
        except Problem as problem:
            left = deadline - time.monotonic()
            if call.retry is None or not isinstance(problem, call.retry.on) or left <= 0:
                raise
            pause = min(RETRY, left)
            end = datetime.now(UTC) + timedelta(seconds=left)
            screen.note(f"  {problem.what}; next try in {pause:.0f} s, the last at {end:%H:%M} UTC")
            time.sleep(pause)
            _renew(plan, aws, outcome)


def _run(step: Step, outcome: Outcome, transport: Transport) -> dict[str, str] | None:
    """The script's facts; None where it fails and the plan continues."""
    title = f"fine-tune-slm {step.script} {outcome.value(step.inputs.get('RUN_ID', ''))}".strip()
    try:
        result = transport.run(step.text(outcome.value), step.timeout, title=title)
    except Problem as problem:
        if not step.continue_message:
            raise
        screen.note(f"{problem.what}; {step.continue_message}")
        return None
    facts = result.facts
    if step.repeat_while and (words := result.stderr.strip()):
        _relay(words, result.code, facts.get(step.repeat_while) == "yes")
    if result.code == 0:
        return facts
    if step.continue_message:
        screen.note(f"{facts.get('problem') or f'{step.script}.sh {_end(result.code)}'}; {step.continue_message}")
        return None
    if "problem" in facts:
        raise answers.problem(facts)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    if any(word in line for word in CLOCK for line in lines):
        raise Problem("the box's clock is wrong: AWS refuses what it signs", "`inv down` and `inv up`: a boot sets it", reason="refused")
    raise Problem(
        f"{step.script}.sh {_end(result.code)}\n" + "\n".join(lines[-5:]),
        "run the same command again: every step may run twice; `inv status` shows the box",
        reason="crashed",
    )


def _relay(words: str, code: int, goes_on: bool) -> None:
    """What a script that is run again says: its latest line while it goes on, all of it when it fails."""
    if code:
        screen.note(textwrap.indent(words, "    "))
    elif goes_on:
        screen.status(words.splitlines()[-1])
        screen.detail(textwrap.indent(words, "    "))


def _end(code: int) -> str:
    """How a script failed, by its exit code; Run Command has -1 where there is none."""
    if code == KILLED:
        return f"was killed (exit code {code}), most likely because the box's memory was full"
    if code < 0:
        return "did not run to its end"
    return f"failed with exit code {code}"


def rehearse(plan: Plan) -> str:
    """What performing the plan would ask and run, as text; nothing is touched."""
    return "\n".join(_intent(part) if isinstance(part, Call) else _script(part) for part in plan)


def outline(plan: Plan) -> str:
    """The same in a line for each part."""
    return "\n".join(f"  {part.intent}" if isinstance(part, Call) else f"  {part.script}.sh on the box: {part.intent}" for part in plan)


def _intent(call: Call) -> str:
    shown = {
        key: value for key, value in call.inputs.items() if isinstance(value, str | int | bool | Reference | Latest | Path) or value is None
    }
    words = "  ".join(f"{key}={value}" for key, value in _short(shown).items())
    return f"call   {call.intent}" + (f"  [{words}]" if words else "")


def _short(inputs: dict[str, Any]) -> dict[str, Any]:
    """A long value is a script of ours that travels as a setting: its own text is in remote/scripts."""
    return {key: value if len(str(value)) < 200 else f"<{len(value)} characters>" for key, value in inputs.items()}


def _script(step: Step) -> str:
    above = "".join(f". {name}.sh\n" for name in ("lib", *script.ABOVE.get(step.script, ())))
    text = script.settings_block(_short(step.inputs)) + above + script.body(step.script)
    return f"script {step.script}.sh, at most {step.timeout} s\n" + "\n".join(f"  | {line}" for line in text.splitlines())
