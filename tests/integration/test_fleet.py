"""A run on AWS Batch, as a user types it: no box, no `up`, no `down`; it is whole, and nothing that costs is left."""

import re

import pytest
import stand_in_trainer
from conftest import ODD, Laptop
from fleets import with_fleet
from test_recovery import run_ids, state, steps, wait_until

from twin import world

pytestmark = pytest.mark.slow  # a minute: instances that are launched, pull an image and go

SETTINGS = ("fleet=batch", "train.steps=20", "train.save_steps=5")
QUEUE = "fine-tune-slm-spot"


def ready(folder, *settings: str) -> Laptop:
    """An account with a fleet, and an image of this tree in it."""
    made = with_fleet(folder / ODD, *SETTINGS, *settings)
    stand_in_trainer.register(made.state, step_seconds=0.05)
    return made


@pytest.fixture
def fleet(tmp_path):
    made = ready(tmp_path)
    yield made
    world.stop(made.state)


@pytest.fixture
def noticed(tmp_path):
    """Somebody is told of its runs, by mail, which he has confirmed, and by a webhook."""
    made = ready(tmp_path, *NOTIFY)
    assert "1 subscriptions are confirmed" in made.inv("twin.mail", "--confirm").stdout
    yield made
    world.stop(made.state)


NOTIFY = ("notify.email=me@example.com", "notify.webhook=fine-tune-slm/webhook")


def test_each_end_is_told_once_by_mail_and_to_the_webhook(noticed):
    """One run that AWS's taking of an instance interrupts, and one that crashes."""
    settings = (*SETTINGS, *NOTIFY)
    stand_in_trainer.register(noticed.state, step_seconds=0.1, hold_at=12)
    noticed.inv("train", "--detach", overrides=settings)
    (run_id,) = run_ids(noticed)
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000010/COMPLETE" in key for key in noticed.objects()))
    (first,) = instances(noticed, "running")
    world.fault(noticed.state, "spot-notice", instance=first["InstanceId"], seconds=600)
    noticed.inv("train", overrides=settings)
    stand_in_trainer.register(noticed.state, crash_at=3)
    assert noticed.inv("train", overrides=(*settings, "seed=2"), ok=False).returncode == 1
    wait_until(lambda: len(world.posts(noticed.state)) >= 3)
    told = [one["body"] for one in world.posts(noticed.state)]
    assert [one["event"] for one in told] == ["spot", "done", "failed"]
    assert "goes on by itself" in told[0]["what"] and told[1]["what"].startswith("macro-F1 0.765") and "crash" in told[2]["what"]
    assert told[0]["instance"] == first["InstanceId"] != told[1]["instance"] and "$" in told[1]["cost"]
    subjects = [one["subject"] for one in world.mails(noticed.state)[1:]]  # the first asks for the address
    assert subjects == [one["title"] for one in told]


def instances(laptop, *states: str) -> list[dict]:
    pages = laptop.client("ec2").describe_instances()["Reservations"]
    return [one for page in pages for one in page["Instances"] if not states or one["State"]["Name"] in states]


def test_a_run_is_trained_published_and_nothing_is_left_that_costs(fleet):
    done = fleet.inv("train", "publish", overrides=SETTINGS)
    (run_id,) = run_ids(fleet)
    assert f"{run_id} is done" in done.stdout + done.stderr
    assert (state(fleet, run_id)["phase"], steps(fleet, run_id)) == ("done", list(range(1, 21)))
    log = fleet.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert fleet.inv("logs", "--run", run_id, overrides=SETTINGS).stdout == log
    wait_until(lambda: not instances(fleet, "pending", "running", "stopping", "stopped"))
    assert run_id in fleet.inv("status", overrides=SETTINGS).stdout


def test_a_run_whose_instance_aws_takes_back_goes_on_on_another_one(fleet):
    stand_in_trainer.register(fleet.state, step_seconds=0.1, hold_at=12)
    fleet.inv("train", "--detach", overrides=SETTINGS)
    (run_id,) = run_ids(fleet)
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000010/COMPLETE" in key for key in fleet.objects()))
    (first,) = instances(fleet, "running")
    world.fault(fleet.state, "spot-notice", instance=first["InstanceId"], seconds=600)  # on a busy machine 120 are too few
    wait_until(lambda: "AWS takes this spot instance back at" in (state(fleet, run_id).get("evidence") or ""))
    world.forward(fleet.state, 605)
    fleet.inv("train", overrides=SETTINGS)
    assert (state(fleet, run_id)["phase"], sorted(set(steps(fleet, run_id)))) == ("done", list(range(1, 21)))
    assert len({one["InstanceId"] for one in instances(fleet)}) == 2
    log = fleet.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert log.count("going on after step") == 1 and fleet.inv("logs", "--run", run_id, overrides=SETTINGS).stdout == log
    (job,) = world.client(fleet.state, "batch").list_jobs(
        jobQueue="fine-tune-slm-spot", filters=[{"name": "JOB_NAME", "values": [run_id]}]
    )["jobSummaryList"]
    assert job["status"] == "SUCCEEDED"


def test_a_run_that_goes_on_is_ended_with_its_checkpoint(fleet):
    stand_in_trainer.register(fleet.state, step_seconds=0.1, hold_at=8)
    fleet.inv("train", "--detach", overrides=SETTINGS)
    (run_id,) = run_ids(fleet)
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000005/COMPLETE" in key for key in fleet.objects()))
    said = fleet.inv("stop-run", overrides=SETTINGS)
    assert f"{run_id} is cancelled" in said.stdout + said.stderr
    assert state(fleet, run_id)["phase"] == "cancelled"


def test_an_answer_to_a_submission_that_is_lost_makes_no_second_job(fleet):
    world.fault(fleet.state, "batch-submit-lost")
    fleet.inv("train", overrides=SETTINGS)
    (run_id,) = run_ids(fleet)
    batch = world.client(fleet.state, "batch")
    jobs = batch.list_jobs(jobQueue="fine-tune-slm-spot", filters=[{"name": "JOB_NAME", "values": [run_id]}])["jobSummaryList"]
    assert len(jobs) == 1 and state(fleet, run_id)["phase"] == "done"


def test_a_sweep_of_six_runs_on_three_instances_loses_nothing_and_the_ledger_is_the_meters(fleet):
    """One submission's answer is lost, and AWS takes one instance back in the middle."""
    stand_in_trainer.register(fleet.state, step_seconds=0.5)
    world.fault(fleet.state, "batch-submit-lost")
    sweep = fleet.popen("sweep", "--fleet", "3", overrides=(*SETTINGS, "lora.r=4,8,16", "seed=1,2"))
    wait_until(lambda: any("/checkpoints/step-000005/COMPLETE" in key for key in fleet.objects()))
    taken = instances(fleet, "running")[0]["InstanceId"]
    world.fault(fleet.state, "spot-notice", instance=taken, seconds=60)
    printed, _ = sweep.communicate(timeout=1800)
    assert sweep.returncode == 0, printed
    ids = run_ids(fleet)
    assert len(ids) == 6
    for run_id in ids:
        assert state(fleet, run_id)["phase"] == "done" and f"fine-tune-slm/runs/{run_id}/manifest.json" in fleet.objects(), run_id
        assert sorted(set(steps(fleet, run_id))) == list(range(1, 21)), run_id
        log = fleet.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
        assert fleet.inv("logs", "--run", run_id, overrides=SETTINGS).stdout == log
        again = log.count("going on after step")
        assert log.count("step 20 of 20") == 1 and log.count("step 1 of 20") == 1 and again <= 1, "nothing is trained twice"
    batch = world.client(fleet.state, "batch")
    jobs = [one for status in ("SUCCEEDED", "FAILED") for one in batch.list_jobs(jobQueue=QUEUE, jobStatus=status)["jobSummaryList"]]
    assert sorted(job["status"] for job in jobs) == ["SUCCEEDED"] * 6, "one job for each run"
    wait_until(lambda: not instances(fleet, "pending", "running", "shutting-down", "stopping", "stopped"))
    launched = {one["InstanceId"] for one in instances(fleet)}
    assert taken in launched and len(launched) >= 3
    rows = world.costs(fleet.state)["rows"]
    assert [row for row in rows if row["kind"] in ("instance", "volume") and row["until"] is None] == []
    lines = re.findall(r"^(i-\w+) g6.2xlarge spot in .* (\S+) *$", fleet.inv("costs", overrides=SETTINGS).stdout, re.MULTILINE)
    assert {one for one, _ in lines} == launched
    assert sum(float(usd) for _, usd in lines) == pytest.approx(sum(row["usd"] for row in rows if row["kind"] == "instance"), abs=0.01)
