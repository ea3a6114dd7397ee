"""Whose a run is: its box.json in S3 says so, and one of two that want it is always the first."""

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from carrier import state
from carrier.store import Store
from conf.fleet_job import HOLDER

MOST = 65536  # bytes of box.json


@dataclass
class Claim:
    store: Store
    run_id: str
    job: str  # id of the job: it stays the same for all of its attempts
    about: dict[str, str]  # what else is known of this attempt
    used: float = 0.0  # seconds that earlier attempts of this job took

    @property
    def place(self) -> str:
        return f"runs/{self.run_id}/box.json"

    def take(self) -> bool:
        """Whether the run is this job's from now on; not where somebody else is at work on it."""
        body, etag = self.store.get_with_etag(self.place, MOST)
        holder = state.values(body)
        if holder.get("instance") == self.job:
            self.used = self._used(holder)
        elif body is not None and self._at_work(holder):
            return False
        return self.store.claim(self.place, self._text(), etag) or self.ours()

    def ours(self) -> bool:
        return state.values(self.store.get(self.place, MOST)).get("instance") == self.job

    def _at_work(self, holder: dict) -> bool:
        current = self.store.get(f"runs/{self.run_id}/state.json", state.MOST)
        if holder.get("name") == HOLDER and (not holder.get("instance") or state.phase(current) == "created"):
            return False  # it waits for a job: for this one, or for another attempt of one that this one is faster than
        return state.lives(current)

    def _used(self, before: dict) -> float:
        try:
            started = datetime.fromisoformat(str(before["started"]))
            used = float(before["used"])
            last = state.last_sign(self.store.get(f"runs/{self.run_id}/state.json", state.MOST)) or started
            return used + max(0.0, (last - started).total_seconds())
        except (LookupError, TypeError, ValueError):
            return 0.0

    def _text(self) -> bytes:
        words = {
            "name": HOLDER,
            "instance": self.job,
            "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "used": round(self.used),
        }
        return json.dumps(words | self.about).encode()


def job_from_environment() -> str:
    """The job's id, as AWS Batch tells each container (AWS Batch, User Guide, "Job environment variables")."""
    return os.environ.get("AWS_BATCH_JOB_ID") or f"no-job-{os.getpid()}-{time.time_ns()}"
