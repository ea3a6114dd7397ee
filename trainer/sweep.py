"""A sweep on this machine: a run for each combination of values, one after the other, each in a process of its own.

    python -m trainer -m run_id=rank lora.r=8,16,32         the runs rank.0, rank.1 and rank.2

A run's process has no memory of the one before. One that fails is told and left; the next begins. Started again under the same
name the sweep leaves finished runs alone and goes on with the others, and a larger grid adds to it. Hydra's sweeper makes the
combinations; this is its launcher.
"""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from conf import load
from conf.problem import Problem
from conf.schema import Recipe
from trainer import files, leaderboard
from trainer.record import Record, new_id, sealed, settings

TRAINER = (sys.executable, "-m", "trainer")  # what trains a job
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class OneByOne(Launcher):
    """Hydra's way to a sweep's jobs."""

    __module__ = "hydra_plugins.one_by_one"

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.compose = lambda words: load.recipe(hydra_context.config_loader.load_sweep_config(config, list(words)))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        try:
            jobs = place([self.compose(words) for words in job_overrides], apart(job_overrides))
            scores = Sweep(jobs).run()
        except Problem as problem:
            print(f"error: {problem}", file=sys.stderr, flush=True)
            sys.exit(130 if problem.reason == "killed" else 1)
        done = zip(job_overrides, jobs, strict=True)
        return [JobReturn(list(words), status=JobStatus.COMPLETED, _return_value=scores[job.name]) for words, job in done]


def register() -> None:
    """Let `-m` know the launcher: conf/hydra/launcher/one_by_one.yaml names it."""
    Plugins.instance().register(OneByOne)
    # Hydra makes plugins only of a package that is called hydra_plugins, and finds them by that name.
    sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins")).one_by_one = sys.modules[__name__]


@dataclass
class Job:
    settings: Recipe
    words: str  # what sets it apart from the others
    folder: Path
    problem: Problem | None = None

    @property
    def name(self) -> str:
        return self.folder.name


def apart(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Of each job's overrides those that not all of them have."""
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [" ".join(word.lstrip("+") for word in words if word not in common and not word.startswith("run_id=")) for words in jobs]


def place(recipes: list[Recipe], words: list[str]) -> list[Job]:
    """Each job with its run's folder: where an earlier start of this sweep has made it, or the next number."""
    name, runs = recipes[0].run_id or new_id(recipes[0].name), Path(recipes[0].runs).resolve()
    if not NAME.fullmatch(name):
        raise Problem(f"a sweep cannot be called {name!r}", "use letters, digits, '-', '_' and '.': `run_id=NAME`")
    there = sorted((int(path.suffix[1:]), path) for path in runs.glob(f"{name}.*") if path.suffix[1:].isdigit() and path.stem == name)
    made = {path: settings(path) for _, path in there if (path / "config.yaml").exists()}
    free = 1 + max((number for number, _ in there), default=-1)
    jobs: list[Job] = []
    for recipe, own in zip(recipes, words, strict=True):
        folder = next((path for path, before in made.items() if load.fingerprint(before) == load.fingerprint(recipe)), None)
        if folder is None:
            folder, free = runs / f"{name}.{free}", free + 1
            recipe.run_id = folder.name
        else:
            del made[folder]
        if any(load.fingerprint(job.settings) == load.fingerprint(recipe) for job in jobs):
            hint = "give each value once, of settings that the training depends on"
            raise Problem(f"two of the combinations are one run{own and f': {own}'}", hint)
        jobs.append(Job(recipe, own, folder))
    return jobs


class Sweep:
    """The jobs on their way, and the process of the one that runs; a stop from outside goes on to it."""

    def __init__(self, jobs: list[Job]):
        self.jobs, self.name = jobs, jobs[0].folder.stem
        self.child: subprocess.Popen | None = None
        self.stopped = False

    def run(self) -> dict[str, float]:
        """Train all that is not finished, show who is best; the scores by run, or a Problem that names what failed."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            hint = "start it without `accelerate launch`: `python -m trainer -m ...`"
            raise Problem("a sweep starts its own processes, one after the other", hint, "refused")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)
        for number, job in enumerate(self.jobs, start=1):
            self._one(job, f"job {number} of {len(self.jobs)}: {job.name} ({job.words})")
        entries = self._rank()
        if failed := [job for job in self.jobs if job.problem]:
            told = "\n".join(f"  {job.name} ({job.words}): {job.problem.what}" for job in failed)
            hint = f"{failed[0].problem.hint}; {self._again} tries again what is not finished"
            raise Problem(f"{len(failed)} of {len(self.jobs)} jobs failed:\n{told}", hint, "crashed")
        return {entry.run_id: entry.score for entry in entries}

    @property
    def _again(self) -> str:
        given = [word for word in sys.argv[1:] if not word.startswith("run_id=")]
        return f"`{shlex.join(['python', '-m', 'trainer', *given, f'run_id={self.name}'])}`"

    def _one(self, job: Job, title: str) -> None:
        if sealed(job.folder):
            print(f"{title} is finished: not trained again", flush=True)
            return
        begun = time.monotonic()
        print(f"{title} begins; its words: {job.folder / 'log.txt'}", flush=True)
        code = self._train(job)
        if code == 0 and sealed(job.folder):
            Record(job.folder).phase("done")
            print(f"  finished in {time.monotonic() - begun:.0f} s", flush=True)
        if self.stopped:
            done = sum(sealed(job.folder) for job in self.jobs)
            what = f"the sweep was stopped at {job.name}, with {done} of {len(self.jobs)} jobs finished"
            raise Problem(what, f"go on: {self._again}", "killed")
        if not sealed(job.folder):
            job.problem = _said(job.folder, code)
            print(f"  failed ({job.problem.reason}): {job.problem.what}", flush=True)

    def _train(self, job: Job) -> int:
        """The exit code of a process that trains in the job's folder; the folder is held as long as that lives."""
        job.folder.mkdir(parents=True, exist_ok=True)
        if not (job.folder / "config.yaml").exists():
            files.write(job.folder / "config.yaml", load.dump(job.settings))
        held = os.open(job.folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (job.folder / "state.json").unlink(missing_ok=True)  # what an earlier attempt says must not be taken for this one's words
            words = [*TRAINER, "--config-dir", str(job.folder), "--config-name", "config"]
            # In a group of its own: Ctrl-C comes to this process alone, which passes it on once.
            self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=(held,), process_group=0)
            if self.stopped:
                self.child.terminate()
            return self.child.wait()
        except BlockingIOError:
            raise Problem(f"{job.name} is being trained by another process", f"`tail -f {job.folder / 'log.txt'}`", "refused") from None
        finally:
            os.close(held)
            self.child = None

    def _hear(self, _number: int, _frame) -> None:
        """The first stop lets the job save where it is, the next one does not wait for that."""
        again, self.stopped = self.stopped, True
        if self.child:
            self.child.send_signal(signal.SIGINT if again else signal.SIGTERM)

    def _rank(self) -> list[leaderboard.Entry]:
        finished = {job.folder: job.words for job in self.jobs if sealed(job.folder)}
        if not finished:
            return []
        entries = leaderboard.ranked(finished)
        kept = self.jobs[0].folder.with_name(f"{self.name}.csv")
        files.write(kept, leaderboard.spreadsheet(entries))
        print(f"{leaderboard.text(entries)}\nkept in {kept}", flush=True)
        return entries


def _said(folder: Path, code: int) -> Problem:
    """Why the job's process has ended, as the run says itself."""
    state = folder / "state.json"
    said = json.loads(state.read_text()) if state.exists() else {}
    if said.get("reason"):
        return Problem(said["evidence"], said["hint"], said["reason"])
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Problem(
        f"its process ended with {how}", f"`tail {folder / 'log.txt'}` shows its last words", "killed" if code < 0 else "crashed"
    )
