"""What a run's config.yaml holds is read: nothing in it is composed, looked up or called, and it is never written again."""

import hashlib
import json
import subprocess

import loaded
import pytest

from conf import load
from conf.paths import ROOT
from conf.problem import Problem
from tests.unit.trainer.finished_run import settings
from trainer import __main__ as command
from trainer.record import record

MARK = "print(open('ran', 'w').name)"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "config.yaml").write_text(load.dump(settings()))
    return folder


def train(*words, cwd=ROOT):
    return subprocess.run([*loaded.trainer(), "trainer", *map(str, words)], cwd=cwd, text=True, capture_output=True)


EVIL = [
    f'hydra: {{callbacks: {{mine: {{_target_: builtins.exec, _args_: ["{MARK}"]}}}}}}',
    "defaults: [_self_, {override hydra/job_logging: none}]",
    "hydra: {output_subdir: null, run: {dir: /tmp}}",
]


@pytest.mark.parametrize("more", EVIL)
def test_what_hydra_would_carry_out_ends_the_run_with_a_sentence(run, tmp_path, more):
    """C2: a planted run with somebody's own settings and a callback ran foreign code beside the Hub token."""
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + more + "\n")
    done = train("run", run, cwd=tmp_path)
    assert done.returncode == 1
    assert "is more than data" in (run / "log.txt").read_text()
    assert json.loads((run / "state.json").read_text())["reason"] == "damaged_run"
    assert not (tmp_path / "ran").exists() and not (run / "ran").exists()


def test_a_runs_folder_is_not_composed_by_hand_either(run, tmp_path):
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + EVIL[0] + "\n")
    for words in (["--config-dir", run], [f"--config-dir={run}"], ["-cd", run]):
        done = train(*words, "--config-name", "config", cwd=tmp_path)
        assert done.returncode == 1 and "python -m trainer run" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_settings_with_another_hash_than_the_one_that_was_sent_are_not_used(run):
    sha256 = hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()
    assert record.settings(run, sha256).name == settings().name
    (run / "config.yaml").write_text(load.dump(settings("lora.r=4")))
    with pytest.raises(Problem, match="is not what was sent"):
        record.settings(run, sha256)
    assert train("run", run, sha256).returncode == 1
    assert json.loads((run / "state.json").read_text())["reason"] == "damaged_run"


@pytest.mark.parametrize("words", [["run"], ["run", "/nowhere/at/all"], ["run", ".", "0" * 64, "more"]])
def test_without_a_runs_folder_it_says_so(words):
    done = train(*words)
    assert done.returncode == 1 and "which run?" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "before", "now"),
    [("auto", "yes", "yes"), ("auto", "no", "auto"), ("auto", None, "auto"), ("no", "no", "no"), ("yes", "no", "yes")],
)
def test_a_later_attempt_goes_by_what_was_decided_and_a_smaller_card_may_still_recompute(run, monkeypatch, typed, before, now):
    decisions = []
    monkeypatch.setattr("trainer.train.recipe.run", lambda settings, *_: decisions.append(settings.train.gradient_checkpointing))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (run / "config.yaml").write_text(load.dump(settings(f"train.gradient_checkpointing={typed}")))
    if before:
        (run / record.DECIDED).write_text(json.dumps({"recompute": before}))
    command.run(run, None)
    assert decisions == [now]


def test_what_was_decided_is_read_only_where_it_was_left_open(run):
    (run / record.DECIDED).write_text('{"recompute": "yes"}')
    assert record.settings(run).train.gradient_checkpointing == "yes"
    (run / "config.yaml").write_text(load.dump(settings("train.gradient_checkpointing=no")))
    assert record.settings(run).train.gradient_checkpointing == "no"
    (run / "config.yaml").write_text(load.dump(settings()))
    for text in ("[]", "{", '{"recompute": "${oc.env:HOME}"}', '{"recompute": ["yes"]}'):
        (run / record.DECIDED).write_text(text)
        with pytest.raises(Problem, match="is not as a trainer writes it"):
            record.settings(run)
