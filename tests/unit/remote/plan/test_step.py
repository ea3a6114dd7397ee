"""Scripts as they travel: self-contained, quoted, ShellCheck-clean, and small enough for Run Command."""

import subprocess
import sys
from pathlib import Path

import pytest

from conf import load
from remote.plan import step, verbs
from remote.plan.step import Fact, Step
from remote.transport import transport
from remote.transport.transport import Result

ROOT = Path(__file__).resolve().parents[4]
SHARED = sorted({name for names in step.ABOVE.values() for name in names})
SCRIPTS = sorted(path.stem for path in step.SCRIPTS.glob("*.sh") if path.stem not in ("lib", *SHARED))
IMAGE = {"NAME": "127.0.0.1:5000/n", "TAG": "t", "CONTEXT": "s3://b/c.tar", "SHA256": "0", "ARGUMENTS": "A=1", "REVISION": "0"}
SETTINGS = {
    "setup": {"INSTANCE": "i-1", "GPU": "yes", "SUPERVISOR": "#!/bin/bash\necho it's me", "PATIENCE": "1"},
    "volume": {"VOLUME": "vol-0abc", "OURS": "yes", "SIZE_GB": "1", "PATIENCE": "1"},
    "look": {"HOSTS": "hub=127.0.0.1:1", "GPU": "no"},
    "deploy": {"IMAGE": "127.0.0.1:5000/name@sha256:0"},
    "train": {"RUN_ID": "r", "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "INPUTS": "", "HUB_SECRET": "s", "GPU": "no", "NEED_GB": "1"},
    "predict": {"RUN_ID": "r", "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "ASKED": "questions/1", "HUB_SECRET": "s", "GPU": "no"},
    "evaluate": {"RUN_ID": "r", "IMAGE": "i", "BUCKET": "b", "PREFIX": "p", "ROWS": "0", "FILE": "r.jsonl", "SPLIT": "r", "SCAFFOLD": "no"}
    | {"HUB_SECRET": "s", "GPU": "no"},
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


def test_shellcheck_finds_nothing_with_no_rule_disabled():
    """All scripts as one text: what the parts above them offer is then used by one or another."""
    shared = "".join(step.body(name) for name in SHARED)
    text = step.compose(SCRIPTS[0], PLACE) + shared + "\n".join(step.body(name) for name in SCRIPTS[1:])
    done = subprocess.run([Path(sys.executable).parent / "shellcheck", "-"], input=text, text=True, capture_output=True)
    assert done.stdout == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_main_comes_last_and_never_eats_the_script(script):
    lines = (step.SCRIPTS / f"{script}.sh").read_text().rstrip().splitlines()
    assert lines[-1] == 'main "$@" </dev/null'


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_setting_is_named(script):
    for name in SETTINGS[script]:
        given = {key: value for key, value in SETTINGS[script].items() if key != name}
        done = bash(step.compose(script, PLACE | given))
        assert done.returncode != 0
        assert any(f"{one}.sh needs {name}" in done.stderr for one in (script, *step.ABOVE.get(script, ())))


@pytest.mark.parametrize("value", ["it's", 'a "b"', "$HOME `id` \\", "two\nlines", "{{ .Names }}", "naïve ünïcode", ""])
def test_a_setting_arrives_as_it_was(value):
    text = step.settings_block({"VALUE": value}) + 'printf "%s" "$VALUE"\n'
    assert bash(transport.packed("#!/bin/bash\n" + text)).stdout == value


def test_the_packed_script_keeps_its_exit_code_and_streams():
    done = bash(transport.packed("#!/bin/bash\necho out; echo err >&2; exit 7\n"))
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_of_a_script_that_was_cut_on_its_way_nothing_runs():
    text = transport.packed("#!/bin/bash\n" + "echo started\n" * 400)
    for length in range(20, len(text) - 2, 7):
        assert bash(text[:length]).stdout == "", length


def test_facts_are_filled_in_or_shown_by_name():
    part = Step("deploy", PLACE | {"IMAGE": Fact("image")})
    assert "IMAGE=reg/name@sha256:1" in part.text({"image": "reg/name@sha256:1"})
    assert "<image>" in part.text({})


def test_every_script_of_a_plan_fits_into_one_command():
    run = load.load(["cloud=twin"])
    for verb in (verbs.up(run), verbs.deploy(run, ROOT), verbs.train(run, ROOT, lambda: None, False), verbs.down(run, False)):
        for part in verb:
            if isinstance(part, Step):
                assert len(transport.packed(part.text({}))) < 24_000


def test_only_marked_lines_are_facts():
    found = Result(0, "chatter\n@@ a=1\n@@ b=x=y\n@@ empty=\n", "").facts
    assert found == {"a": "1", "b": "x=y", "empty": ""}
