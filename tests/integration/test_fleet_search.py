"""Searches and sweeps on a fleet, with their laptop gone in the middle, and with two of them: each run is trained once."""

import os
import re
import signal

import pytest
import stand_in_trainer
from conftest import ODD, Laptop
from test_fleet import QUEUE, SETTINGS, fleet, instances  # noqa: F401
from test_recovery import run_ids, state, steps, wait_until

from twin import world

pytestmark = pytest.mark.slow  # minutes: instances that are launched, pull an image and go

SEARCH = (*SETTINGS, "train.eval_steps=5", "lora.r=1,2,4,8,16,32")


def measured(laptop, run_id: str) -> bool:
    return f"fine-tune-slm/runs/{run_id}/events.jsonl" in laptop.objects() and max(steps(laptop, run_id), default=0) >= 5


class Gate:
    """Runs wait at their fifth step to be let on; the worst one until two others have measured after it."""

    def __init__(self, laptop):
        self.laptop, self.opened = laptop, set()

    def open(self) -> None:
        for folder in self.laptop.state.glob("boxes/*/root/var/cache/fine-tune-slm/runs/rate.*"):
            name = folder.name
            if name not in self.opened and waits(folder) and (not is_worst((folder / "config.yaml").read_bytes()) or self.ahead(name)):
                (folder / "go").touch()
                self.opened.add(name)

    def ahead(self, name: str) -> bool:
        return sum(measured(self.laptop, other) for other in run_ids(self.laptop) if other != name) >= 2


def waits(folder) -> bool:
    log = folder / "log.txt"
    return log.is_file() and b"\nstep 4 of 20\n" in log.read_bytes()


def is_worst(config: bytes) -> bool:
    return b"- lora.r=1\n" in config


def nothing_is_trained_twice(laptop, run_id: str) -> None:
    log = laptop.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert log.count("step 1 of 20") == 1 and log.count("step 20 of 20") == 1, log
    assert sorted(steps(laptop, run_id)) == list(range(1, 21))


def test_a_search_with_three_trials_at_once_outlives_its_laptop_and_gives_up_who_falls_behind(fleet):  # noqa: F811
    stand_in_trainer.register(fleet.state, step_seconds=0.2, hold_at=5, linger_at=8)
    asked = ("sweep", "--name", "rate", "--fleet", "3", "--trials", "6", "--prune")
    gate = Gate(fleet)
    first = fleet.popen(*asked, overrides=SEARCH)
    wait_until(lambda: len([run_id for run_id in run_ids(fleet) if run_id.startswith("rate.") and steps_of(fleet, run_id)]) == 3)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert len(run_ids(fleet)) == 3 and len(instances(fleet, "running")) == 3

    second = fleet.popen(*asked, overrides=SEARCH)
    wait_until(lambda: gate.open() or second.poll() is not None)
    printed, _ = second.communicate()
    assert second.returncode == 0 and "Traceback" not in printed, printed
    assert re.search(r"sweep rate: 6 trials, \d of them finished", printed) and re.search(
        r"price    about \$\S+ (for \d runs|a run): ", printed
    )
    assert re.search(r"ceiling  \$\S+: \d x \$\S+ an hour on demand x 12 h x 5 attempts", printed)

    ids = run_ids(fleet)
    assert ids == [f"rate.{number}" for number in range(6)]
    configs = {one: fleet.object(f"fine-tune-slm/runs/{one}/config.yaml") for one in ids}
    (worst,), (best,) = [one for one in ids if is_worst(configs[one])], [one for one in ids if b"- lora.r=32\n" in configs[one]]
    pruned = [one for one in ids if state(fleet, one)["phase"] == "cancelled"]
    assert worst in pruned and best not in pruned and len(pruned) < 6
    for run_id in ids:
        kept = [name for name in fleet.objects() if name.startswith(f"fine-tune-slm/runs/{run_id}/")]
        if run_id in pruned:
            told = state(fleet, run_id)
            assert told["reason"] == "pruned" and "trials that were trained as far did better" in told["evidence"]
            assert any("/checkpoints/" in name for name in kept) and not any(name.endswith("manifest.json") for name in kept)
            assert re.search(rf"^pruned     {run_id} \(lora.r=\d+\): held-out loss \d", printed, re.MULTILINE)
        else:
            assert state(fleet, run_id)["phase"] == "done" and any(name.endswith("manifest.json") for name in kept)
            nothing_is_trained_twice(fleet, run_id)
    assert re.search(rf"^{worst} +cancelled \(pruned\)", fleet.inv("status", overrides=SETTINGS).stdout, re.MULTILINE)

    begun = jobs(fleet)
    assert len(begun) == 6, "one job for each run"
    third = fleet.inv(*asked, overrides=SEARCH)
    assert jobs(fleet) == begun and third.stdout.count("\npruned     rate.") == len(pruned)
    wait_until(lambda: not instances(fleet, "pending", "running", "shutting-down", "stopping", "stopped"))
    assert [row for row in world.costs(fleet.state)["rows"] if row["kind"] in ("instance", "volume") and row["until"] is None] == []


def steps_of(laptop, run_id: str) -> bool:
    return f"fine-tune-slm/runs/{run_id}/events.jsonl" in laptop.objects() and bool(steps(laptop, run_id))


def jobs(laptop) -> list[str]:
    """Their names on AWS Batch, all of which have ended."""
    batch = world.client(laptop.state, "batch")
    ended = [batch.list_jobs(jobQueue=QUEUE, jobStatus=status)["jobSummaryList"] for status in ("SUCCEEDED", "FAILED")]
    return sorted(job["jobName"] for page in ended for job in page)


def test_two_laptops_with_one_sweep_have_one_run_of_each_job_and_nobody_trains_twice(fleet, tmp_path):  # noqa: F811
    stand_in_trainer.register(fleet.state, step_seconds=0.2)
    other = Laptop(tmp_path / f"another of {ODD}")
    other.folder.mkdir()
    other.state = fleet.state
    words = (*SETTINGS, "lora.r=4,8,16,32")
    both = [laptop.popen("sweep", "--fleet", "2", "--name", "rank", overrides=words) for laptop in (fleet, other)]
    printed = [one.communicate(timeout=1800)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0] and not any("Traceback" in said for said in printed), "\n".join(printed)
    assert run_ids(fleet) == [f"rank.{number}" for number in range(4)]
    for run_id in run_ids(fleet):
        assert state(fleet, run_id)["phase"] == "done"
        nothing_is_trained_twice(fleet, run_id)
    first, second = (re.search(r"next       `inv publish --run (\S+)", said)[1] for said in printed)
    assert first == second and all(f"rank.{number} " in said for number in range(4) for said in printed)
    wait_until(lambda: not instances(fleet, "pending", "running", "shutting-down", "stopping", "stopped"))


def test_a_sweep_that_was_handed_over_whole_needs_no_laptop(fleet):  # noqa: F811
    stand_in_trainer.register(fleet.state, step_seconds=0.05)
    words = (*SETTINGS, "lora.r=4,8,16")
    said = fleet.inv("sweep", "--fleet", "2", "--detach", "--name", "rank", overrides=words).stdout
    assert "3 jobs are on AWS Batch" in said and re.search(r"ceiling  \$\S+: 3 x ", said)
    wait_until(lambda: [state(fleet, f"rank.{number}")["phase"] for number in range(3)] == ["done"] * 3)
    again = fleet.inv("sweep", "--fleet", "2", "--name", "rank", overrides=words).stdout
    assert again.count("is finished: not trained again") == 3 and "next       `inv publish --run rank." in again
    assert jobs(fleet) == ["rank-0", "rank-1", "rank-2"]
