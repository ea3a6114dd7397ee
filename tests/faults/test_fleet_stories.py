"""AWS, the image, memory or S3 fails while a run is on a fleet: the last sentence is true, what it names gets through, nothing is left.

One account, told from top to bottom. Each story has a run of its own, and every one ends the same: one run, sealed, its log whole.
"""

import re
import subprocess
from pathlib import Path

import pytest
import stand_in_trainer
import stories
from conftest import ODD, Laptop
from fleets import with_fleet
from test_recovery import run_ids, state, trainers, wait_until

from twin import world

pytestmark = pytest.mark.slow  # minutes: instances that are launched, pull an image, fail and go
SETTINGS = ("fleet=batch", f"train.steps={stories.STEPS}", "train.save_steps=2")
THERE = ("pending", "running", "stopping", "shutting-down", "stopped")


class Story:
    """One user with one run, from the first command to the last."""

    root, story = Path("of no box"), stories.Story("of a fleet", "train")  # what the check of a log asks about

    def __init__(self, laptop: Laptop, seed: int, *settings: str):
        self.laptop, self.overrides, self.before = laptop, (*SETTINGS, f"seed={seed}", *settings), set(run_ids(laptop))
        world.clear_faults(laptop.state)

    @property
    def run_id(self) -> str:
        (made,) = wait_until(lambda: set(run_ids(self.laptop)) - self.before)
        return made

    @property
    def state(self) -> dict:
        return state(self.laptop, self.run_id)

    def jobs(self) -> list[dict]:
        """The run's, in every queue, the newest last."""
        batch, every = self.laptop.client("batch"), []
        for queue in ("spot", "on-demand"):
            filters = [{"name": "JOB_NAME", "values": [self.run_id]}]
            every += batch.list_jobs(jobQueue=f"fine-tune-slm-{queue}", filters=filters)["jobSummaryList"]
        return sorted(every, key=lambda job: job["createdAt"])

    def train(self, *more: str) -> subprocess.CompletedProcess:
        return self.laptop.inv("train", *more, overrides=self.overrides)

    def watch(self) -> subprocess.Popen:
        return self.laptop.popen("train", overrides=self.overrides)

    def last_words(self, going: subprocess.Popen) -> tuple[str, str]:
        """The sentence and the hint by which a command ends that was not done."""
        printed, _ = going.communicate(timeout=1800)
        assert going.returncode == 1 and "Traceback" not in printed, printed
        sentence, _, hint = printed.rpartition("error: ")[2].partition("\n\nhint: ")
        return sentence, hint

    def hold(self) -> tuple[str, subprocess.Popen]:
        """The instance on which the trainer waits at its seventh step, with a checkpoint in S3, and who watches it."""
        stand_in_trainer.register(self.laptop.state, step_seconds=0.05, hold_at=7)
        watching = self.watch()
        self.wait_for_checkpoint(6)
        (one,) = [one["InstanceId"] for one in instances(self.laptop, "running") if self.folder(one["InstanceId"]).exists()]
        return one, watching

    def wait_for_checkpoint(self, step: int) -> None:
        wait_until(lambda: any(f"{self.run_id}/checkpoints/step-{step:06d}/COMPLETE" in key for key in self.laptop.objects()))

    def folder(self, instance: str) -> Path:
        return self.laptop.state / "boxes" / instance / "root/var/cache/fine-tune-slm/runs" / self.run_id

    def ends_well(self) -> None:
        assert self.state["phase"] == "done" and "manifest.json" in stories.files(self, self.run_id)
        stories.check_log(self, self.run_id)
        wait_until(lambda: all(job["status"] in ("SUCCEEDED", "FAILED") for job in self.jobs()))
        assert not trainers(self.laptop)


def instances(laptop, *states: str) -> list[dict]:
    pages = laptop.client("ec2").describe_instances()["Reservations"]
    return [one for page in pages for one in page["Instances"] if one["State"]["Name"] in states]


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    made = with_fleet(tmp_path_factory.mktemp(ODD), *SETTINGS)
    yield made
    world.stop(made.state)


def test_an_image_that_goes_before_its_job_begins_is_named_with_what_makes_it_again(account):
    stand_in_trainer.register(account.state, step_seconds=0.05)
    story = Story(account, 1)
    world.fault(account.state, "batch-capacity-never")
    watching = story.watch()
    wait_until(story.jobs)
    world.fault(account.state, "image-gone")
    world.clear_faults(account.state)
    sentence, hint = story.last_words(watching)
    assert "CannotPullContainerError" in sentence and "`inv image.push" in hint and "`inv up deploy down -- " in hint
    assert (story.state["phase"], story.state["reason"]) == ("failed", "unreachable")
    again, _ = story.last_words(story.watch())
    assert "has no image of this tree" in again
    stand_in_trainer.register(account.state, step_seconds=0.05)
    story.train()
    story.ends_well()


def test_a_container_whose_memory_is_full_is_told_as_that_and_its_run_goes_on(account):
    """The kernel ends the carrier itself: the run says nothing of it, ECS does."""
    story = Story(account, 2)
    instance, watching = story.hold()
    world.fault(account.state, "container-oom", instance=instance)
    sentence, hint = story.last_words(watching)
    assert "OutOfMemoryError" in sentence and "exit code 137" in sentence and "train.pack_tokens" in hint
    assert (story.state["phase"], story.state["reason"]) == ("failed", "out_of_memory")
    assert len(story.jobs()) == 1, "it is not tried again: it would end the same"
    story.train()
    story.ends_well()


def cut(account) -> None:
    """Nothing on an instance reaches S3."""
    world.fault(account.state, "request-lost", only="s3.*", by="box", count=0)


def test_an_s3_that_is_cut_in_the_middle_and_comes_back_loses_nothing(account):
    story = Story(account, 3)
    instance, watching = story.hold()
    cut(account)
    (story.folder(instance) / "go").touch()
    wait_until(lambda: "uploading" in (story.folder(instance) / "state.json").read_text())
    world.clear_faults(account.state)
    printed, _ = watching.communicate(timeout=1800)
    assert watching.returncode == 0 and f"{story.run_id} is done" in printed, printed
    story.ends_well()
    assert [job["status"] for job in story.jobs()] == ["SUCCEEDED"]


def test_a_run_whose_s3_does_not_come_back_can_be_ended_and_leaves_nothing(account):
    story = Story(account, 4)
    _, watching = story.hold()
    cut(account)
    said = account.inv("stop-run", "--run", story.run_id, overrides=story.overrides)
    assert f"{story.run_id} is cancelled" in said.stdout + said.stderr
    world.clear_faults(account.state)
    assert "cancelled" in story.last_words(watching)[0]
    assert story.state["phase"] == "cancelled" and not trainers(account)
    assert [job["status"] for job in story.jobs()] == ["FAILED"]


def test_a_run_whose_every_instance_aws_takes_back_says_so_and_goes_on_when_it_is_handed_over_again(account):
    stand_in_trainer.register(account.state, step_seconds=8)
    story = Story(account, 5, "fleet.attempts=2")
    watching = story.watch()
    taken = set()
    for step in (2, 4):
        story.wait_for_checkpoint(step)
        (one,) = {one["InstanceId"] for one in instances(account, "running") if story.folder(one["InstanceId"]).exists()} - taken
        taken.add(one)
        world.fault(account.state, "spot-notice", instance=one, seconds=120)
    sentence, hint = story.last_words(watching)
    assert "AWS takes this spot instance back at" in sentence and "the last of 2 attempts (fleet.attempts)" in sentence
    assert "`inv train" in hint
    stand_in_trainer.register(account.state, step_seconds=0.05)
    assert f"{story.run_id} is done" in story.train().stdout, "at once, whatever Batch still shows"
    story.ends_well()
    assert len(story.jobs()) == 2


def test_a_job_for_which_aws_never_has_an_instance_is_told_with_a_market_that_has_one(account):
    stand_in_trainer.register(account.state, step_seconds=0.05)
    story = Story(account, 6)
    wait_until(lambda: not instances(account, *THERE))  # one that idles would take it
    world.fault(account.state, "batch-capacity-never")
    watching = story.watch()
    wait_until(lambda: any("CAPACITY" in job.get("statusReason", "") for job in story.jobs()))
    world.forward(account.state, 3700)
    sentence, hint = story.last_words(watching)
    assert "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY" in sentence and "fleet.market=on_demand" in hint
    assert (story.state["phase"], story.state["reason"]) == ("failed", "unreachable")
    world.clear_faults(account.state)
    account.inv("train", overrides=(*story.overrides, "fleet.market=on_demand"))
    story.ends_well()


def test_nothing_of_it_is_left_and_the_ledger_is_the_meters(account):
    wait_until(lambda: not instances(account, *THERE))
    rows = world.costs(account.state)["rows"]
    assert [row for row in rows if row["kind"] in ("instance", "volume") and row["until"] is None] == []
    costs = account.inv("costs", overrides=SETTINGS).stdout
    lines = re.findall(r"^(i-\w+) g6.2xlarge (?:spot|on demand) .* (\S+) *$", costs, re.MULTILINE)
    metered = [row for row in rows if row["kind"] == "instance"]
    assert {one for one, _ in lines} == {row["id"] for row in metered} and len(lines) == len(metered), costs
    assert sum(float(usd) for _, usd in lines) == pytest.approx(sum(row["usd"] for row in metered), abs=0.01)
