"""A run on AWS Batch, as a user types it: no box, no `up`, no `down`; it is whole, and nothing that costs is left."""

import pytest
import stand_in_trainer
from conftest import ODD, Laptop
from test_recovery import run_ids, state, steps, wait_until

from twin import world

pytestmark = pytest.mark.slow  # a minute: instances that are launched, pull an image and go

SETTINGS = ("fleet=batch", "train.steps=20", "train.save_steps=5")


@pytest.fixture
def fleet(tmp_path):
    """An account with a fleet, and an image of this tree in it."""
    made = Laptop(tmp_path / ODD)
    made.folder.mkdir()
    made.inv("twin.start")
    (made.folder / "token").write_text(world.environment(made.state)["HF_TOKEN"])
    made.inv("init", "--yes", "--token", str(made.folder / "token"), overrides=SETTINGS)
    stand_in_trainer.register(made.state, step_seconds=0.05)
    yield made
    world.stop(made.state)


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
