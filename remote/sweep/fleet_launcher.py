"""Where `inv sweep` trains on a fleet: several jobs at once, each handed over by the ordinary `train` plan and followed through S3."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from conf import schema
from conf.fleet_job import PRUNED
from conf.problem import Problem
from conf.process.screen import screen
from conf.sweep import pruning
from conf.sweep.job import Job
from conf.sweep.pruning import Measurement
from conf.sweep.sweep import Sweep
from remote.aws.session import Aws, Retry
from remote.cost import fleet_price
from remote.plan import fleet_verbs, verbs
from remote.plan.perform import Outcome, perform
from remote.runs import audit, fleet, fleet_stop, follow, progress, runs, start
from remote.sweep import measurements
from remote.sweep.launcher import BoxLauncher, length, of_job

PAUSE = 5.0  # seconds between two looks at all that go on
COMPARED_EVERY = 10.0  # seconds between two looks at what they have measured: carriers ship it as often
NOT_YET_TRAINED = ("created", "starting", "running")  # who is further has only its end to do


@dataclass(eq=False)
class Going:
    """A job whose run is on AWS Batch."""

    job: Job[schema.Run]
    watcher: fleet.Watcher
    wish: fleet_stop.Wish | None = None  # why it was asked to end


@dataclass
class FleetLauncher(BoxLauncher):
    at_once: int | None = None  # None: as many as the fleet has room for
    detach: bool = False
    prune: bool = False
    going: list[Going] = field(default_factory=list)
    measured_by: dict[str, list[Measurement]] = field(default_factory=dict)  # by runs that have ended: theirs stay as they are
    compared: tuple[float, int] = (float("-inf"), 0)  # when, and how many measurements

    def forecast(self, jobs: Sequence[Job[schema.Run]]) -> str:
        if not jobs:
            return "nothing is left to train"
        planned, run = [self.needs[job.words].planned for job in jobs], fleet.as_box(jobs[0].settings)
        seconds = None if None in planned else sum(filter(None, planned))
        takes = "how long the rest takes is not known here" if seconds is None else f"the rest is planned to take {length(seconds)} in all"
        at_once = f"; {self.at_once or 'as many as the fleet has room for'} at once" if len(jobs) > 1 else ""
        price = fleet_price.lines(run, fleet_price.outlook(self.aws, run, seconds, len(jobs)), seconds, len(jobs))
        return "\n".join([f"{takes}, loading on top{at_once}", *(f"  {line}" for line in price)])

    def train_together(self, sweep: Sweep[schema.Run]) -> bool:
        """Hand jobs over, so many at once, until each has ended; detached, all of them, and none is waited for."""
        left, most = sweep.left(), sweep.total if self.detach else self.at_once or sweep.total
        retry = Retry(self.aws, "the runs go on")
        try:
            while self._hand_over_more(sweep, left, most) and not self.detach:
                ended = self._look(sweep, retry)
                done = sum(job.finished for job in sweep.jobs)
                wait = max(0, sweep.total - sum(job.ended for job in sweep.jobs) - len(self.going))
                screen.status(f"{done} of {sweep.total} are done, {len(self.going)} go on, {wait} wait", done, sweep.total)
                if self.going and not ended:
                    time.sleep(PAUSE)
        except KeyboardInterrupt:
            names = ", ".join(each.job.run_id for each in self.going) or "no run"
            after = f"no job begins {'or is pruned ' * self.prune}after it"
            raise KeyboardInterrupt(f"stopped watching; {names} goes on, and {after}. {sweep.again} goes on with the sweep") from None
        if self.detach:
            screen.print(f"{len(self.going)} jobs are on AWS Batch. {sweep.again} follows them and ranks them, `inv status` shows them")
        return True

    def _hand_over_more(self, sweep: Sweep[schema.Run], left: Iterator[Job[schema.Run]], most: int) -> bool:
        """Whether any go on, once there are as many as there can be."""
        while len(self.going) < most and (job := next(left, None)):
            try:
                to_do = self._hand_over(job, sweep.again)
            except start.Taken:
                to_do = sweep.taken(job) and self._hand_over(job, sweep.again)
            if to_do:
                self.going.append(Going(job, fleet.Watcher(self.aws, self.aws.cloud, job.run_id)))
        return bool(self.going)

    def _hand_over(self, job: Job[schema.Run], again: str) -> bool:
        """Whether the job's run is on AWS Batch now; a Problem where no job could be."""

        def known_needs(aws: Aws, settings: schema.Run) -> verbs.Needs:
            """Take what was found out about these settings before the first job began."""
            return self.needs[job.words]

        begun, outcome, answers = time.monotonic(), "failed", Outcome()
        plan = fleet_verbs.train(job.settings, self.root, known_needs, True)
        try:
            perform(plan, self.aws, verbs.transport(job.settings), answers)
            outcome = "ok"
        except start.Taken:
            raise
        except Problem as problem:
            hint = f"{of_job(problem.hint, job.settings)}; then {again} goes on with the sweep"
            raise Problem(problem.what, hint, problem.reason) from problem
        finally:
            audit.write(self.store, "train", job.settings.box.name, time.monotonic() - begun, outcome)
        prepared = answers.of(start.Prepared)
        assert prepared is not None
        job.run_id = prepared.run_id
        job.finished = not prepared.to_do
        screen.print(f"  {job} is {'finished' if job.finished else 'on AWS Batch'}")
        return prepared.to_do

    def _look(self, sweep: Sweep[schema.Run], retry: Retry) -> bool:
        """Whether any has ended; one that falls behind is told to."""
        from botocore.exceptions import BotoCoreError, ClientError

        before = len(self.going)
        try:
            for each in list(self.going):
                if self._has_ended(each):
                    self.going.remove(each)
            if self.prune:
                self._prune(sweep)
        except (ClientError, BotoCoreError) as error:
            retry.wait(error)
        return len(self.going) < before

    def _has_ended(self, each: Going) -> bool:
        """Whether the run has ended; how is in the job then."""
        job = each.job
        try:
            if each.wish:
                fleet_stop.phase_after(self.aws, self.aws.cloud, job.run_id, each.wish)
            current = runs.state(self.store, job.run_id)
            if current.phase not in progress.ENDED:
                if not each.wish and (current.phase == "created" or current.age >= progress.SILENT_AFTER):
                    each.watcher.check()
                return False
            if current.reason == PRUNED:
                job.pruned = current.evidence or PRUNED
                screen.print(f"  {job} was pruned: {job.pruned}")
                return True
            follow.outcome(self.store, current)
            job.finished = True
            screen.print(f"  {job} is done")
        except Problem as problem:
            job.problem = Problem(problem.what, of_job(problem.hint, job.settings), problem.reason)
            screen.print(f"  failed: {problem.what}")
        return True

    def _prune(self, sweep: Sweep[schema.Run]) -> None:
        """Tell the runs to end that fall behind the others."""
        at, count = self.compared
        if time.monotonic() - at < COMPARED_EVERY:
            return
        measured = [one for job in sweep.jobs if job.run_id for one in self._measurements(job)]
        self.compared = time.monotonic(), len(measured)
        if len(measured) == count:
            return
        finished = {job.run_id for job in sweep.jobs if job.finished}
        behind = pruning.behind(measured, sweep.first.train.eval_steps, finished)
        for each in self.going:
            shown = behind.get(each.job.run_id)
            if shown and not each.wish and runs.state(self.store, shown.trial).phase in NOT_YET_TRAINED:
                each.wish = fleet_stop.Wish(PRUNED, f"{shown.words}: trials that were trained as far did better")
                fleet_stop.ask_to_end(self.aws, self.aws.cloud, shown.trial, each.wish, "inv sweep --prune")
                screen.print(f"  {each.job} is told to end: {each.wish.evidence}")

    def measured(self, job: Job[schema.Run]) -> dict[int, float]:
        return {one.step: one.score for one in self._measurements(job)}

    def _measurements(self, job: Job[schema.Run]) -> list[Measurement]:
        if job.run_id in self.measured_by:
            return self.measured_by[job.run_id]
        measured = measurements.of_run(self.store, job.run_id, job.settings)
        if job.ended:
            self.measured_by[job.run_id] = measured
        return measured
