"""Where `inv sweep` trains: on the box, each job by the ordinary `train` plan."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf import commands, run_ids, schema
from conf.fleet_job import PRUNED
from conf.problem import RUN_REASONS, Problem
from conf.process import argv
from conf.process.screen import screen
from conf.sweep.job import Job, SweepRun, SweepRuns
from conf.sweep.sweep import Launcher
from remote.aws import instance, pricing
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.plan import verbs
from remote.plan.perform import Outcome, perform
from remote.runs import audit, download, manifest, runs, start

RANKED = ("config.yaml", "metrics.json", "predictions.jsonl")  # of a run, what the leaderboard reads


@dataclass
class BoxLauncher(Launcher[schema.Run]):
    aws: Aws
    store: Store
    root: Path
    find_needs: verbs.Check
    leaderboard: Callable[[dict[Path, str]], tuple[str, str]]  # of run folders and what sets each apart: a text, and the best run
    score_of: Callable[[Path], float]  # of a run's folder
    options: tuple[str, ...] = ()  # of the verb, besides the name
    verb: str = "sweep"
    needs: dict[str, verbs.Needs] = field(default_factory=dict)  # by a job's words, as they were before anything was paid for

    def runs(self, name: str | None) -> SweepRuns:
        """The caller's runs of all sweeps, and all runs of the sweep that he has named; of others None."""
        own: SweepRuns = {}
        for each, files in runs.listing(self.store).items():
            if sweep := run_ids.sweep_of(each):
                saved = runs.readable_settings(self.store, each) if "config.yaml" in files else None
                own[each] = None
                if saved and (saved.run.provenance.owner == self.aws.owner or sweep == name):
                    own[each] = self._run(each, saved.run, "manifest.json" in files)
        return dict(sorted(own.items(), key=lambda run: (run_ids.sweep_of(run[0]), run_ids.number(run[0]))))

    def _run(self, name: str, settings: schema.Run, finished: bool) -> SweepRun:
        state = None if finished else runs.state(self.store, name)
        cancelled, problem = bool(state and state.phase == "cancelled"), None
        if state and cancelled and state.reason == PRUNED:
            return SweepRun(settings, finished, cancelled, pruned=state.evidence or state.reason)
        if state and (cancelled or (state.phase == "failed" and state.reason in RUN_REASONS)):
            problem = Problem(state.evidence or f"it was {state.phase}", of_job(state.hint or f"`inv logs --run {name}`", settings))
        return SweepRun(settings, finished, cancelled, problem)

    def complete(self, job: Job[schema.Run]) -> None:
        """Put the files of rows into S3, and their hashes into the settings."""
        start.upload_inputs(self.store, job.settings)

    def check(self, job: Job[schema.Run]) -> None:
        """Check rows, token and base model."""
        try:
            self.needs[job.words] = self.find_needs(self.aws, job.settings)
        except Problem as problem:
            raise Problem(problem.what, of_job(problem.hint, job.settings), problem.reason) from problem

    def forecast(self, jobs: Sequence[Job[schema.Run]]) -> str:
        return forecast(self.aws, jobs[0].settings, [self.needs[job.words].planned for job in jobs]) if jobs else "nothing is left to train"

    def train(self, job: Job[schema.Run], again: str) -> None:
        """Do the job, or leave in it why it failed; a Problem where the next one would fail, too."""

        def known_needs(aws: Aws, settings: schema.Run) -> verbs.Needs:
            """Take what was found out about these settings before the first job began."""
            return self.needs[job.words]

        begun, outcome, answers = time.monotonic(), "failed", Outcome()
        try:
            try:
                perform(verbs.train(job.settings, self.root, known_needs, False), self.aws, verbs.transport(job.settings), answers)
            finally:
                prepared = answers.of(start.Prepared)
                job.run_id = prepared.run_id if prepared else job.run_id
            job.finished, outcome = True, "ok"
            screen.print(f"  {job.run_id} is done in {time.monotonic() - begun:.0f} s")
        except Problem as problem:
            own_hint = of_job(problem.hint, job.settings)
            if not self._of_its_own(job, problem):
                hint = "`inv up deploy`, then" if problem.reason in ("unreachable", "stopped", "killed") else f"{own_hint}; then"
                raise Problem(problem.what, f"{hint} {again} goes on with the sweep", problem.reason) from problem
            job.problem = Problem(problem.what, own_hint, problem.reason)
            screen.print(f"  failed: {problem.what}")
        except KeyboardInterrupt as stop:
            watched = f"stopped watching; {job.run_id} goes on, and no job begins after it"
            what = watched if str(stop) else f"stopped while {job.run_id} was being started"
            raise KeyboardInterrupt(f"{what}. {again} goes on with the sweep, `inv stop-run` ends the run") from None
        finally:
            audit.write(self.store, "train", job.settings.box.name, time.monotonic() - begun, outcome)

    def _of_its_own(self, job: Job[schema.Run], problem: Problem) -> bool:
        """Whether the run itself says that it failed, for a reason that is not the next one's."""
        state = runs.state(self.store, job.run_id)
        return problem.reason in RUN_REASONS and (state.phase, state.reason) == ("failed", problem.reason)

    def score(self, job: Job[schema.Run]) -> float:
        return self.score_of(self._fetched(job))

    def rank(self, jobs: Sequence[Job[schema.Run]]) -> None:
        """Print the leaderboard, and what to do with the first."""
        folders = {self._fetched(job): job.words for job in jobs}
        if not folders:
            return
        with runs.reading_record("` or `".join(folder.name for folder in folders)):
            text, best = self.leaderboard(folders)
        screen.print(f"{text}\nnext       `inv publish --run {best}`, `inv report --run {best}`")

    def _fetched(self, job: Job[schema.Run]) -> Path:
        """The folder of a finished run here, with what the leaderboard reads."""
        folder = self.root / job.settings.runs / job.run_id
        with runs.reading_record(job.run_id):
            stated = (manifest.read(self.store, job.run_id) or {})["files"]
            for name in RANKED:
                download.fetch(self.store, job.run_id, name, stated[name], folder)
        return folder

    def command(self, name: str) -> str:
        return shlex.join(["inv", self.verb, "--name", name, *self.options])  # what was typed comes to it on the screen


def of_job(hint: str, settings: schema.Run) -> str:
    """The hint, whose commands have the values of the job that it is about: of a setting with several, none would be in them."""
    return commands.runnable(hint, [*argv.overrides(), *settings.provenance.swept])


def forecast(aws: Aws, run: schema.Run, planned: list[float | None]) -> str:
    """What jobs that take so many seconds come to, in words."""
    if None in planned:
        return "how long the rest takes is not known here"
    seconds = sum(filter(None, planned))
    kind = instance.type_of(aws, run.box)
    rate, source = pricing.planned(aws, kind, run.cost.per_hour)
    price = "at an unknown price" if rate is None else f"for about ${seconds / 3600 * rate:.2f} ({kind}, {source})"
    note = f"; the box stops itself after box.max_hours={run.box.max_hours:g}, and the same command goes on with the rest"
    return f"the rest is planned to take {length(seconds)} {price}; loading comes on top" + note * (seconds > run.box.max_hours * 3600)


def length(seconds: float) -> str:
    """A time in the unit that it is best read in."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
