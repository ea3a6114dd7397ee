"""Scripts as they travel: self-contained, quoted, and small enough for Run Command."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from remote.build.ecr import Image
from remote.plan import answers, script, verbs
from remote.plan.answers import Deploy
from remote.plan.plan import Plan, Step
from remote.transport import transport
from remote.transport.transport import Result

ROOT = Path(__file__).resolve().parents[4]
SHARED = sorted({name for names in script.ABOVE.values() for name in names})
SCRIPTS = sorted(path.stem for path in script.SCRIPTS.glob("*.sh") if path.stem not in ("lib", *SHARED))
IMAGE = {"NAME": "127.0.0.1:5000/n", "TAG": "t", "CONTEXT": "s3://b/c.tar", "SHA256": "0", "ARGUMENTS": "A=1", "REVISION": "0"}
MODEL = {"MANIFEST": "0", "HUB_SECRET": "s", "GPU": "no"}
SETTINGS = {
    "setup": {"INSTANCE": "i-1", "GPU": "yes", "SUPERVISOR": "#!/bin/bash\necho it's me", "PRICE": "", "PATIENCE": "1", "LIFE_LEFT": ""},
    "volume": {"VOLUME": "vol-0abc", "OURS": "yes", "SIZE_GB": "1", "PATIENCE": "1"},
    "attend": {"SECONDS_HELD": "60"},
    "probe": {"HOSTS": "hub=127.0.0.1:1", "GPU": "no"},
    "deploy": {"IMAGE": "127.0.0.1:5000/name@sha256:0"},
    "train": {"RUN_ID": "r", "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "INPUTS": "", "HUB_SECRET": "s", "GPU": "no", "NEED_GB": "1"},
    "serve": {"RUN_ID": "r", "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "UNASKED": 300, "PATIENCE": 1} | MODEL,
    "predict": {"RUN_ID": "r", "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "ASKED": "questions/1"} | MODEL,
    "evaluate": {
        "RUN_ID": "r",
        "IMAGE": "i",
        "BUCKET": "b",
        "PREFIX": "p",
        "ROWS": "0",
        "FILE": "r.jsonl",
        "SPLIT": "r",
        "SCAFFOLD": "no",
        "SCHEMA": "no",
    }
    | MODEL,
    "supervise": {
        "BUCKET": "b",
        "PREFIX": "p",
        "LOG_GROUP": "/l",
        "STREAM_PREFIX": "s",
        "HUB_SECRET": "h",
        "TOKEN_AGE": "600",
        "PERIOD": "5",
        "IDLE": "60",
        "LIFE": "600",
        "GPU": "no",
        "NOTIFY_ON": "",
        "TOPIC": "",
        "WEBHOOK_SECRET": "",
        "BOX_NAME": "b",
    },
    "stop": {"FORCE": "no"},
    "cancel": {},
    "clean": {"KEPT": ""},
    "held": {},
    "image": IMAGE,
    "build": IMAGE | {"ATTEMPT": "1", "BUILDER": "#!/bin/bash", "PATIENCE": "1"},
}
PLACE = {"REGION": "us-east-1", "MOUNT_PATH": "/mnt/training"}


def bash(text: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash"], input=text, text=True, capture_output=True, env={"PATH": "/usr/bin:/bin", **environment})


@pytest.mark.parametrize("name", SCRIPTS)
def test_main_comes_last_and_never_eats_the_script(name):
    lines = (script.SCRIPTS / f"{name}.sh").read_text().rstrip().splitlines()
    assert lines[-1] == 'main "$@" </dev/null'


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_missing_setting_is_named(name):
    for setting in SETTINGS[name]:
        settings = {key: value for key, value in SETTINGS[name].items() if key != setting}
        done = bash(script.compose(name, PLACE | settings))
        assert done.returncode != 0
        assert any(f"{one}.sh needs {setting}" in done.stderr for one in (name, *script.ABOVE.get(name, ())))
        assert setting in script.needs(name)


@pytest.mark.parametrize("value", ["it's", 'a "b"', "$HOME `id` \\", "two\nlines", "{{ .Names }}", "naïve ünïcode", ""])
def test_a_setting_arrives_as_it_was(value):
    text = script.settings_block({"VALUE": value}) + 'printf "%s" "$VALUE"\n'
    assert bash(transport.pack("#!/bin/bash\n" + text)).stdout == value


def test_the_packed_script_keeps_its_exit_code_and_streams():
    done = bash(transport.pack("#!/bin/bash\necho out; echo err >&2; exit 7\n"))
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_of_a_script_that_was_cut_on_its_way_nothing_runs():
    text = transport.pack("#!/bin/bash\n" + "echo started\n" * 400)
    for length in range(20, len(text) - 2, 7):
        assert bash(text[:length]).stdout == "", length


def test_references_are_filled_in_or_shown_by_name():
    plan = Plan()
    image = plan.call(ready)().image
    plan.step("deploy", Deploy, on="i-1")(**PLACE, IMAGE=image, BUILT=False)
    assert "IMAGE=reg/name@sha256:1" in plan.parts[1].text(lambda value: "reg/name@sha256:1" if value == image else value)
    assert "<image>" in plan.parts[1].text()
    assert "BUILT=no" in plan.parts[1].text()


def ready(aws) -> Image:
    """Find the image."""
    return Image("reg/name@sha256:1")


@pytest.mark.parametrize("name", sorted(script.SCRIPTS.glob("*.sh")), ids=lambda path: path.stem)
def test_what_a_script_answers_is_what_its_header_says(name):
    """And nothing else: `read` refuses it."""
    text = name.read_text()
    headers = re.findall(r"^#   out:  facts (.*(?:\n#         .*)*)", text, re.MULTILINE)
    named = {word for header in headers for word in re.sub(r"\([^)]*\)|\n#", "", header).replace(",", " ").split()}
    kind = getattr(answers, name.stem.capitalize(), None)
    assert named == ({one.name for one in fields(kind)} if kind else set())
    if kind:
        assert named == set(re.findall(r"^ *fact (\w+)", text, re.MULTILINE))


def test_an_answer_has_the_types_that_were_declared():
    facts = {"mounted": "yes", "going": "a b", "whole": ""}
    assert answers.read("held", answers.Held, facts) == answers.Held(True, ("a", "b"), ())
    assert answers.read("clean", answers.Clean, {"changed": "no", "freed_gb": "-3"}) == answers.Clean(False, -3)
    for wrong, words in (
        ({"changed": "maybe"}, "clean.sh answers changed=maybe, which is no yes or no"),
        ({"changed": "no", "freed_gb": "lots"}, "clean.sh answers freed_gb=lots, which is no whole number"),
        ({"freed_gb": "3"}, "clean.sh does not answer changed"),
        ({"changed": "no", "instance_id": "i-2"}, "clean.sh answers instance_id=i-2, and it is not for a script to say that"),
    ):
        with pytest.raises(Problem, match=words):
            answers.read("clean", answers.Clean, wrong)


def test_every_script_of_a_plan_fits_into_one_command():
    run = load.load(["cloud=twin"])
    for verb in (verbs.up(run), verbs.deploy(run, ROOT), verbs.train(run, ROOT, lambda aws, run: None, False), verbs.down(run, False)):
        for part in verb:
            if isinstance(part, Step):
                assert len(transport.pack(part.text())) < 32_000  # of the 48,000 that remote/transport/ssm.py sends


def test_only_marked_lines_are_facts():
    facts = Result(0, "chatter\n@@ a=1\n@@ b=x=y\n@@ empty=\n", "").facts
    assert facts == {"a": "1", "b": "x=y", "empty": ""}
