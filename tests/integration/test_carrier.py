"""A run that a carrier carries, process by process, is one like any other: it goes on on another instance, is sealed, shown and published.

Each job's container is a process here, with the words and the environment of its definition, on the emulated S3, Secrets Manager and Hub.
"""

import signal
import subprocess
import sys
from pathlib import Path

import loaded
import pytest
import stand_in_trainer
from conftest import ROOT
from test_recovery import run_ids, state, steps, wait_until

from conf import load
from conf.fleet_job import Exit
from remote.aws.session import Aws
from remote.runs import fleet, start

pytestmark = pytest.mark.slow  # half a minute: three jobs, each of which begins anew

SETTINGS = ("fleet=batch", "train.steps=30", "train.save_steps=5")


class Instances:
    """Places where jobs run, each with a disk of its own."""

    def __init__(self, laptop, prepared):
        self.laptop, self.prepared = laptop, prepared

    def job(self, number: str, attempt: int, **at: int) -> subprocess.Popen:
        words = [self.prepared.run_id, self.prepared.config_sha256, "3600", "fleet.max_hours", "5"]
        disk = self.laptop.folder / f"instance-{number}-{attempt}"
        environment = self.laptop.environment | {
            **{"BUCKET": "fine-tune-slm", "PREFIX": "fine-tune-slm", "HUB_SECRET": "huggingface/api-token"},
            **{"AWS_BATCH_JOB_ID": number, "AWS_BATCH_JOB_ATTEMPT": str(attempt), "HF_HOME": str(disk / "hub-cache")},
            **{"PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9", "STAND_IN_STEP_SECONDS": "0.05"},
            **{f"STAND_IN_{name.upper()}": str(value) for name, value in at.items()},
        }
        program = [sys.executable, str(Path(stand_in_trainer.__file__)), "carrier"]
        return subprocess.Popen([*program, *words], env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def end(self, job: subprocess.Popen) -> tuple[int, str]:
        said = job.communicate(timeout=900)[0].decode()
        return job.returncode, said


@pytest.fixture
def instances(laptop, monkeypatch):
    loaded.enter(monkeypatch, laptop.state)
    run = fleet.as_box(load.load([*laptop.words(*SETTINGS)[1:]], local=Path("none")))
    return Instances(laptop, start.prepare(Aws(run.cloud), run, "an image", ROOT, None))


def test_a_run_that_is_ended_on_one_instance_goes_on_on_another_and_is_whole(laptop, instances):
    first = instances.job("job-1", 1, hold_at=12)
    (run_id,) = run_ids(laptop)
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000010/COMPLETE" in key for key in laptop.objects()))
    assert instances.end(instances.job("job-2", 1))[0] == Exit.finished, "another job of the same run lets it be"
    first.send_signal(signal.SIGTERM)
    assert instances.end(first)[0] == Exit.again
    assert state(laptop, run_id)["phase"] == "failed"

    code, said = instances.end(instances.job("job-1", 2))
    assert code == Exit.finished, said
    assert sorted(set(steps(laptop, run_id))) == list(range(1, 31))  # those behind the last checkpoint are made again
    log = laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert laptop.inv("logs", "--run", run_id).stdout == log and "step 30 of 30" in said, "its container prints the log, too"
    assert not [key for key in laptop.objects() if f"{run_id}/checkpoints/" in key]
    assert run_id in laptop.inv("report", "--run", run_id).stdout
    laptop.inv("publish", "--run", run_id)
    assert instances.end(instances.job("job-3", 1))[0] == Exit.finished
