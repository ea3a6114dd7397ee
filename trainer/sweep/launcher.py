"""Where a sweep of this machine trains: each job in a process of its own, which has no memory of the one before."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conf import load, run_ids
from conf.problem import RUN_REASONS, Problem
from conf.schema import Recipe
from conf.sweep.job import Job, SweepRun, SweepRuns
from conf.sweep.sweep import Launcher
from conf.text.quoting import without_secrets
from trainer import files
from trainer.record import leaderboard
from trainer.record.record import Record, sealed, settings

TRAINER = (sys.executable, "-m", "trainer")  # what trains a job


class ProcessLauncher(Launcher[Recipe]):
    """The process of the job that runs; a stop from outside goes on to it."""

    def __init__(self, folder: Path):
        """`folder` is that of the run folders. It takes stops from here on."""
        self.folder = folder
        self.child: subprocess.Popen | None = None
        self.stopped = False
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            hint = "start it without another launcher: `python -m trainer -m ...`"
            raise Problem("a sweep starts its own processes, one after the other", hint, "refused")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def runs(self, name: str | None) -> SweepRuns:
        numbers = {run_ids.number(path.name): path for path in self.folder.glob(f"{name}.*") if run_ids.sweep_of(path.name) == name}
        return {path.name: _run(path) for _, path in sorted(numbers.items())}

    def train(self, job: Job[Recipe], again: str) -> None:
        """Train it in a process; a Problem where the sweep was stopped, or another process trains the job."""
        folder, begun = self.folder / job.run_id, time.monotonic()
        print(f"  its log is {folder / 'log.txt'}", flush=True)
        code = self._process(job, folder)
        job.finished = sealed(folder)
        if code == 0 and job.finished:
            Record(folder).phase("done")
            print(f"  finished in {time.monotonic() - begun:.0f} s", flush=True)
        if self.stopped:
            raise Problem(f"the sweep was stopped at {job.run_id}", f"go on: {again}", "killed")
        if not job.finished:
            job.problem = _failure(folder) or _unexplained(folder, code)
            print(f"  failed ({job.problem.reason}): {job.problem.what}", flush=True)

    def _process(self, job: Job[Recipe], folder: Path) -> int:
        """The exit code of a process that trains in the job's folder; the folder is locked as long as that lives."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.yaml").exists():
            files.write(folder / "config.yaml", load.dump(job.settings))
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "state.json").unlink(missing_ok=True)  # what an earlier attempt says must not be taken for this one's words
            # In a group of its own: Ctrl-C comes to this process alone, which passes it on once.
            command = [*TRAINER, "run", str(folder)]
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(lock,), process_group=0)
            if self.stopped:
                self.child.terminate()
            return self.child.wait()
        except BlockingIOError:
            raise Problem(f"{job.run_id} is being trained by another process", f"`tail -f {_log(folder)}`", "refused") from None
        finally:
            os.close(lock)
            self.child = None

    def _stop(self, _number: int, _frame) -> None:
        """The first stop lets the job save where it is, the next one does not wait for that."""
        again, self.stopped = self.stopped, True
        if self.child:
            self.child.send_signal(signal.SIGINT if again else signal.SIGTERM)

    def score(self, job: Job[Recipe]) -> float:
        return leaderboard.score(self.folder / job.run_id)

    def rank(self, jobs: Sequence[Job[Recipe]]) -> None:
        """Print the leaderboard, and write it as CSV beside the runs."""
        if jobs:
            entries = leaderboard.ranked({self.folder / job.run_id: job.words for job in jobs})
            table = self.folder / f"{run_ids.sweep_of(jobs[0].run_id)}.csv"
            files.write(table, leaderboard.spreadsheet(entries))
            print(f"{leaderboard.text(entries)}\nthe table is {table}", flush=True)

    def command(self, name: str) -> str:
        words = [word for word in sys.argv[1:] if not word.startswith("run_id=")]
        return f"python -m trainer {without_secrets([*words, f'run_id={name}'])}"


def _run(folder: Path) -> SweepRun | None:
    """The run of this folder; None where it has no settings yet."""
    if not (folder / "config.yaml").exists():
        return None
    problem = None if sealed(folder) else _failure(folder)
    return SweepRun(settings(folder), sealed(folder), problem=problem if problem and problem.reason in RUN_REASONS else None)


def _failure(folder: Path) -> Problem | None:
    """Why the run failed, as it says itself; None where it says nothing of the kind."""
    path = folder / "state.json"
    state = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Problem(state["evidence"], state["hint"], state["reason"]) if state.get("reason") else None


def _unexplained(folder: Path, code: int) -> Problem:
    """What is known of a process that ended without a word: it counts as ended from outside."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Problem(f"its process ended with {how}", f"`tail {_log(folder)}` shows its last words", "killed")


def _log(folder: Path) -> str:
    return shlex.quote(str(folder / "log.txt"))
