"""A sweep on this machine: a run for each combination of values, one after the other, each in a process of its own.

    python -m trainer -m run_id=rank lora.r=8,16,32         the runs rank.0, rank.1 and rank.2

A run's process has no memory of the one before. One that fails is told and left; the next begins. Started again under the same
name the sweep leaves finished runs alone and goes on with the others, and a larger grid adds to it. Hydra's sweeper makes the
combinations; this is its launcher. Values that are drawn: trainer/sweep/search.py.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NoReturn

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.types import HydraContext
from omegaconf import DictConfig

from conf import load
from conf.problem import Problem
from conf.schema import Recipe
from trainer import files
from trainer.record import leaderboard
from trainer.record.record import Record, new_id, sealed, settings

TRAINER = (sys.executable, "-m", "trainer")  # what trains a job
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class OneByOne(Launcher):
    """Hydra's way to a sweep's jobs."""

    __module__ = "hydra_plugins.one_by_one"

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.compose = composer(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        try:
            jobs = place([self.compose(words) for words in job_overrides], apart(job_overrides))
            scores = Sweep(jobs, jobs[0].folder.stem).run()
        except Problem as problem:
            ended(problem)
        done = zip(job_overrides, jobs, strict=True)
        return [JobReturn(list(words), status=JobStatus.COMPLETED, _return_value=scores[job.name]) for words, job in done]


def composer(hydra_context: HydraContext, config: DictConfig) -> Callable[[Sequence[str]], Recipe]:
    """What makes a job's words its checked settings."""
    return lambda words: load.recipe(hydra_context.config_loader.load_sweep_config(config, list(words)))


def ended(problem: Problem) -> NoReturn:
    """Leave with the sentence."""
    print(f"error: {problem}", file=sys.stderr, flush=True)
    sys.exit(130 if problem.reason == "killed" else 1)


def register(plugin: type[Plugin]) -> None:
    """Let `-m` know a plugin: a file below conf/hydra names it."""
    Plugins.instance().register(plugin)
    # Hydra makes plugins only of a package that is called hydra_plugins, and finds them by that name.
    package = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    setattr(package, plugin.__module__.partition(".")[2], SimpleNamespace(**{plugin.__name__: plugin}))


@dataclass
class Job:
    settings: Recipe
    words: str  # what sets it apart from the others
    folder: Path
    problem: Problem | None = None

    @property
    def name(self) -> str:
        return self.folder.name


def apart(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each job's overrides those that not all of them have."""
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [[word for word in words if word not in common and not word.startswith("run_id=")] for words in jobs]


def shown(words: Sequence[str]) -> str:
    return " ".join(word.lstrip("+") for word in words)


def named(recipe: Recipe) -> str:
    """The sweep's name: the one that is given, or a new one."""
    name = recipe.run_id or new_id(recipe.name)
    if not NAME.fullmatch(name):
        raise Problem(f"a sweep cannot be called {name!r}", "use letters, digits, '-', '_' and '.': `run_id=NAME`")
    return name


def standing(runs: Path, name: str) -> list[tuple[int, Path]]:
    """The folders of the sweep's runs that are there, by their numbers."""
    return sorted((int(path.suffix[1:]), path) for path in runs.glob(f"{name}.*") if path.suffix[1:].isdigit() and path.stem == name)


def place(recipes: list[Recipe], swept: list[list[str]]) -> list[Job]:
    """Each job with its run's folder: where an earlier start of this sweep has made it, or the next number."""
    name, runs = named(recipes[0]), Path(recipes[0].runs).resolve()
    there = standing(runs, name)
    made = {path: settings(path) for _, path in there if (path / "config.yaml").exists()}
    free = 1 + max((number for number, _ in there), default=-1)
    jobs: list[Job] = []
    for recipe, words in zip(recipes, swept, strict=True):
        recipe.provenance.swept, own = words, shown(words)
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

    def __init__(self, jobs: list[Job], name: str):
        self.jobs, self.name = jobs, name
        self.child: subprocess.Popen | None = None
        self.stopped = False

    def run(self) -> dict[str, float]:
        """Train all that is not finished, show who is best; the scores by run, or a Problem that names what failed."""
        self._listen()
        for number, job in enumerate(self.jobs, start=1):
            self._one(job, f"job {number} of {len(self.jobs)}: {job.name} ({job.words})")
        entries = self._rank()
        if failed := [job for job in self.jobs if job.problem]:
            hint = f"{failed[0].problem.hint}; {self._again} tries again what is not finished"
            raise Problem(f"{len(failed)} of {len(self.jobs)} jobs failed:\n{each(failed)}", hint, "crashed")
        return {entry.run_id: entry.score for entry in entries}

    def _listen(self) -> None:
        """Take stops from here on."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            hint = "start it without `accelerate launch`: `python -m trainer -m ...`"
            raise Problem("a sweep starts its own processes, one after the other", hint, "refused")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    @property
    def _again(self) -> str:
        given = [word for word in sys.argv[1:] if not word.startswith("run_id=")]
        return f"`{shlex.join(['python', '-m', 'trainer', *given, f'run_id={self.name}'])}`"

    def _so_far(self) -> str:
        return f"{sum(sealed(job.folder) for job in self.jobs)} of {len(self.jobs)} jobs are finished"

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
            what = f"the sweep was stopped at {job.name}; {self._so_far()}"
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
            words = [*TRAINER, "run", str(job.folder)]
            # In a group of its own: Ctrl-C comes to this process alone, which passes it on once.
            self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=(held,), process_group=0)
            if self.stopped:
                self.child.terminate()
            return self.child.wait()
        except BlockingIOError:
            raise Problem(f"{job.name} is being trained by another process", f"`tail -f {_log(job.folder)}`", "refused") from None
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


def each(failed: list[Job]) -> str:
    """What went wrong, a line for each job."""
    return "\n".join(f"  {job.name} ({job.words}): {job.problem.what}" for job in failed)


def told(folder: Path) -> Problem | None:
    """Why the run ended, as it says itself; None where it says nothing of the kind."""
    state = folder / "state.json"
    said = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    return Problem(said["evidence"], said["hint"], said["reason"]) if said.get("reason") else None


def _log(folder: Path) -> str:
    return shlex.quote(str(folder / "log.txt"))


def _said(folder: Path, code: int) -> Problem:
    """Why the job's process has ended, as the run says itself or else its process."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = f"`tail {_log(folder)}` shows its last words"
    return told(folder) or Problem(f"its process ended with {how}", hint, "killed" if code < 0 else "crashed")
