"""Every verb ends in a sentence where somebody else is at fault, and a room's own verb is left as it is."""

import subprocess
import sys

import pytest
from invoke import Collection, Context, Exit, task

import tasks
from conf import cli
from conf.paths import ROOT
from conf.problem import Problem
from twin.world import WorldError


@task
def problem(c):
    raise Problem("the box is off", "`inv up`")


@task
def twin(c):
    raise WorldError("there is no fault `rain`")


@task
def mistake(c):
    raise ZeroDivisionError


def test_a_verb_of_a_room_ends_in_a_sentence_with_a_hint():
    verbs = Collection()
    verbs.add_collection(Collection("room", problem, twin, mistake))
    cli.user_errors(verbs, tasks.explain)
    with pytest.raises(Exit) as ended:
        verbs["room.problem"](Context())
    assert ended.value.message == "error: the box is off\n\nhint: `inv up`"
    with pytest.raises(Exit) as ended:
        verbs["room.twin"](Context())
    assert ended.value.message.startswith("error: there is no fault `rain`\n\nhint: `inv twin.status`")
    with pytest.raises(ZeroDivisionError):
        verbs["room.mistake"](Context())
    with pytest.raises(Problem):  # as the room wrote it
        problem(Context())


def test_all_verbs_are_collected_so():
    assert len(tasks.namespace.task_names) > 40
    assert [name for name in tasks.namespace.task_names if not hasattr(tasks.namespace[name].body, "__wrapped__")] == []


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", ""])
def test_an_option_that_is_no_positive_integer_is_refused(text):
    assert cli.positive_integer("--tail", None) is None and cli.positive_integer("--tail", "10") == 10
    with pytest.raises(Problem, match=f"--tail is {text}"):
        cli.positive_integer("--tail", text)


def test_an_option_takes_hours_minutes_or_seconds():
    assert [cli.seconds("--wait", text) for text in ("2h", "1.5h", "90m", "30s")] == [7200, 5400, 5400, 30]


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "two hours", "-1h", "1e3s", "²h", "1.2.3h", "nanh"])
def test_an_option_that_is_no_length_of_time_is_refused(text):
    with pytest.raises(Problem, match=r"--wait is (.|\n)*it takes hours, minutes or seconds: `--wait 2h`") as refusal:
        cli.seconds("--wait", text)
    assert refusal.value.reason == "bad_config"


def inv(*words):
    return subprocess.run([sys.executable, "-m", "invoke", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("words", [["predict", "--help"], ["compare", "one", "-h"], ["twin.fault", "--help", "--", "cloud=twin"]])
def test_help_executes_nothing(words):
    """To Invoke, `--help` behind a verb that wants a text is that text: the model answered it."""
    shown = inv(*words)
    assert shown.returncode == 0 and shown.stdout.startswith("Usage: ") and words[0] in shown.stdout.splitlines()[0], shown.stderr


def test_a_verb_that_lacks_a_text_is_told_in_a_sentence():
    refused = inv("compare", "one")
    assert refused.returncode == 1 and refused.stderr.startswith("error: `inv compare` lacks SECOND: id of another finished run\n\nhint: ")
