"""Where `inv sweep` trains on a fleet: several jobs at once, each handed over by the ordinary `train` plan and followed through S3."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from conf.sweep.job import Job
from remote.aws.session import Aws, Retry
from remote.plan import fleet_verbs, verbs
from remote.plan.perform import Outcome, perform
from remote.runs import audit, fleet, follow, progress, runs, start
from remote.sweep.launcher import BoxLauncher, forecast, of_job

PAUSE = 5.0  # seconds between two looks at all that go on


@dataclass
class FleetLauncher(BoxLauncher):
    at_once: int | None = None  # None: as many as the fleet has room for
    detach: bool = False

    def forecast(self, jobs: Sequence[Job[schema.Run]]) -> str:
        if not jobs:
            return "nothing is left to train"
        words = forecast(self.aws, fleet.as_box(jobs[0].settings), [self.needs[job.words].planned for job in jobs])
        return f"{words}; {self.at_once or 'as many as the fleet has room for'} at once" if len(jobs) > 1 else words

    def train(self, job: Job[schema.Run], again: str) -> None:
        self.train_together([job], again)

    def train_together(self, jobs: Sequence[Job[schema.Run]], again: str) -> bool:
        """Hand jobs over, so many at once, until each has ended; detached, all of them, and none is waited for."""
        waiting, going = list(jobs), {}
        most = len(jobs) if self.detach else self.at_once or len(jobs)
        retry = Retry(self.aws, "the runs go on")
        try:
            while waiting or (going and not self.detach):
                while waiting and len(going) < most:
                    job = waiting.pop(0)
                    if self._hand_over(job, again):
                        going[job.run_id] = (job, fleet.Watcher(self.aws, self.aws.cloud, job.run_id))
                ended = [run_id for run_id, (job, watcher) in going.items() if not self.detach and self._has_ended(job, watcher, retry)]
                for run_id in ended:
                    del going[run_id]
                done = sum(job.finished for job in jobs)
                screen.status(f"{done} of {len(jobs)} are done, {len(going)} go on, {len(waiting)} wait", done, len(jobs))
                if going and not ended and not self.detach:
                    time.sleep(PAUSE)
        except KeyboardInterrupt:
            names = ", ".join(going) or "no run"
            raise KeyboardInterrupt(
                f"stopped watching; {names} goes on, and no job begins after it. {again} goes on with the sweep"
            ) from None
        if self.detach:
            screen.print(f"{len(going)} jobs are on AWS Batch. {again} follows them and ranks them, `inv status` shows them")
        return True

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

    def _has_ended(self, job: Job[schema.Run], watcher: fleet.Watcher, retry: Retry) -> bool:
        """Whether the run has ended; how is in the job then."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            current = runs.state(self.store, job.run_id)
            if current.phase not in progress.ENDED:
                if current.phase != "created" and current.age < progress.SILENT_AFTER:
                    return False
                watcher.check()
                return False
            follow.outcome(self.store, current)
            job.finished = True
            screen.print(f"  {job} is done")
        except Problem as problem:
            job.problem = Problem(problem.what, of_job(problem.hint, job.settings), problem.reason)
            screen.print(f"  failed: {problem.what}")
        except (ClientError, BotoCoreError) as error:
            retry.wait(error)
            return False
        return True
