"""Plans of a fleet: no box is asked, nothing is looked up that only a box has, and each part gets what an earlier one finds out."""

import pytest

from conf import load
from remote.plan import fleet_verbs, verbs
from remote.plan.command import train_plan
from remote.plan.perform import outline, rehearse
from remote.plan.plan import Step
from tests.unit.remote.plan.test_plan import ROOT


def check(aws, run):
    """Check the rows."""


@pytest.fixture
def run():
    return load.load(["cloud=twin", "fleet=batch", "fleet.instance_type=[g6.2xlarge,g5.2xlarge]"], local=ROOT / "none")


def test_training_on_a_fleet_sends_no_script_and_asks_no_box(run):
    plan = fleet_verbs.train(run, ROOT, check, False)
    assert not [part for part in plan if isinstance(part, Step)]
    assert [part.action.__name__ for part in plan] == [
        *("check", "enforce", "check", "find_for_fleet", "prepare", "define", "price", "hand_over", "attach"),
    ]
    assert plan.held is None and plan.next == "`inv publish`, `inv report`"
    assert "AWS Batch" in outline(plan) and "[run_id=<run_id>" in rehearse(plan)


def test_a_detached_one_is_handed_over_and_not_followed(run):
    plan = fleet_verbs.train(run, ROOT, check, True)
    assert plan.parts[-1].action.__name__ == "hand_over"


def test_who_asks_about_a_box_sees_the_fleets_types(run):
    asked = fleet_verbs.train(run, ROOT, check, True).parts[1].inputs["run"]
    assert (asked.box.instance_types, asked.box.name) == (["g6.2xlarge", "g5.2xlarge"], "AWS Batch")
    assert load.fingerprint(asked) == load.fingerprint(run)


def test_the_settings_say_where_a_run_trains(run):
    assert train_plan(run) is fleet_verbs.train
    assert train_plan(load.load(["cloud=twin"], local=ROOT / "none")) is verbs.train
