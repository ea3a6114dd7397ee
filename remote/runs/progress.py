"""Where a run stands, told by its state and its events: in one line, and on a terminal in a few more."""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from conf.process.screen import screen
from conf.text import visible
from conf.text.sparkline import sparkline
from remote.runs import runs

EVENTS_EVERY = 10.0  # seconds between two looks at its events: the box ships them as often
SILENT_AFTER = timedelta(minutes=2)  # no sign of life for so long: ask whether the box still runs
ENDED = {"done", "failed", "cancelled", "lost"}
CURVE = 40  # columns of a curve


class Progress:
    """What is shown of a run while it is followed; its events are fetched as often as there may be new ones."""

    def __init__(self, per_hour: float | None, limit: float | None):
        self.per_hour, self.limit = per_hour, limit  # USD
        self.events: list[dict] = []
        self.phase, self.fetched = "", 0.0

    def update(self, current: runs.State, events: Callable[[], bytes]) -> None:
        now = time.monotonic()
        if current.phase != self.phase or now - self.fetched >= EVENTS_EVERY:
            self.events, self.phase, self.fetched = complete_events(events()), current.phase, now
        spent = None if self.per_hour is None else self.per_hour * seconds_worked(self.events) / 3600
        cost = "" if spent is None else f"  ${spent:.2f} so far"
        line = f"{progress_line(current.phase, self.events)}{cost}{silence_warning(current)}"
        below = curves(self.events)
        if spent is not None and self.limit is not None:
            below.append(f"cost      ${spent:.2f} of at most ${self.limit:.2f}")
        screen.status(line, *share_done(current.phase, self.events), below=below)


def complete_events(events: bytes) -> list[dict]:
    """The events that came whole: the last line may be cut, and so may be one at which an earlier attempt was killed."""
    parsed = []
    for line in events[: events.rfind(b"\n") + 1].splitlines():
        try:
            parsed.append(visible.values(json.loads(line)))
        except (ValueError, RecursionError):
            continue
    return [event for event in parsed if isinstance(event, dict) and "event" in event]


def silence_warning(current: runs.State) -> str:
    """A warning for a run that has shown no sign of life for minutes, though its box runs."""
    if current.phase in ENDED or current.age <= SILENT_AFTER:
        return ""
    minutes = current.age.total_seconds() // 60
    since = "at all" if current.age == timedelta.max else f"for {minutes:.0f} min" if minutes < 120 else f"for {minutes // 60:.0f} h"
    return f"; no sign of life {since}: `inv status` shows the box, `inv down --force` ends it"


def seconds_worked(events: list[dict]) -> float:
    """How long a run's attempts have worked, by its events: what lies between two attempts is not counted."""
    worked, before = 0.0, None
    for event in events:
        try:
            at = datetime.fromisoformat(event["time"])
            begins = event["event"] == "phase" and event["phase"] == "running"
            worked += 0.0 if before is None or begins else max(0.0, (at - before).total_seconds())
        except runs.BROKEN:  # it may be anybody's
            continue
        before = at
    return worked


def share_done(phase: str, events: list[dict]) -> tuple[int, int]:
    """How much of its steps, or of its rows to score, a run has done, and how many there are; of 0 where that is not known."""
    latest = _latest(phase, events)
    names = ("step", "steps") if latest and latest["event"] == "step" else ("done", "of")
    done, of = ((latest or {}).get(name) for name in names)
    return (done, of) if isinstance(done, int) and isinstance(of, int) and 0 <= done <= of else (0, 0)


def _latest(phase: str, events: list[dict]) -> dict | None:
    if phase in ("created", "starting", "uploading", "done"):
        return None
    return next((event for event in reversed(events) if event["event"] in ("step", "progress")), None)


def progress_line(phase: str, events: list[dict]) -> str:
    """Where a run stands, in one line."""
    latest = _latest(phase, events)
    if latest is None:
        return phase
    try:
        if latest["event"] == "progress":
            return f"{phase}: {latest['what']} {latest['done']}/{latest['of']}"
        loss = "-" if latest.get("loss") is None else f"{latest['loss']:.3f}"
        minutes, seconds = divmod(int(latest.get("eta") or 0), 60)
        pace = f"{latest.get('tok_s') or 0:.0f} tokens/s"
        return f"{phase}: step {latest['step']}/{latest['steps']}  loss {loss}  {pace}  {minutes}:{seconds:02d} left"
    except runs.BROKEN:
        return f"{phase}: its newest event is none that a trainer writes"


def curves(events: list[dict]) -> list[str]:
    """A line for each figure that a run has written more than once, with its course, and one for its memory."""
    try:
        steps = [event for event in events if event["event"] == "step"]
        lines = [
            _curve("loss", [event.get("loss") for event in steps], "{:.3f}"),
            _curve("held out", [event.get("loss") for event in events if event["event"] == "eval"], "{:.3f}"),
            _curve("macro-F1", [event.get("macro_f1") for event in events if event["event"] == "score"], "{:.3f}"),
            _curve("speed", [event.get("tok_s") for event in steps], "{:.0f}", " tokens/s"),
        ]
        memory = f"memory    {steps[-1]['mem'] / 1e9:.1f} GB at most" if steps and steps[-1].get("mem") else ""
    except runs.BROKEN:  # they may be anybody's
        return []
    return [line for line in (*lines, memory) if line]


def _curve(name: str, values: list[float | None], form: str, unit: str = "") -> str:
    numbers = [value for value in values if value is not None]
    if len(numbers) < 2:
        return ""
    return f"{name:<10}{form.format(numbers[0])} {sparkline(numbers, CURVE)} {form.format(numbers[-1])}{unit}"
