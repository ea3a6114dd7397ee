"""A job from its start to its end: it takes the run, fetches it, starts its trainer, ships what that writes, and says how it ended."""

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from carrier import claim, fetch, files, instance, process, state
from carrier.claim import Claim
from carrier.ending import GOES_ON, Ending, Timer, Watch, Words
from carrier.hub_token import HubToken
from carrier.notices import Notices, tell_end
from carrier.process import Trainer
from carrier.ship import NotOurs, Shipper, say
from carrier.state import State
from carrier.store import UNREACHABLE, Store, may_pass
from conf.fleet_job import Exit
from conf.problem import FULL, Problem

PERIOD = 10.0  # seconds between two looks at the run
WHOSE = 60.0  # between two looks whose the run is
START = 600.0  # seconds for AWS to answer at the start
PATIENCE = 3600.0  # for S3 at the end: what it does not take then is lost with the instance
LAST = 600.0  # for the instance to end, after AWS has said that it does
FOLDERS = ("runs", "inputs", "hub-cache", "base-scores")  # where the box has them on its volume


class Job:
    def __init__(self, words: Words, store: Store, root: Path):
        self.words, self.store, self.root = words, store, root
        self.place = f"runs/{words.run_id}/"
        self.folder = root / "runs" / words.run_id
        self.user = process.owner()
        self.timer = Timer()
        self.asked_to_end = False  # by SIGTERM
        self.begun = False  # the trainer
        self.notices: Notices | None = None

    def run(self) -> Exit:
        """Until the trainer has begun AWS is waited for: who leaves at once uses up his attempts while it does not answer."""
        until = time.monotonic() + START
        while True:
            try:
                return self._run()
            except UNREACHABLE as error:
                if self.begun or self.asked_to_end or not may_pass(error) or time.monotonic() > until or instance.notice():
                    raise
                say(f"AWS does not answer as it has to; trying again in {PERIOD:.0f} s: {error}")
                time.sleep(PERIOD)

    def _run(self) -> Exit:
        if self._has_ended():
            return Exit.finished
        self._note_instance()
        self.about = instance.about() | {"attempt": os.environ.get("AWS_BATCH_JOB_ATTEMPT", "1")}
        self.claim = Claim(self.store, self.words.run_id, claim.job_from_environment(), self.about)
        if not self.claim.take():
            say(f"somebody else is at work on {self.words.run_id}")
            return Exit.finished
        self._tell(State("starting"))
        self.token = HubToken(os.environ["HUB_SECRET"], self.user)
        try:
            if not instance.gpus_answer():
                self._tell(self.words.state_between("the instance shows no GPU"))
                return Exit.again
            return self._carry()
        except NotOurs:
            say(f"somebody else has gone on with {self.words.run_id}: this job lets go of it")
            return Exit.finished
        except Problem as problem:
            self._tell(State("failed", problem.reason, problem.what, problem.hint))
            return Exit.wrong
        except (OSError, ValueError) as error:
            full = getattr(error, "errno", None) in FULL
            self._tell(State("failed", "disk_full" if full else "damaged_run", str(error), "raise `fleet.disk_gb`, then `inv init`" * full))
            return Exit.failed
        finally:
            self.token.remove()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _note_instance(self) -> None:
        """The ledger finds it there; what somebody has added since, such as its end, stays."""
        if known := instance.for_the_ledger():
            self.store.claim(f"fleet/{known['instance']}.json", json.dumps(known).encode(), None)

    def _has_ended(self) -> bool:
        current = state.phase(self.store.get(f"{self.place}state.json", state.MOST))
        sealed = f"{self.place}manifest.json" in self.store.names(f"{self.place}manifest.json")
        if sealed and current != "done":
            self._tell(State("done"))  # an earlier attempt ended between the two
        return sealed or current == "cancelled"

    def _tell(self, told: State) -> None:
        """Where nothing of the run is here: S3 alone gets its state."""
        say(f"{self.words.run_id}: {told.phase} {told.reason} {told.evidence}".rstrip())
        self.store.put(f"{self.place}state.json", told.text())
        if told.phase == "failed" and self.notices:
            self.notices.tell("failed", f"{told.reason}: {told.evidence}", told.hint)

    def _carry(self) -> Exit:
        self.shipper, idle = self._prepare()
        watch = Watch(self.words, self.claim, (self.folder, self.root / "hub-cache"), idle)
        killed, self.begun = instance.killed_for_memory(), True
        self.trainer = Trainer(self.folder, self.words.config, self.token.path, self.user)
        try:
            if ending := self._ship_until_it_ends(watch):
                self.trainer.stop(ending.grace)
            self.trainer.end()
            return self._conclude(ending, out_of_memory=instance.killed_for_memory() > killed)
        finally:
            self.trainer.end()
            self.trainer.remove()

    def _prepare(self) -> tuple[Shipper, float]:
        """All that the trainer needs is in the run's folder, which is its own."""
        for name in FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)  # of an earlier attempt on this instance: S3 has what counts
        self.folder.mkdir(mode=0o700)
        settings = fetch.settings(self.store, self.words.run_id, self.words.config, self.folder)
        self.notices = Notices(self.store, settings, f"{self.claim.job}-{self.about['attempt']}", self.about)
        fetch.inputs(self.store, settings, self.root / "inputs")
        shipped, checkpoints = fetch.record(self.store, self.words.run_id, self.folder)
        self.token.refresh()
        state.write(self.folder, State("starting"), self.user)
        if self.user is not None:
            self._hand_over(self.user)
        return Shipper(self.store, self.words.run_id, self.folder, self._ours, shipped, checkpoints), settings.box.idle_minutes * 60

    def _hand_over(self, user: int) -> None:
        """The folder is the trainer's from now on, but for its settings; nobody has written into it yet."""
        for folder in (self.root / "hub-cache", self.root / "base-scores"):
            os.chown(folder, user, user)
        for parent, _, names in os.walk(self.folder):
            for name in (parent, *(f"{parent}/{name}" for name in names if name != "config.yaml")):
                os.chown(name, user, user, follow_symlinks=False)

    def _ship_until_it_ends(self, watch: Watch) -> Ending | None:
        """Why the trainer is to end, where it does not by itself."""
        while self.trainer.code is None:
            try:
                if ending := watch.ending(self.asked_to_end):
                    return ending
                if self.timer.due("ship", PERIOD):
                    self.token.refresh()
                    self.shipper.ship()
            except UNREACHABLE as error:
                self.timer.done.pop("whose", None)
                say(f"S3 does not take the run; trying again in {PERIOD:.0f} s: {error}")
            time.sleep(min(1.0, PERIOD))
        return None

    def _ours(self) -> bool:
        return not self.timer.due("whose", WHOSE) or self.claim.ours()

    def _conclude(self, ending: Ending | None, out_of_memory: bool) -> Exit:
        """Say how the run ended and deliver what it made; S3 is waited for."""
        deadline, explained = time.monotonic() + PATIENCE, False
        self.timer.done.pop("whose", None)
        while True:
            try:
                if state.phase(state.read(self.folder)) == "uploading":
                    self._deliver()
                elif not explained and state.phase(state.read(self.folder)) != "done":
                    self._explain(ending, out_of_memory)
                explained = True
                self.shipper.ship(end=True)
                break
            except UNREACHABLE as error:
                say(f"S3 does not take the end of the run; trying again in {PERIOD:.0f} s: {error}")
                if time.monotonic() > deadline or self.asked_to_end or instance.notice():
                    return Exit.again
                time.sleep(PERIOD)
        if self.notices:
            tell_end(self.notices, self.folder, ending)
        if state.phase(state.read(self.folder)) == "done":
            with suppress(*UNREACHABLE):  # the run is whole without
                self.shipper.remove_checkpoints()
            return Exit.finished
        if ending and ending.wait:
            self._wait_for_the_end()
        return ending.exit if ending else Exit.failed

    def _deliver(self) -> None:
        delivered = self.shipper.deliver()
        what = "its folder holds what is no file, more than its disk has room for, or no manifest"
        hint = "nothing of it was published; another `seed` starts a run of its own"
        state.write(self.folder, State("done") if delivered else State("failed", "damaged_run", what, hint), self.user)

    def _wait_for_the_end(self) -> None:
        say("everything is in S3; waiting for the end of this instance")
        until = time.monotonic() + LAST
        while time.monotonic() < until and not self.asked_to_end:
            time.sleep(min(1.0, PERIOD))

    def _explain(self, ending: Ending | None, out_of_memory: bool) -> None:
        """Why there is no finished run, into its state."""
        code, current = self.trainer.code or 0, state.read(self.folder)
        if ending:
            told = ending.state
        elif out_of_memory:
            hint = "lower `train.pack_tokens`, then `inv train`"
            told = State("failed", "out_of_memory", "the kernel ended the trainer: the container has no memory left", hint)
        elif state.phase(current) == "failed":
            return
        elif shutil.disk_usage(self.root).free < 1 << 20:
            told = State("failed", "disk_full", "the instance's disk has no room left", "raise `fleet.disk_gb`, then `inv init`")
        elif code > 128:
            told = State("failed", "killed", f"the trainer was ended by signal {code - 128}", GOES_ON)
        else:
            files.put(self.folder, "log.txt", self.trainer.last_words())
            told = State("failed", "crashed", files.last_line(self.folder, "log.txt"), "`inv logs` shows what it printed")
        state.write(self.folder, told, self.user)
