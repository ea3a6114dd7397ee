"""Why a run ends before its trainer does: AWS takes the instance back, somebody asks for it, its time or money is over, it hangs."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from carrier import instance, state
from carrier.claim import Claim
from carrier.state import State
from carrier.store import UNREACHABLE
from conf.fleet_job import PRUNED, STOP, Exit

NOTICE = 5.0  # seconds between two looks whether AWS takes the instance back: it says so two minutes before
HANGS = 30.0  # between two looks at what was written
GRACE = 100.0  # for the trainer to write a checkpoint
SHORT_GRACE = 50.0  # where the instance is about to end
GOES_ON = "`inv train` goes on from the newest checkpoint"


@dataclass(frozen=True)
class Words:
    """What the job's definition says behind `carrier`."""

    run_id: str
    config: str  # sha256 of config.yaml
    seconds: float  # after which the run ends
    limit: str  # the setting that they come from
    attempts: int  # of the job

    @property
    def last_attempt(self) -> bool:
        return int(os.environ.get("AWS_BATCH_JOB_ATTEMPT", "1")) >= self.attempts

    def state_between(self, what: str) -> State:
        """The run's state until its next attempt begins; where there is none, its end."""
        if self.last_attempt:
            return State("failed", "stopped", f"{what}; it was the last of {self.attempts} attempts (fleet.attempts)", GOES_ON)
        return State("created", "", f"{what}; it goes on by itself on another instance", "`inv status` shows where it is")


@dataclass(frozen=True)
class Ending:
    state: State
    exit: Exit
    grace: float = GRACE
    wait: bool = False  # for the end of the instance
    event: str = "stopped"  # what somebody is told of


class Timer:
    """What was done when, so that it is done so often."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}

    def due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self.done.get(what, float("-inf")) < seconds:
            return False
        self.done[what] = now
        return True


class Watch:
    """Looks at all that may end the run."""

    def __init__(self, words: Words, claim: Claim, folders: tuple[Path, ...], idle: float):
        self.words, self.claim, self.folders, self.idle = words, claim, folders, idle  # seconds
        self.started = time.monotonic()
        self.timer = Timer()

    def ending(self, asked: bool) -> Ending | None:
        """Why the run is to end now; `asked` is whether this process was told to end."""
        if (asked or self.timer.due("notice", NOTICE)) and (when := instance.notice()):
            # It ships and then waits: who leaves at once is started again on the same instance, and its attempts are used up there. The
            # last one leaves: whoever hands the run over again need not wait for it.
            between = self.words.state_between(f"AWS takes this spot instance back at {when}")
            return Ending(between, Exit.again, SHORT_GRACE, wait=not asked and not self.words.last_attempt, event="spot")
        if asked:
            return self._asked()
        took = time.monotonic() - self.started + (self.claim.used if self.words.limit == "cost.limit" else 0)
        if took >= self.words.seconds:
            event = "cost" if self.words.limit == "cost.limit" else "stopped"
            return _stopped(f"{self.words.limit} is over: it took {took / 60:.0f} min", event)
        if self.timer.due("hangs", HANGS) and self._hangs():
            return _stopped(f"the trainer has written nothing for {self.idle / 60:.0f} min and computes nothing", "idle")
        return None

    def _asked(self) -> Ending:
        wanted = None
        with suppress(*UNREACHABLE):  # the trainer is to end in any case
            wanted = self.claim.store.get(f"runs/{self.words.run_id}/{STOP}", state.MOST)
        if wanted is not None:
            said = state.values(wanted)
            why = (PRUNED, str(said.get("evidence"))) if said.get("reason") == PRUNED else ("", "somebody asked for it")
            event = "" if why[0] == PRUNED else "stopped"  # a search tells of its trials itself
            return Ending(State("cancelled", *why, "`inv train` starts a new run"), Exit.finished, SHORT_GRACE, event=event)
        return Ending(State("failed", "stopped", "AWS Batch ended the job", GOES_ON), Exit.again, SHORT_GRACE)

    def _hangs(self) -> bool:
        """Nothing written for so long, no model fetched either, and nothing computed."""
        since = time.time() - self.idle
        if time.monotonic() - self.started < self.idle or any(_written(folder, since) for folder in self.folders):
            return False
        return not instance.computing()


def _stopped(evidence: str, event: str) -> Ending:
    return Ending(State("failed", "stopped", evidence, GOES_ON), Exit.failed, event=event)


def _written(folder: Path, since: float) -> bool:
    """Whether anything below was written since then. What disappears while one looks was."""
    try:
        for _, _, names, here in os.fwalk(folder, follow_symlinks=False):
            if any(os.stat(name, dir_fd=here, follow_symlinks=False).st_mtime > since for name in names):
                return True
    except FileNotFoundError:
        return True
    return False
