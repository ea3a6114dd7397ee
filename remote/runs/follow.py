"""Watching a run from afar: its log without a gap, its progress on one line, its end."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from conf.problem import Problem, of_reason
from conf.process.screen import screen
from conf.text import visible
from remote.aws import instance
from remote.aws.s3 import Store
from remote.aws.session import Aws, Retry
from remote.runs import manifest, runs

PAUSE = 1.0  # seconds between two looks
EVENTS_EVERY = 10.0  # seconds between two looks at its events: the box ships them as often
SILENT_AFTER = timedelta(minutes=2)  # no sign of life for so long: ask whether the box still runs
CHUNK = re.compile("[0-9]{12}")  # named by the offset of its first byte
ENDED = {"done", "failed", "cancelled", "lost"}


def chunks(store: Store, run_id: str) -> list[tuple[int, int]]:
    """The offsets and lengths of the pieces that the log is in."""
    place = f"runs/{run_id}/log/"
    pieces = [(name.removeprefix(place), length) for name, length in store.names(place).items()]
    return sorted((int(start), length) for start, length in pieces if CHUNK.fullmatch(start))


def log(store: Store, run_id: str, offset: int = 0) -> Iterator[bytes]:
    """The run's log from byte `offset` to what is there now, in order, each byte once."""
    for start, length in chunks(store, run_id):
        if start + length > offset and start <= offset:
            body = store.get(f"runs/{run_id}/log/{start:012d}") or b""
            yield body[offset - start :]
            offset = start + len(body)


def tail(store: Store, run_id: str, lines: int) -> int:
    """The offset at which the log's last `lines` lines begin; only as many chunks are fetched as hold them."""
    content = b""
    for start, _ in reversed(chunks(store, run_id)):
        content = (store.get(f"runs/{run_id}/log/{start:012d}") or b"") + content
        ends = [place for place, byte in enumerate(content[:-1]) if byte == ord("\n")]
        if len(ends) >= lines:
            return start + ends[-lines] + 1
    return 0


@dataclass(frozen=True)
class Done:
    run_id: str


def attach(aws: Aws, run_id: str, box_name: str, per_hour: float | None) -> Done:
    """Follow the run until it ends; Ctrl-C leaves it going."""
    progress = _Progress(per_hour)

    def show(store: Store, current: runs.State) -> None:
        progress.update(current, lambda: store.get(f"runs/{run_id}/events.jsonl") or b"")

    try:
        current = watch(aws, run_id, box_name, f"{run_id} goes on", show)
    except KeyboardInterrupt:
        words = f"stopped watching; {run_id} goes on. `inv train` or `inv logs --follow` attaches again, `inv down` stops the box"
        raise KeyboardInterrupt(words) from None
    return _outcome(Store(aws), current)


def watch(aws: Aws, run_id: str, box_name: str, goes_on: str, show: Callable[[Store, runs.State], None]) -> runs.State:
    """The run's state when it has ended; until then `show` is given each. A Problem where nobody is left who could end the run.

    What waiting or a login mends is waited for: `goes_on` says what is not harmed meanwhile.
    """
    retry = Retry(aws, goes_on)
    while True:
        try:
            store = Store(aws)
            current = runs.state(store, run_id)
            show(store, current)
            if current.phase in ENDED:
                return current
            if current.age > SILENT_AFTER:
                check_box(aws, run_id, box_name)
            time.sleep(PAUSE)
        except (ClientError, BotoCoreError) as error:
            retry.wait(error)


def _outcome(store: Store, current: runs.State) -> Done:
    if current.phase != "done":
        what = f"{current.run_id} {current.phase}" + (f" ({current.reason}): {current.evidence}" if current.reason else "")
        raise of_reason(what, current.hint or "`inv logs` shows what it printed", current.reason)
    if manifest.read(store, current.run_id) is None:
        raise Problem(f"{current.run_id} is done, and S3 has no manifest of it", "`inv train` delivers it again", reason="damaged_run")
    return Done(current.run_id)


def check_box(aws: Aws, run_id: str, box_name: str) -> None:
    """Nothing, or a Problem where nobody is left who could end the run."""
    box = instance.find(aws, box_name)
    if box is None or box.state in ("stopped", "stopping"):
        raise Problem(
            f"the box is {box.state if box else 'gone'} and {run_id} is not finished",
            "`inv up deploy train` goes on from its newest checkpoint",
            reason="unreachable",
        )


class _Progress:
    """Where a run stands, as its state and its events tell; the latter are fetched as often as there may be new ones."""

    def __init__(self, per_hour: float | None):
        self.per_hour = per_hour
        self.events: list[dict] = []
        self.phase, self.fetched = "", 0.0

    def update(self, current: runs.State, events: Callable[[], bytes]) -> None:
        now = time.monotonic()
        if current.phase != self.phase or now - self.fetched >= EVENTS_EVERY:
            self.events, self.phase, self.fetched = complete_events(events()), current.phase, now
        cost = "" if self.per_hour is None else f"  ${self.per_hour * seconds_worked(self.events) / 3600:.2f} so far"
        line = f"{progress_line(current.phase, self.events)}{cost}{silence_warning(current)}"
        screen.status(line, *share_done(current.phase, self.events))


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
