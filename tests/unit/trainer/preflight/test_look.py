"""What the laptop reads of rows and model: every file that cannot be used is a sentence, whichever verb looks at it first."""

import json
import subprocess

import loaded
import pytest

from conf import load
from conf.problem import Problem
from conf.text.quoting import quoted
from tests.unit.trainer.conftest import ROOT, TRAIN, VALIDATION
from trainer import __main__ as command
from trainer.model import model
from trainer.preflight import preflight

FIELDS = "data.fields=[stage]"
GOOD = '{"prompt": "a", "completion": "{\\"stage\\": 1}"}\n'
SPOILT = [
    ("nowhere.jsonl", None, "names .*nowhere.jsonl, and there is no such file"),
    ("rows.jsonl", GOOD + '{"prompt": "b"\n', "rows.jsonl:2: the line is not JSON"),
    ("rows.csv", 'prompt,completion\na,"{}"\nb,c,d\n', "rows.csv:3: the line has 3 cells"),
    ("rows.parquet", "no parquet", "rows.parquet: the file is not Parquet"),
    ("rows.csv", "prompt,completion\na,b\n", "answers? with plain text|no JSON object"),
    ("rows.txt", "a", "none of .jsonl, .json, .csv, .tsv, .parquet"),
]


@pytest.mark.parametrize(("name", "text", "what"), SPOILT, ids=[f"{name}: {what[:24]}" for name, _, what in SPOILT])
@pytest.mark.parametrize("setting", ["train", "validation"])
def test_a_file_that_cannot_be_used_is_a_sentence_for_every_verb(setting, name, text, what, settings_for, tmp_path, tiny):
    if text is not None:
        (tmp_path / name).write_text(text)
    words = [f"data.{setting}={quoted(tmp_path / name)}", "data.fields=null"]
    if "plain text" in what:
        words[1] = FIELDS
    settings = settings_for(tmp_path / "runs", *words)
    if "plain text" not in what or setting == "validation":  # `inspect` checks what is scored; `check_data` checks every file
        with pytest.raises(Problem, match=what) as caught:
            preflight.inspect(settings, None, None)
        assert caught.value.reason == "bad_data"
    with pytest.raises(Problem, match=what) as caught:
        preflight.check_data(settings.data, None, None)
    assert caught.value.reason == "bad_data"


def test_parquet_without_pyarrow_is_no_mistake_of_the_rows(settings_for, tmp_path, monkeypatch):
    (tmp_path / "rows.parquet").write_bytes(b"of no matter")
    monkeypatch.setattr(preflight, "find_spec", lambda _name: None)
    inspection = preflight.inspect(settings_for(tmp_path, f"data.train={quoted(tmp_path / 'rows.parquet')}"), None, None)
    assert inspection.rows is None and inspection.shape is not None


def test_the_preflight_of_a_model_in_a_folder_checks_the_rows_too(tiny, tmp_path):
    (tmp_path / "train.jsonl").write_bytes(VALIDATION.read_bytes())
    words = [
        "cloud=twin",
        "experiment=smoke",
        f"model.id={quoted(tiny)}",
        f"data.train={quoted(tmp_path / 'train.jsonl')}",
        f"data.validation={quoted(VALIDATION)}",
    ]
    done = subprocess.run([*loaded.trainer(), "trainer", "preflight", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: data.train and data.validation are the same rows"), done.stderr


@pytest.mark.parametrize("shown", ["[]", "[stage,stage]"])
def test_fields_that_name_nothing_or_a_key_twice_are_refused_with_the_settings(shown):
    with pytest.raises(Problem, match="data.fields is") as caught:
        load.load(["cloud=twin", f"data.fields={shown}"])
    assert "data.fields=null" in caught.value.hint


def test_the_best_step_by_macro_f1_needs_fields():
    with pytest.raises(Problem, match="train.metric_for_best_model is macro_f1, which free text") as caught:
        load.load(["cloud=twin", "train.metric_for_best_model=macro_f1", "data.fields=null"])
    assert caught.value.hint == "set `train.metric_for_best_model=loss`"
    assert load.load(["cloud=twin", "train.metric_for_best_model=macro_f1"]).train.metric_for_best_model.value == "macro_f1"


TEXT = "prompt,completion\nWhy?,Because.\nHow?,So.\n"
LATE = [json.dumps({"prompt": f"n {n}", "completion": json.dumps({"city": "a"} | ({"street": "b"} if n == 9 else {}))}) for n in range(10)]


@pytest.mark.parametrize(
    ("name", "text", "words", "what", "hint"),
    [
        ("v.csv", TEXT, [], "v.csv:2 has no JSON object", "data.fields=null"),
        ("v.jsonl", "\n".join(LATE), ["data.fields=[city,street]"], "the field 'street'", "the 4 scored rows have: `'data.fields=[city]'`"),
        ("v.jsonl", "\n".join(LATE), ["data.fields=[town]"], "the field 'town'", "data.fields="),
    ],
)
def test_rows_that_cannot_be_scored_stop_the_run_before_the_model_is_loaded(
    name, text, words, what, hint, settings_for, tmp_path, monkeypatch
):
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(model, "load", lambda *_: pytest.fail("the model was loaded"))
    settings = settings_for(tmp_path / "runs", f"data.train={quoted(TRAIN)}", f"data.validation={quoted(tmp_path / name)}", *words)
    with pytest.raises(Problem, match=what) as here:
        preflight.inspect(settings, None, None)
    with pytest.raises(Problem, match=what) as there:
        command.train(settings, tmp_path / "runs/x")
    for caught in (here, there):
        assert caught.value.reason == "bad_data"
        assert hint in caught.value.hint
