"""The laptop dies at any call while it hands a run over to a fleet, or ends the fleet: the same verb again, and the end is the same."""

import pytest
import stand_in_trainer
from conftest import ODD
from crash import killed
from fleets import with_fleet
from test_recovery import run_ids, state, steps, trainers, wait_until

from twin import world

pytestmark = pytest.mark.slow  # minutes: both verbs are killed at every call
SETTINGS = ("fleet=batch", "train.steps=8", "train.save_steps=2")
QUEUE = "fine-tune-slm-spot"


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    made = with_fleet(tmp_path_factory.mktemp(ODD), *SETTINGS)
    yield made
    world.stop(made.state)


def jobs(account, *states: str) -> list[dict]:
    batch = account.client("batch")
    return [job for status in states for job in batch.list_jobs(jobQueue=QUEUE, jobStatus=status)["jobSummaryList"]]


def test_a_run_is_handed_over_once_and_each_of_its_steps_is_made_once(account):
    stand_in_trainer.register(account.state, step_seconds=0.05)
    calls = killed(account, "train", overrides=SETTINGS)
    reads = {"DescribeJobQueues", "DescribeImages", "DescribeJobDefinitions", "ListJobs", "ListObjectsV2", "GetObject runs state.json"}
    changes = {"PutObject inputs", "PutObject runs config.yaml", "PutObject runs box.json", "RegisterJobDefinition", "SubmitJob"}
    assert reads | changes | {"PutObject audit"} <= set(calls)
    (run_id,) = run_ids(account)
    assert (state(account, run_id)["phase"], steps(account, run_id)) == ("done", list(range(1, 9)))
    assert [job["status"] for job in jobs(account, "SUCCEEDED", "FAILED", "RUNNING", "RUNNABLE", "STARTING")] == ["SUCCEEDED"]
    (definition,) = account.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    assert definition["revision"] == 1


def test_the_fleet_is_ended_whole_and_what_ran_goes_on_from_its_checkpoint(account):
    stand_in_trainer.register(account.state, step_seconds=0.05, hold_at=5)
    settings = (*SETTINGS, "seed=2")
    before = set(run_ids(account))
    account.inv("train", "--detach", overrides=settings)
    (run_id,) = set(run_ids(account)) - before
    wait_until(lambda: any(f"{run_id}/checkpoints/step-000004/COMPLETE" in key for key in account.objects()))
    calls = killed(account, "down", "--fleet", overrides=settings)
    assert {"DescribeJobQueues", "ListJobs", "TerminateJob", "DescribeInstances", "PutObject audit"} <= set(calls)
    assert not jobs(account, "SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING") and not trainers(account)
    groups = account.client("ec2").describe_instances()["Reservations"]
    assert {one["State"]["Name"] for group in groups for one in group["Instances"]} == {"terminated"}
    assert (state(account, run_id)["phase"], state(account, run_id)["reason"]) == ("failed", "stopped")
    account.inv("train", overrides=settings)
    assert (state(account, run_id)["phase"], sorted(set(steps(account, run_id)))) == ("done", list(range(1, 9)))
    log = account.object(f"fine-tune-slm/runs/{run_id}/log.txt").decode()
    assert log.count("going on after step 4") == 1 and log.count("step 8 of 8") == 1
