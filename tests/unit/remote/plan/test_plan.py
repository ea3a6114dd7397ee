"""Plans are data; performing one stops at the first failure and says what to try."""

from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote.plan import verbs
from remote.plan.step import Call, Fact, Step
from remote.transport.transport import Result

ROOT = Path(__file__).resolve().parents[4]
NO_ACCOUNT = None


class Recorder:
    """A transport that answers what it is told and keeps what it was given."""

    def __init__(self, *results: Result):
        self.results = list(results)
        self.scripts = []

    def __call__(self, aws, instance_id):
        return self

    def run(self, script, timeout, title=""):
        self.scripts.append(script)
        return self.results.pop(0)


def found(aws) -> dict:
    """Find a box."""
    return {"instance_id": "i-1", "image": "reg/name@sha256:1"}


def two_steps():
    settings = {"REGION": "r", "MOUNT_PATH": "/m", "IMAGE": Fact("image"), "BUILT": "no"}
    return [Call(found), Step("deploy", settings), Step("stop", {"REGION": "r", "MOUNT_PATH": "/m", "FORCE": "no"})]


def test_stops_at_the_first_failing_step_and_says_what_to_try():
    box = Recorder(Result(7, stderr="no space left\n"))
    with pytest.raises(Problem, match=r"deploy\.sh failed with exit code 7\nno space left\n\nhint: "):
        verbs.perform(two_steps(), NO_ACCOUNT, box)
    assert len(box.scripts) == 1


def test_a_scripts_own_sentence_is_what_the_user_reads():
    box = Recorder(Result(1, "@@ reason=disk_full\n@@ problem=the volume is full\n@@ hint=raise `box.disk_gb`\n"))
    with pytest.raises(Problem) as caught:
        verbs.perform(two_steps(), NO_ACCOUNT, box)
    assert (caught.value.what, caught.value.hint, caught.value.reason) == ("the volume is full", "raise `box.disk_gb`", "disk_full")


def test_what_one_part_finds_out_reaches_the_next():
    box = Recorder(Result(0, "@@ changed=no\n"), Result(0))
    facts = verbs.perform(two_steps(), NO_ACCOUNT, box)
    assert facts["changed"] == "no"
    assert "IMAGE=reg/name@sha256:1" in box.scripts[0]


def test_a_step_is_run_again_while_it_says_so_and_its_words_are_for_people(capsys):
    box = Recorder(Result(0, "@@ building=yes\n", "at it\n"), Result(0, "@@ building=no\n", "of no interest\n"))
    step = Step("stop", {"REGION": "r", "MOUNT_PATH": "/m", "FORCE": "no"}, again=Fact("building"))
    assert verbs.perform([Call(found), step], NO_ACCOUNT, box)["building"] == "no"
    assert len(box.scripts) == 2
    said = capsys.readouterr().err
    assert "    at it\n" in said and "of no interest" not in said
    with pytest.raises(Problem):
        verbs.perform(
            [Call(found), step], NO_ACCOUNT, Recorder(Result(1, "@@ problem=p\n@@ hint=h\n@@ reason=crashed\n", "its last words\n"))
        )
    assert "    its last words\n" in capsys.readouterr().err


def test_a_plan_is_the_same_twice_and_can_be_rehearsed_without_an_account():
    run = load.load(["cloud=aws", "experiment=medical_ie_8b"])
    assert verbs.deploy(run, ROOT) == verbs.deploy(run, ROOT)
    text = verbs.rehearse(verbs.up(run)) + verbs.rehearse(verbs.down(run, False))
    assert "call   Find the box by its tag" in text
    assert "MOUNT_PATH=/mnt/training" in text
    assert "FORCE=no" in text


class Dead:
    """A box that takes no commands."""

    def __call__(self, aws, instance_id):
        return self

    def run(self, script, timeout, title=""):
        raise Problem("the box did not take the command", "`inv up`", reason="unreachable")


@pytest.mark.parametrize("force", [True, False])
def test_only_with_force_a_box_that_takes_no_commands_is_stopped_all_the_same(force, capsys):
    (stop,) = [part for part in verbs.down(load.load(["cloud=twin"]), force) if isinstance(part, Step)]
    parts = [Call(lambda aws: {"instance_id": "i-1", "running": "yes"}, said=False), stop, Call(lambda aws: {"stopped": "yes"}, said=False)]
    if force:
        assert verbs.perform(parts, NO_ACCOUNT, Dead())["stopped"] == "yes"
        assert "did not take the command; the box is stopped all the same" in capsys.readouterr().err
    else:
        with pytest.raises(Problem, match="did not take the command"):
            verbs.perform(parts, NO_ACCOUNT, Dead())


def test_a_wrong_clock_is_called_a_wrong_clock():
    box = Recorder(Result(255, stderr="An error occurred (RequestTimeTooSkewed) when calling the GetObject operation: ...\n"))
    with pytest.raises(Problem, match="the box's clock is wrong.*\n\nhint: `inv down` and `inv up`"):
        verbs.perform(two_steps(), NO_ACCOUNT, box)


def test_the_box_adds_to_what_is_known_and_replaces_none_of_it():
    """Its answer could have named the instance that the next part stops, or the run that is published."""
    step = Step("stop", {"REGION": "r", "MOUNT_PATH": "/m", "FORCE": "no"})
    for evil in ("instance_id=i-of-another", "image=evil@sha256:1", "lock=mine"):
        box = Recorder(Result(0, f"@@ {evil}\n"))
        with pytest.raises(Problem, match=r"stop\.sh answers .*, and it is"):
            verbs.perform([Call(found), Call(lambda aws: {"lock": {}}, said=False), step], NO_ACCOUNT, box)
    box = Recorder(Result(0, "@@ image=reg/name@sha256:1\n@@ free_gb=3\n@@ changed=no\n"), Result(0, "@@ free_gb=2\n@@ changed=yes\n"))
    facts = verbs.perform([Call(found), step, step], NO_ACCOUNT, box)
    assert (facts["free_gb"], facts["changed"]) == ("2", "yes")
