"""Curves of runs, live, in TensorBoard on 127.0.0.1: made from the events in S3, so the box may be off."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import runs

ROOT = Path(__file__).parents[2]
NEWEST = 10  # runs that are shown when none is named
EVERY = 10  # seconds between two looks: the box ships its events as often


def show(aws: Aws, run: schema.Run, run_id: str | None, port: int) -> None:
    """Serve the curves of one run, or of the newest ones, until Ctrl-C; runs that go on grow while one looks."""
    if find_spec("tensorboard") is None:
        raise Problem("TensorBoard is not installed here", "`pip install tensorboard`", reason="refused")
    store = Store(aws)
    chosen = [] if run_id else runs.with_settings(runs.listing(store))[-NEWEST:]
    chosen = chosen or [runs.find_newest(aws, run, run_id)]
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        curves = [stack.enter_context(closing(Curves(Path(place) / name, store, name))) for name in chosen]
        _refresh(curves)
        words = ["--logdir", place, "--host", "127.0.0.1", "--port", str(port), "--reload_interval", str(EVERY)]
        if not Path("/proc/net/tcp").exists():
            screen.note("other users of this machine can read it, too: this system does not say whose a connection is")
        board = subprocess.Popen([sys.executable, "-m", "remote.view.tensorboard_server", *words], cwd=ROOT)
        try:
            while not _ended(board):
                _refresh(curves)
        finally:
            board.terminate()
            board.wait()
    if board.returncode > 0:
        raise Problem(
            f"TensorBoard ended with exit code {board.returncode}", "its own words are above; another port: `--port 6007`", "crashed"
        )


class Curves:
    """One run's events as TensorBoard reads them."""

    def __init__(self, folder: Path, store: Store, run_id: str):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(folder))
        self.name, self.store = f"runs/{run_id}/events.jsonl", store
        self.read, self.step = 0, 0

    def refresh(self) -> None:
        """Take over the whole lines that are new in S3."""
        body = (self.store.get(self.name) or b"")[self.read :]
        whole = body[: body.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.split(b"\n"):
            if line:
                with runs.skip_unreadable(f"a line of {self.name}"):
                    self._add(json.loads(line))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def _add(self, event: dict) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if "step" not in event:
            return
        clock, step = datetime.fromisoformat(event["time"]).timestamp(), event["step"]
        if step < self.step:  # a later attempt does these steps again: TensorBoard forgets what came after
            self.writer.add_event(Event(wall_time=clock, step=step, session_log=SessionLog(status=SessionLog.START)))
        self.step = step
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _numbers(event["event"], event)]
        self.writer.add_event(Event(wall_time=clock, step=step, summary=Summary(value=values)))


def _numbers(path: str, values: dict) -> Iterator[tuple[str, float]]:
    """Every number of an event, under its path: step/loss, eval/fields/stage."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{path}/{name}", value)
        elif isinstance(value, (int, float)) and name not in ("step", "steps"):
            yield f"{path}/{name}", float(value)


def _ended(board: subprocess.Popen) -> bool:
    """Whether TensorBoard ends within a while."""
    try:
        board.wait(EVERY)
    except subprocess.TimeoutExpired:
        return False
    return True


def _refresh(curves: list[Curves]) -> None:
    for each in curves:
        each.refresh()
