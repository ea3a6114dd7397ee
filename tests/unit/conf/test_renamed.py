"""Every old name of a setting works: typed, in a file, and in a saved run. Whoever can change it is told once."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conf import load, renamed, setting_types, yaml_file
from conf.paths import ROOT
from conf.problem import Problem
from conf.process import argv
from conf.sweep import grid
from remote.sweep.command import USAGE

# A run's config.yaml as the release before wrote it, and what that release called its fingerprint.
OLD = (Path(__file__).parent / "old_config.yaml").read_text(encoding="utf-8")
FINGERPRINT = "25b5c6619624f0974eb50958d177d4e3ddfd49a399c0b94afee963261ee08753"
VALUES = {  # none of them the default
    "train.hours": "2.0",
    "train.rows_per_step": "4",
    "train.recompute": "yes",
    "train.schedule": "wsd",
    "train.warmup": "0.1",
    "train.decay": "0.3",
    "train.clip": "0.5",
    "train.eval_every": "3",
    "train.best": "macro_f1",
    "train.patience": "3",
    "train.save_every": "5",
    "train.keep": "2",
    "train.eval_batch": "2",
    "train.trackers": "[]",
    "data.learn": "every_answer",
    "quant.double": "false",
    "cloud.grade": "machine",
}
SMOKE = ["cloud=twin", "experiment=smoke", "box.name=root"]  # who made the old run


@pytest.fixture(autouse=True)
def nobody_is_told_yet(monkeypatch):
    monkeypatch.setattr(renamed, "_printed", set())


def loaded(*words, local=Path("no local settings")):
    return load.load(list(words), local=local)


def under_new_names(words: dict[str, str]) -> list[str]:
    return [f"{renamed.NEW_NAMES[old]}={value}" for old, value in words.items()]


def test_each_old_name_is_none_now_and_each_new_one_is():
    assert VALUES.keys() == renamed.NEW_NAMES.keys()
    there = setting_types.all_paths()
    assert [old for old, new in renamed.NEW_NAMES.items() if old in there or new not in there] == []


@pytest.mark.parametrize("old", VALUES)
def test_an_old_name_that_is_typed_is_the_new_one_and_is_reported_once(old, capsys):
    new = renamed.NEW_NAMES[old]
    run = loaded(*SMOKE, f"{old}={VALUES[old]}")
    assert run == loaded(*SMOKE, f"{new}={VALUES[old]}") == loaded(*SMOKE, f"++{old}={VALUES[old]}") != loaded(*SMOKE)
    assert capsys.readouterr().err == f"  `{old}` is now `{new}`; the old name works until 0.3.0\n"


@pytest.mark.parametrize("old", VALUES)
def test_an_old_name_in_a_file_is_the_new_one_and_is_reported_with_its_line(old, tmp_path, capsys):
    new, (room, _, name) = renamed.NEW_NAMES[old], old.partition(".")
    local = tmp_path / "local.yaml"
    local.write_text(f"seed: 3\n{room}:\n  {name}: {VALUES[old]}\n")
    run = loaded("experiment=smoke", local=local)
    assert run == loaded("experiment=smoke", "seed=3", f"{new}={VALUES[old]}")
    assert capsys.readouterr().err == f"  {local}, line 3: `{old}` is now `{new}`; the old name works until 0.3.0\n"
    local.write_text(f"{old}: {VALUES[old]}\n")
    assert loaded("seed=3", "experiment=smoke", local=local) == run


def test_a_run_made_before_is_the_run_of_the_same_settings_without_a_notice(capsys):
    run = load.read(OLD)
    now = loaded(*SMOKE, *under_new_names(VALUES))
    assert load.fingerprint(run) == load.fingerprint(now) == load.fingerprint(load.saved(OLD, "config.yaml")) == FINGERPRINT
    assert load.read(load.dump(run)) == run
    today = load.values(load.dump(now))
    newer = (
        ("lora", "adapter"),
        ("lora", "adapter_sha256"),
        ("data", "train_rows"),
        ("box", "allocation_strategy"),
        ("box", "reservation"),
    )
    for room, name in (*newer, ("train", "processes"), ("train", "fsdp")):
        del today[room][name]  # newer than the run
    del today["fleet"], today["notify"]
    assert {room: values for room, values in load.values(OLD).items() if room != "provenance"} == {
        room: values for room, values in today.items() if room != "provenance"
    }
    assert run.provenance.swept == ["train.batch_size=4", "lora.r=16"], "a search knows its trials by them"
    assert capsys.readouterr().err == ""


def test_settings_of_a_group_and_of_an_experiment_are_read_under_old_names(tmp_path, capsys):
    mine = yaml_file.read("defaults: [medical_ie]\nlearn: every_answer\n", "conf/data/mine.yaml", package="data")
    assert mine == {"defaults": ["medical_ie"], "loss_on": "every_answer"}
    text = "train: {clip: 0.5, eval_every: '${train.save_every}', warmup_steps: 2}\nmodel: {note: '\\${train.keep}'}\n"
    own = yaml_file.read(text, "conf/experiment/mine.yaml")
    assert own["train"] == {"max_grad_norm": 0.5, "eval_steps": "${train.save_steps}", "warmup_steps": 2}
    assert own["model"] == {"note": "\\${train.keep}"}, "what is meant as it stands stays so"
    assert sorted(line.split(" is now")[0].strip() for line in capsys.readouterr().err.splitlines()) == [
        "conf/data/mine.yaml, line 2: `data.learn`",
        "conf/experiment/mine.yaml, line 1: `train.clip`",
        "conf/experiment/mine.yaml, line 1: `train.eval_every`",
        "conf/experiment/mine.yaml, line 1: `train.save_every`",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.rows_per_step=8,16", "train.batch_size=8,16"),
        ("+train.rows_per_step=8", "+train.batch_size=8"),
        ("~train.trackers", "~train.report_to"),
        ("train.clip=interval(0.1,1)", "train.max_grad_norm=interval(0.1,1)"),
        ("train.trackers=[mlflow,wandb]", "train.report_to=[mlflow,wandb]"),
        ("train.warmup_steps=3", "train.warmup_steps=3"),
        ("model.note=train.clip=1", "model.note=train.clip=1"),
        ("train.keep_=1", "train.keep_=1"),
        ("-m", "-m"),
        ("", ""),
    ],
)
def test_only_the_name_changes(typed, meant):
    assert renamed.words([typed]) == [meant]
    assert argv.overrides(["inv", "sweep", "--", typed]) == [meant]


def test_what_sets_a_job_apart_is_reported_by_the_new_name():
    every = grid.combinations(argv.overrides(["inv", "sweep", "--", "train.rows_per_step=8,16", "lora.r=8"]), USAGE)
    assert [own for _, own in every] == [["train.batch_size=8"], ["train.batch_size=16"]]


def test_two_values_under_two_names_are_refused_and_one_is_not():
    with pytest.raises(Problem) as caught:
        loaded("train.clip=1", "train.max_grad_norm=2")
    assert caught.value.what == "`train.clip=1` and `train.max_grad_norm=2` are one setting with two values"
    assert caught.value.hint == "leave out the old name: `train.max_grad_norm=2`"
    assert loaded("train.clip=2", "train.max_grad_norm=2").train.max_grad_norm == 2
    with pytest.raises(Problem, match="line 2: `train.clip` and `train.max_grad_norm` are one setting with two values"):
        yaml_file.read("train:\n  clip: 1\n  max_grad_norm: 2\n", "conf/local.yaml")
    assert yaml_file.read("train:\n  clip: 2\n  max_grad_norm: 2\n", "conf/local.yaml") == {"train": {"max_grad_norm": 2}}


@pytest.mark.parametrize(("typed", "meant"), [("train.rows_per_stp", "train.batch_size"), ("train.batchsize", "train.batch_size")])
def test_a_misspelled_old_or_new_name_gets_the_new_one_as_a_hint(typed, meant):
    with pytest.raises(Problem) as caught:
        loaded(f"{typed}=8")
    assert caught.value.hint == f"did you mean `{meant}`?"


def test_the_trainer_takes_old_names_and_says_each_once(tmp_path):
    words = ["experiment=smoke", "train.rows_per_step=0", "train.clip=1.0", "data.learn=last_answer"]
    done = subprocess.run([sys.executable, "-m", "trainer", f"runs={tmp_path}", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "train.batch_size is 0" in done.stderr
    assert [done.stderr.count(f"`{old}` is now") for old in ("train.rows_per_step", "train.clip", "data.learn")] == [1, 1, 1]


def test_the_guide_lists_each_old_name_with_its_new_one():
    guide = (ROOT / "docs/SETTINGS.md").read_text(encoding="utf-8")
    assert [old for old, new in renamed.NEW_NAMES.items() if f"| `{old}` | `{new}` |" not in guide] == []


def test_what_the_repository_ships_uses_new_names():
    for file in setting_types.FOLDER.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        group = ".".join(file.relative_to(setting_types.FOLDER).parts[:-1])
        package = "" if "@package _global_" in text or group.startswith("hydra") else group
        if not group.startswith("hydra"):
            yaml_file.read(text, file.name, package)
    assert renamed._printed == set()
    assert yaml.safe_load(OLD)["train"]["clip"] == 0.5
