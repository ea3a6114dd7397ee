"""The laptop dies after any call that changes something: the same verb again, and the end is the same as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys

import pytest
import stand_in_trainer
from conftest import HOSTILE, ROOT
from test_chain import runs

pytestmark = pytest.mark.system  # minutes: every verb is killed at every call


def killed(laptop, verb: str) -> list[str]:
    """The verb's changing calls, in the order in which it was killed after each; at last it has ended by itself, and well."""
    mark = laptop.folder / f"killed-{verb}"
    mark.write_text("")
    environment = os.environ | HOSTILE | {"PYTHONPATH": str(ROOT / "tests/killed"), "KILLED_AT": str(mark)}
    command = [sys.executable, "-m", "invoke", verb, *laptop.words("train.steps=4")]
    while True:
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=180)
        calls = mark.read_text().splitlines()
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, f"after it had been killed at {calls}: {done.stdout}{done.stderr}"
            return calls


def test_killed_after_every_changing_call_of_every_verb_the_chain_ends_the_same(laptop):
    stand_in_trainer.register(laptop.state)
    seen = {verb: killed(laptop, verb) for verb in ("up", "deploy", "train", "publish", "down")}
    print(seen)
    assert {"RunInstances", "CreateSchedule", "CreateVolume", "AttachVolume", "SendCommand setup"} <= set(seen["up"])
    assert {"SendCommand volume", "CreateTags", "SendCommand deploy"} <= set(seen["deploy"])
    assert {"PutObject inputs", "PutObject runs config.yaml", "SendCommand train"} <= set(seen["train"])
    assert {"SendCommand stop", "StopInstances", "DeleteSchedule"} <= set(seen["down"])

    (found,) = [entry for group in laptop.client("ec2").describe_instances()["Reservations"] for entry in group["Instances"]]
    assert found["State"]["Name"] == "stopped"
    tagged = [{"Name": "tag-key", "Values": ["fine-tune-slm:box"]}]
    assert len(laptop.client("ec2").describe_volumes(Filters=tagged)["Volumes"]) == 1
    assert laptop.client("scheduler").list_schedules()["Schedules"] == []
    assert not [key for key in laptop.objects() if "/locks/" in key]
    found = runs(laptop)
    # Killed after its run was sealed, at the audit's line, `train` has nothing to go on with and makes a second one.
    assert len(found) <= 2
    assert "published.json" in found[max(found)]
    for run_id, files in found.items():
        assert "manifest.json" in files
        assert json.loads(laptop.object(f"fine-tune-slm/runs/{run_id}/state.json"))["phase"] == "done"
        log = laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode().splitlines()
        assert [line for line in log if line.startswith("step ")] == [f"step {number} of 4" for number in range(1, 5)]
