"""A sweep: a run for each combination of values, one after the other on one box, and who is best.

Each job is the ordinary `train` plan. Nothing is remembered here: its runs in S3 are called <sweep>.<number>, and a job's run is
found by its settings, so that the same command goes on where the last one ended.
"""

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conf import grid, load, schema
from conf.problem import OWN, Problem
from conf.process import argv
from conf.process.screen import screen
from remote.aws import pricing
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.plan import verbs
from remote.plan.perform import Outcome, perform
from remote.runs import audit, runs

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
SWEPT = re.compile(r"(.+)\.(\d+)")
Rank = Callable[[dict[Path, str]], tuple[str, str]]
RANKED = ("config.yaml", "metrics.json", "predictions.jsonl")  # of a run, what the leaderboard reads


@dataclass
class Job:
    words: str  # what sets it apart
    run: schema.Run
    run_id: str = ""
    finished: bool = False
    needs: verbs.Needs | None = None  # as they were before anything was paid for
    problem: Problem | None = None

    def take(self, run_id: str, made: "Made") -> None:
        """Be the run that is there already."""
        self.run_id = self.run.run_id = run_id
        self.run.train.gradient_checkpointing = made.config.train.gradient_checkpointing  # as it was decided then
        self.finished = made.state is None


@dataclass(frozen=True)
class Made:
    """A sweep's run that is there."""

    config: schema.Run
    state: runs.State | None  # None: it is sealed

    @property
    def phase(self) -> str:
        return self.state.phase if self.state else "done"

    def of_settings(self, run: schema.Run) -> bool:
        return load.fingerprint(self.config) == load.fingerprint(run)


def jobs(words: list[str], settings: Callable[[list[str]], schema.Run]) -> list[Job]:
    """The combinations that the words ask for, each with its checked settings; two are never the same run."""
    made: dict[str, Job] = {}
    for every, own in grid.combinations(words):
        job = job_of(own, settings(every))
        before = made.setdefault(load.fingerprint(job.run), job)
        if before is not job:
            what = f"`{before.words}` and `{job.words}` are the same run"
            raise Problem(what, "give each value once, of settings that the training depends on")
    return list(made.values())


def job_of(own: list[str], run: schema.Run) -> Job:
    """The job of these settings, of which the run itself says what sets it apart."""
    run.provenance.swept = own
    return Job(" ".join(own), run)


def rehearsal(jobs: list[Job]) -> str:
    """What a sweep would do, in words."""
    each = "\n".join(
        f"call   Train, or find finished, job {number} of {len(jobs)}: {job.words}" for number, job in enumerate(jobs, start=1)
    )
    return f"# sweep\n{each}\ncall   Rank the finished runs by their scores\n# each job, as `inv train` does it"


def go(aws: Aws, jobs: list[Job], name: str | None, root: Path, check: verbs.Check, rank: Rank) -> None:
    """Train what is not finished, job by job; print the leaderboard. A Problem at the end names the jobs that failed.

    `rank` of run folders and what sets each apart answers a text and the best run.
    """
    store = Store(aws)
    store.check_bucket()
    again = f"`{command(name := place(aws, store, jobs, name, root))}`"
    _foresee(aws, jobs, name, check)
    for number, job in enumerate(jobs, start=1):
        title = f"job {number} of {len(jobs)}: {job.run_id} ({job.words})"
        if job.finished:
            screen.print(f"{title} is finished: not paid for again")
        elif job.needs:
            screen.print(title)
            train(aws, store, job, job.needs, root, f"{sum(job.finished for job in jobs)} of {len(jobs)} jobs are finished", again)
    show(store, jobs, root, rank)
    if failed := [job for job in jobs if job.problem]:
        told = "\n".join(f"  {job.run_id} ({job.words}): {job.problem.what}" for job in failed)
        hint = f"{failed[0].problem.hint}; {again} tries again what is not finished"
        raise Problem(f"{len(failed)} of {len(jobs)} jobs failed:\n{told}", hint, reason=failed[0].problem.reason)


def place(aws: Aws, store: Store, jobs: list[Job], name: str | None, root: Path) -> str:
    """The sweep's name, and in each job its run's: one that was made before, or the next number."""
    name = checked(name)
    for job in jobs:
        runs.upload_inputs(store, job.run)
    found = {run_id: run for run_id, run in made(aws, store, name).items() if run.phase != "cancelled"}
    name = name or _same_sweep(found, jobs) or runs.new_id(jobs[0].run.name)
    numbers = [int(match[2]) for run_id in runs.listing(store) if (match := SWEPT.fullmatch(run_id)) and match[1] == name]
    free, mine = max(numbers, default=-1) + 1, {run_id: run for run_id, run in found.items() if of(run_id) == name}
    for job in jobs:
        before = next((run_id for run_id, run in mine.items() if run.of_settings(job.run)), None)
        if before:
            job.take(before, mine.pop(before))
        else:
            job.run_id = job.run.run_id = f"{name}.{free}"
            free += 1
    return name


def checked(name: str | None) -> str | None:
    """The name, or a Problem where no sweep can be called so."""
    if name and not NAME.fullmatch(name):
        raise Problem(f"a sweep cannot be called {name!r}", "use small letters, digits, '-', '_' and '.': `--name rank-and-rate`")
    return name


def of(run_id: str) -> str:
    """The name of the sweep that a run belongs to."""
    return SWEPT.fullmatch(run_id)[1]


def made(aws: Aws, store: Store, name: str | None) -> dict[str, Made]:
    """The caller's runs of all sweeps, and all runs of the sweep that he has named; in each sweep in the order of their numbers."""
    found = {}
    for run_id, files in runs.listing(store).items():
        saved = runs.readable_settings(store, run_id) if SWEPT.fullmatch(run_id) and "config.yaml" in files else None
        if saved and (saved.run.provenance.owner == aws.owner or of(run_id) == name):
            state = None if "manifest.json" in files else runs.state(store, run_id)
            found[run_id] = Made(saved.run, state)
    return dict(sorted(found.items(), key=lambda entry: (of(entry[0]), int(SWEPT.fullmatch(entry[0])[2]))))


def _same_sweep(found: dict[str, Made], jobs: list[Job]) -> str | None:
    """The newest sweep that has one of these jobs."""
    return next((of(run_id) for run_id, run in reversed(found.items()) if any(run.of_settings(job.run) for job in jobs)), None)


def _foresee(aws: Aws, jobs: list[Job], name: str, check: verbs.Check) -> None:
    """Look at every job's rows and settings, and tell what all of them will take; a Problem where none can be trained."""
    open_jobs = [job for job in jobs if not job.finished]
    for job in open_jobs:
        try:
            job.needs = check(aws, job.run)
        except Problem as problem:
            if problem.reason not in OWN:
                raise
            job.problem = problem
            screen.print(f"{job.run_id} ({job.words}) cannot be trained: {problem.what}")
    if open_jobs and all(job.problem for job in jobs):
        raise open_jobs[0].problem
    planned = [job.needs.planned if job.needs else None for job in open_jobs if not job.problem]
    screen.print(f"sweep {name}: {len(jobs)} jobs, {len(jobs) - len(open_jobs)} of them finished; {cost(aws, jobs[0].run, planned)}")


def cost(aws: Aws, run: schema.Run, planned: list[float | None]) -> str:
    """What jobs that take so many seconds come to, in words."""
    if not planned:
        return "nothing is left to train"
    if None in planned:
        return "how long the rest takes is not known here"
    seconds = sum(planned)
    told = (
        f"the rest is planned to take {seconds / 3600:.1f} h" if seconds >= 3600 else f"the rest is planned to take {seconds / 60:.0f} min"
    )
    rate, source = pricing.planned(aws, run.box.instance_type, run.cost.per_hour)
    price_told = "at an unknown price" if rate is None else f"for about ${seconds / 3600 * rate:.2f} ({run.box.instance_type}, {source})"
    note = f"; the box stops itself after box.max_hours={run.box.max_hours:g}, and the same command goes on with the rest"
    return f"{told} {price_told}; loading comes on top" + note * (seconds > run.box.max_hours * 3600)


def train(aws: Aws, store: Store, job: Job, needs: verbs.Needs, root: Path, standing: str, again: str) -> None:
    """Do the job, or leave in it why it failed; a Problem where the next one would fail, too."""

    def known(aws: Aws, settings: schema.Run) -> verbs.Needs:
        """Take what was found out about these settings before the first job began."""
        return needs

    begun, outcome, found = time.monotonic(), "failed", Outcome()
    try:
        perform(verbs.train(job.run, root, known, False), aws, verbs.transport(job.run), found)
        job.run_id = _run_id(job, found)
        job.finished, outcome = True, "ok"
        screen.print(f"  {job.run_id} is done in {time.monotonic() - begun:.0f} s")
    except Problem as problem:
        job.run_id = _run_id(job, found)
        if not _of_its_own(store, job, problem):
            hint = "`inv up deploy`, then" if problem.reason in ("unreachable", "stopped", "killed") else f"{problem.hint}; then"
            raise Problem(f"{problem.what}; {standing}", f"{hint} {again} goes on with the sweep", problem.reason) from problem
        job.problem = problem
        screen.print(f"  failed: {problem.what}")
    except KeyboardInterrupt as stop:
        run_id = _run_id(job, found)
        watched = f"stopped watching; {run_id} goes on, and no job begins after it"
        left = watched if str(stop) else f"stopped while {run_id} was being started"
        words = f"{left}. {again} goes on with the sweep, `inv stop-run` ends the run"
        raise KeyboardInterrupt(words) from None
    finally:
        audit.write(store, "train", job.run.box.name, time.monotonic() - begun, outcome)


def _run_id(job: Job, found: Outcome) -> str:
    prepared = found.of(runs.Prepared)
    return prepared.run_id if prepared else job.run_id


def _of_its_own(store: Store, job: Job, problem: Problem) -> bool:
    """Whether the run itself says that it failed, for a reason that is not the next one's."""
    current = runs.state(store, job.run_id)
    return problem.reason in OWN and (current.phase, current.reason) == ("failed", problem.reason)


def show(store: Store, jobs: list[Job], root: Path, rank: Rank) -> None:
    """Print the leaderboard of what is finished, and what to do with the first."""
    folders = {fetched(store, job, root): job.words for job in jobs if job.finished}
    if not folders:
        return
    with runs.reading_record("` or `".join(folder.name for folder in folders)):
        text, best = rank(folders)
    screen.print(f"{text}\nnext       `inv publish --run {best}`, `inv report --run {best}`")


def fetched(store: Store, job: Job, root: Path) -> Path:
    """The folder of a finished run here, with what the leaderboard reads."""
    folder = root / job.run.runs / job.run_id
    stated = runs.manifest(store, job.run_id)["files"]
    with runs.reading_record(job.run_id):
        for name in RANKED:
            runs.fetch(store, job.run_id, name, stated[name], folder)
    return folder


def command(name: str, *options: str) -> str:
    """What goes on with this sweep."""
    return shlex.join(["inv", "sweep", "--name", name, *options, "--", *argv.overrides()])
