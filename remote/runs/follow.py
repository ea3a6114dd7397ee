"""Watching a run from afar: its log without a gap, its progress, its end."""

import codecs
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from conf.problem import Problem, of_reason
from conf.process.screen import screen
from remote.aws import instance
from remote.aws.s3 import Store
from remote.aws.session import Aws, Retry
from remote.runs import manifest, runs
from remote.runs.progress import ENDED, SILENT_AFTER, Progress

PAUSE = 1.0  # seconds between two looks
CHUNK = re.compile("[0-9]{12}")  # named by the offset of its first byte


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


class LogReader:
    """A run's log, of which each piece is given out once, as it comes."""

    def __init__(self, offset: int = 0):
        self.offset = offset  # bytes
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # a chunk may end within a letter

    def new(self, store: Store, run_id: str) -> Iterator[str]:
        for chunk in log(store, run_id, self.offset):
            self.offset += len(chunk)
            yield self.decoder.decode(chunk)


def attach(aws: Aws, run_id: str, box_name: str, per_hour: float | None, limit: float | None = None, with_log: bool = False) -> Done:
    """Follow the run until it ends; Ctrl-C leaves it going.

    `per_hour` and `limit` are USD; `with_log`: its log from now on as well.
    """
    progress, lines = Progress(per_hour, limit), Lines(Store(aws), run_id) if with_log else None

    def show(store: Store, current: runs.State) -> None:
        progress.update(current, lambda: store.get(f"runs/{run_id}/events.jsonl") or b"")
        if lines:
            lines.show(store)

    try:
        current = watch(aws, run_id, lambda: check_box(aws, run_id, box_name), f"{run_id} goes on", show)
    except KeyboardInterrupt:
        words = f"stopped watching; {run_id} goes on. `inv train` or `inv logs --follow` attaches again, `inv down` stops the box"
        raise KeyboardInterrupt(words) from None
    return outcome(Store(aws), current)


def watch(aws: Aws, run_id: str, check: Callable[[], None], goes_on: str, show: Callable[[Store, runs.State], None]) -> runs.State:
    """The run's state when it has ended; until then `show` is given each. `check` is a Problem where nobody is left who could end the run.

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
                check()
            time.sleep(PAUSE)
        except (ClientError, BotoCoreError) as error:
            retry.wait(error)


def outcome(store: Store, current: runs.State) -> Done:
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


class Lines:
    """The whole lines that a run's log gets from now on."""

    def __init__(self, store: Store, run_id: str):
        self.run_id, self.begun = run_id, ""
        self.reader = LogReader(sum(chunks(store, run_id)[-1]) if chunks(store, run_id) else 0)

    def show(self, store: Store) -> None:
        for text in self.reader.new(store, self.run_id):
            *whole, self.begun = (self.begun + text).split("\n")
            for line in whole:
                screen.relay(line)
