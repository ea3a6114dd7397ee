"""Plans are data, checked as they are built; performing one stops at the first failure and says what to try."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import instance
from remote.plan import answers, verbs
from remote.plan.perform import Outcome, outline, perform, rehearse
from remote.plan.plan import Plan, Retry, Step, fits
from remote.transport.transport import Result

ROOT = Path(__file__).resolve().parents[4]
NO_ACCOUNT = None
PLACE = {"REGION": "r", "MOUNT_PATH": "/m"}


class Recorder:
    """A transport that returns the test's answers and records the scripts it was given."""

    def __init__(self, *results: Result):
        self.results = list(results)
        self.scripts = []
        self.instances = []

    def __call__(self, aws, instance_id):
        self.instances.append(instance_id)
        return self

    def run(self, script, timeout, title=""):
        self.scripts.append(script)
        return self.results.pop(0)


@dataclass(frozen=True)
class Box:
    instance_id: str
    image: str | None
    up: bool
    minutes: int


def find(aws, name: str = "mine") -> Box:
    """Find a box."""
    return Box("i-1", "reg/name@sha256:1", True, 3)


def use(aws, instance_id: str, hours: float = 1, image: str | None = None) -> None:
    """Use a box."""


def two_steps():
    plan = Plan()
    box = plan.call(find)()
    plan.step("deploy", answers.Deploy, on=box.instance_id)(**PLACE, IMAGE=box.image, BUILT=False)
    stop(plan, box)
    return plan


def stop(plan: Plan, box: Box) -> answers.Stop:
    return plan.step("stop", answers.Stop, on=box.instance_id)(**PLACE, FORCE=False)


STOPPED = Result(0, "@@ stopped_run=\n@@ changed=yes\n")


def test_stops_at_the_first_failing_step_and_says_what_to_try():
    box = Recorder(Result(7, stderr="no space left\n"))
    with pytest.raises(Problem, match=r"deploy\.sh failed with exit code 7\nno space left\n\nhint: "):
        perform(two_steps(), NO_ACCOUNT, box)
    assert len(box.scripts) == 1


def test_a_scripts_own_sentence_is_what_the_user_reads():
    box = Recorder(Result(1, "@@ reason=disk_full\n@@ problem=the volume is full\n@@ hint=raise `box.disk_gb`\n"))
    with pytest.raises(Problem) as caught:
        perform(two_steps(), NO_ACCOUNT, box)
    assert (caught.value.what, caught.value.hint, caught.value.reason) == ("the volume is full", "raise `box.disk_gb`", "disk_full")


def test_what_one_part_finds_out_reaches_the_next():
    box = Recorder(Result(0, "@@ changed=no\n@@ image=i\n"), STOPPED)
    outcome = perform(two_steps(), NO_ACCOUNT, box)
    assert outcome.of(answers.Deploy).changed is False
    assert "IMAGE=reg/name@sha256:1" in box.scripts[0]
    assert box.instances == ["i-1", "i-1"]


def test_a_step_is_run_again_while_it_says_so_and_its_words_are_for_people(monkeypatch, capsys):
    def plan():
        made = Plan()
        box = made.call(find)()
        build = dict.fromkeys(("NAME", "TAG", "CONTEXT", "SHA256", "ARGUMENTS", "REVISION", "ATTEMPT", "BUILDER", "PATIENCE"), "x")
        made.step("build", answers.Build, on=box.instance_id, repeat_while="building")(**PLACE, **build)
        return made

    seen = []
    monkeypatch.setattr(screen, "status", seen.append)
    box = Recorder(Result(0, "@@ building=yes\n", "before\nat it\n"), Result(0, "@@ building=no\n@@ changed=yes\n", "of no interest\n"))
    assert perform(plan(), NO_ACCOUNT, box).of(answers.Build) == answers.Build(building=False, changed=True)
    assert len(box.scripts) == 2
    assert seen[-1] == "at it" and seen[-2].startswith("Have this box build")
    with pytest.raises(Problem):
        perform(plan(), NO_ACCOUNT, Recorder(Result(1, "@@ problem=p\n@@ hint=h\n@@ reason=crashed\n", "its last words\n")))
    assert "    its last words\n" in capsys.readouterr().err


class Busy(Problem):
    pass


def test_what_may_come_is_tried_again_while_the_lock_is_renewed_and_for_no_longer_than_was_asked(monkeypatch, capsys):
    tries, renewed, clock = [], [], [0.0]
    monkeypatch.setattr("remote.plan.perform.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("remote.plan.perform.time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def launch(aws) -> Box:
        tries.append(clock[0])
        if len(tries) < 3:
            raise Busy("no room", "`inv up`", "refused")
        return find(aws)

    def plan(seconds: float) -> Plan:
        made = Plan()
        held = made.call(find)()
        made.hold(held.minutes, lambda aws, value: renewed.append(value), lambda aws, value: None)
        made.call(launch, retry=Retry(Busy, seconds))()
        return made

    assert perform(plan(100), NO_ACCOUNT, Recorder()).of(Box)
    assert tries == [0, 60, 100] and len(renewed) == 3
    assert capsys.readouterr().err.count("no room; next try in ") == 2
    tries.clear()
    with pytest.raises(Busy):
        perform(plan(50), NO_ACCOUNT, Recorder())
    assert len(tries) == 2, "at once, and after 50 seconds for the last time"


def test_a_plan_is_the_same_twice_and_can_be_rehearsed_without_an_account():
    run = load.load(["cloud=aws", "experiment=medical_ie_8b"])
    assert verbs.deploy(run, ROOT) == verbs.deploy(run, ROOT)
    assert verbs.deploy(run, ROOT) != verbs.stop_run(run)
    text = rehearse(verbs.up(run)) + rehearse(verbs.down(run, False))
    assert "call   Find the box by its tag" in text
    assert "MOUNT_PATH=/mnt/training" in text
    assert "FORCE=no" in text
    assert "[instance_id=<instance_id>]" in text
    assert outline(verbs.down(run, False)).splitlines()[2].startswith("  stop.sh on the box: Leave the box fit to be stopped")


class Dead:
    """A box that takes no commands."""

    def __call__(self, aws, instance_id):
        return self

    def run(self, script, timeout, title=""):
        raise Problem("the box did not take the command", "`inv up`", reason="unreachable")


@pytest.mark.parametrize("force", [True, False])
def test_only_with_force_a_box_that_takes_no_commands_is_stopped_all_the_same(force, capsys):
    def running(aws) -> instance.Existing:
        return instance.Existing("i-1", running=True)

    def stopped(aws) -> instance.Stopped:
        return instance.Stopped("stopped")

    (usual,) = [part for part in verbs.down(load.load(["cloud=twin"]), force) if isinstance(part, Step)]
    plan = Plan()
    box = plan.call(running, announce=False)()
    plan.step("stop", answers.Stop, on=box.instance_id, when=box.running, continue_message=usual.continue_message)(**usual.inputs)
    plan.call(stopped, announce=False)()
    if force:
        assert perform(plan, NO_ACCOUNT, Dead()).of(instance.Stopped).state == "stopped"
        assert "did not take the command; the box is stopped anyway" in capsys.readouterr().err
    else:
        with pytest.raises(Problem, match="did not take the command"):
            perform(plan, NO_ACCOUNT, Dead())


def test_a_wrong_clock_is_called_a_wrong_clock():
    box = Recorder(Result(255, stderr="An error occurred (RequestTimeTooSkewed) when calling the GetObject operation: ...\n"))
    with pytest.raises(Problem, match="the box's clock is wrong.*\n\nhint: `inv down` and `inv up`"):
        perform(two_steps(), NO_ACCOUNT, box)


def test_the_box_adds_to_what_is_known_and_replaces_none_of_it():
    """Its answer could have named the instance that the next part stops, or the run that is published."""
    for evil in ("instance_id=i-of-another", "image=evil@sha256:1", "lock=mine"):
        plan = Plan()
        stop(plan, plan.call(find)())
        with pytest.raises(Problem, match=r"stop\.sh answers .*, and it is not for a script to say that"):
            perform(plan, NO_ACCOUNT, Recorder(Result(0, f"@@ stopped_run=\n@@ changed=no\n@@ {evil}\n")))
    plan = two_steps()
    plan.call(use)(instance_id=plan.parts[1].on, image=plan.parts[1].inputs["IMAGE"])
    box = Recorder(Result(0, "@@ image=evil@sha256:1\n@@ changed=no\n"), STOPPED)
    outcome = perform(plan, NO_ACCOUNT, box)
    assert outcome.value(plan.parts[1].inputs["IMAGE"]) == "reg/name@sha256:1"
    assert (outcome.of(answers.Deploy).changed, outcome.of(answers.Stop).changed) == (False, True)


@pytest.mark.parametrize("number", ["--5", "-", "9" * 5000, "\u0663", "1e3", ""])
def test_a_number_that_is_none_is_a_sentence(number):
    with pytest.raises(Problem, match="which is no whole number"):
        answers.read("volume", answers.Volume, {"mount": "/mnt", "free_gb": number, "formatted": "no", "changed": "no"})


def test_a_fact_without_a_value_is_a_sentence():
    said = Result(0, "@@ stopped_run=\n@@ changed=no\n@@ hello\n").facts
    with pytest.raises(Problem, match="it is not for a script to say that"):
        answers.read("stop", answers.Stop, said)


@pytest.mark.parametrize("lines", [("problem=no",), ("problem=no", "reason=of its own"), ("problem=no", "hint=x", "reason=")])
def test_a_failure_that_is_told_in_part_or_in_a_word_of_its_own_is_a_sentence(lines):
    plan = Plan()
    stop(plan, plan.call(find)())
    with pytest.raises(Problem) as told:
        perform(plan, NO_ACCOUNT, Recorder(Result(1, "".join(f"@@ {line}\n" for line in lines))))
    assert (told.value.what, told.value.reason) == ("no", "crashed") and told.value.hint


@pytest.mark.parametrize("end", ["\u2028", "\x0b", "\x85", "\r", "\x1c"])
def test_only_a_line_feed_ends_a_fact(end):
    """What names a run or quotes docker may hold what Python takes for the end of a line."""
    assert Result(0, f"@@ gpu=a{end}@@ changed=yes\n@@ changed=no\n").facts == {"gpu": f"a{end}@@ changed=yes", "changed": "no"}


def test_a_plan_with_a_wrong_field_cannot_be_built():
    box = Plan().call(find)()
    with pytest.raises(AttributeError, match=r"find does not find out `instance`; it finds out instance_id, image, up, minutes"):
        print(box.instance)
    with pytest.raises(AttributeError, match=r"use does not find out `state`; it finds out nothing"):
        print(Plan().call(use)(instance_id="i-1").state)


def test_a_plan_with_a_missing_or_an_unknown_input_cannot_be_built():
    with pytest.raises(TypeError, match=r"use: missing a required argument: 'instance_id'"):
        Plan().call(use)()
    with pytest.raises(TypeError, match=r"use: got an unexpected keyword argument 'instance'"):
        Plan().call(use)(instance_id="i-1", instance="i-1")
    with pytest.raises(TypeError, match=r"stop\.sh lacks the setting FORCE"):
        Plan().step("stop", answers.Stop, on="i-1")(**PLACE)
    with pytest.raises(TypeError, match=r"stop\.sh has no setting FORCED"):
        Plan().step("stop", answers.Stop, on="i-1")(**PLACE, FORCE=True, FORCED=True)


def test_a_plan_with_a_reference_to_another_plans_part_cannot_be_built():
    theirs, plan = Plan().call(find)(), Plan()
    plan.call(find)()
    for wrong in (
        lambda: plan.call(use)(instance_id=theirs.instance_id),
        lambda: plan.call(find, when=theirs.up)(),
        lambda: plan.step("stop", answers.Stop, on=theirs.instance_id)(**PLACE, FORCE=True),
        lambda: plan.done("{id}", id=theirs.instance_id),
        lambda: plan.hold(theirs.image, print, print),
        lambda: plan.call(use)(instance_id="i-1", image=plan.latest(theirs.image)),
    ):
        with pytest.raises(TypeError, match="is not what a part of this plan finds out"):
            wrong()


def test_a_plan_with_a_mistyped_input_cannot_be_built():
    plan = Plan()
    box = plan.call(find)()
    plan.call(use)(instance_id=plan.latest(box.image), hours=box.minutes, image=box.image)
    for inputs, words in (
        ({"instance_id": box.minutes}, r"use takes instance_id: str, and not <minutes>: int"),
        ({"instance_id": box.image}, r"use takes instance_id: str, and not <image>: str \| None"),
        ({"instance_id": "i-1", "hours": box.up}, r"use takes hours: float, and not <up>: bool"),
        ({"instance_id": 5}, r"use takes instance_id: str, and not 5: int"),
    ):
        with pytest.raises(TypeError, match=words):
            plan.call(use)(**inputs)
    for condition in (box.instance_id, False, "yes"):
        with pytest.raises(TypeError, match="which is no yes or no that an earlier part finds out"):
            plan.call(find, when=condition)()
    with pytest.raises(TypeError, match="which is no yes or no that it answers"):
        plan.step("stop", answers.Stop, on="i-1", repeat_while="stopped_run")(**PLACE, FORCE=True)


def test_a_plan_with_an_input_that_may_not_be_known_cannot_be_built():
    plan = Plan()
    box = plan.call(find)()
    again = plan.call(find, when=box.up)()
    plan.call(use, when=box.up)(instance_id=again.instance_id)
    plan.call(use)(instance_id=plan.latest(box.instance_id, again.instance_id))
    spared = plan.step("stop", answers.Stop, on="i-1", continue_message="it is stopped anyway")(**PLACE, FORCE=True)
    for value in (again.instance_id, plan.latest(again.instance_id), spared.stopped_run):
        with pytest.raises(TypeError, match="is not known: the part that finds it out may be left out"):
            plan.call(use)(instance_id=value)
    with pytest.raises(TypeError, match=r"the final words '\{name\}' name \['name'\], and are given \['box'\]"):
        plan.done("{name}", box=box.instance_id)


def test_the_final_words_have_what_was_found_out():
    def away(aws) -> Box:
        return Box("i-0", None, False, 3)

    plan = Plan()
    box = plan.call(away)()
    again = plan.call(find, when=box.up)()
    plan.done("{id}: {up}, {name}", id=plan.latest(box.instance_id, again.instance_id), up=box.up, name="mine")
    assert perform(plan, NO_ACCOUNT, None).done == "i-0: no, mine"


def test_when_a_part_fails_what_is_known_by_then_is_said(capsys):
    def words(instance_id: str | None, changed: str | None) -> str:
        return f"{instance_id} is on, {changed}" if instance_id else ""

    def broken(aws) -> Box:
        raise Problem("no", "try again")

    for first in (find, broken):
        plan = Plan()
        box = plan.call(first)()
        plan.on_failure(words)(instance_id=box.instance_id, changed=plan.call(broken)().image)
        outcome = Outcome()
        with pytest.raises(Problem, match="no"):
            perform(plan, NO_ACCOUNT, None, outcome)
        assert ("i-1 is on, None" in capsys.readouterr().err) == (first is find)
        assert (outcome.of(Box) is not None) == (first is find)


def test_a_type_fits_where_each_of_its_values_does():
    for declared, wanted in ((int, float), (str, str | None), (tuple[str, ...], tuple[str, ...] | None), (list[str], list), (Path, object)):
        assert fits(declared, wanted)
    for declared, wanted in ((float, int), (str | None, str), (bool, int), (list[str], list[int]), (str, Path)):
        assert not fits(declared, wanted)
    assert fits(instance.StartKind | None, str | None) and not fits(str, instance.StartKind)
