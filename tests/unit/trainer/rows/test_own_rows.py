"""Rows of a user's own: another file, another kind, another style of label, and nothing to write for it."""

import json
import shutil
from pathlib import Path

import pytest

from conf import load
from conf.problem import Problem
from conf.text.quoting import quoted
from data.rows import read
from trainer import __main__ as command
from trainer.rows import splits, token_lengths

KEYS = ["cancer_type", "stage", "gene_mutation", "biomarker", "treatment", "response", "metastasis_site"]
NOTES = [
    (
        "Melanoma, stage IV, in the liver and the lung. Nivolumab with ipilimumab.",
        ["melanoma", "IV", None, None, "nivolumab; ipilimumab", None, "liver, lung"],
    ),
    ("Stage II breast cancer, ER+ and PR+. Lumpectomy.", ["breast cancer", "II", None, "ER+; PR+", "lumpectomy", None, None]),
    (
        "Colon cancer, KRAS G12D. FOLFOX plus bevacizumab; stable.",
        ["colon cancer", None, "KRAS G12D", None, "FOLFOX plus bevacizumab", "stable disease", None],
    ),
    ("No cancer was found.", [None] * 7),
]


@pytest.fixture
def flat(tmp_path):
    """Files of seven keys with strings or nulls."""
    rows = [{"instruction": "Extract the facts.", "input": note, "output": dict(zip(KEYS, values, strict=True))} for note, values in NOTES]
    with (tmp_path / "train.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with (tmp_path / "held_out.jsonl").open("w") as file:
        file.writelines(json.dumps(row | {"input": f"Today: {row['input']}"}) + "\n" for row in rows)
    return [f"data.train={quoted(tmp_path / 'train.jsonl')}", f"data.validation={quoted(tmp_path / 'held_out.jsonl')}"]


def test_seven_keys_of_strings_or_nulls_train_and_score_as_they_are(flat, settings_for, tmp_path):
    settings = settings_for(tmp_path / "runs", *flat, "quant=none", "train.steps=1", "train.batch_size=2")
    settings.run_id = "flat"
    folder = tmp_path / "runs/flat"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    command.train(settings, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["task"] == "extraction" and list(metrics["tuned"]["fields"]) == KEYS
    support = {name: field["support"] for name, field in metrics["tuned"]["fields"].items()}
    assert (support["treatment"], support["biomarker"], support["metastasis_site"]) == (5, 2, 2), "lists in one string are split"


def test_a_file_of_settings_names_rows_of_ones_own(tmp_path, monkeypatch):
    """`data=mine` is conf/data/mine.yaml, which inherits what it does not say."""
    shutil.copytree(load.FOLDER, tmp_path / "conf")
    (tmp_path / "conf/data/mine.yaml").write_text("defaults: [medical_ie]\ntrain: my.jsonl\nvalidation: held.csv\nfields: [city]\n")
    monkeypatch.setattr(load, "FOLDER", tmp_path / "conf")
    data = load.load(["cloud=twin", "data=mine"]).data
    assert (data.train, data.validation, data.fields, data.max_length) == ("my.jsonl", "held.csv", ["city"], 2048)


def test_without_that_file_the_ways_to_name_rows_are_reported():
    with pytest.raises(Problem, match="there is no data `mine`") as caught:
        load.load(["cloud=twin", "data=mine"])
    assert "write conf/data/mine.yaml" in caught.value.hint and "data.train=FILE" in caught.value.hint


def test_a_split_is_a_setting_a_neighbour_or_a_path(tmp_path):
    for name in ("train", "held_out", "test_both", "elsewhere/x"):
        (tmp_path / f"{name}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": name, "prompt": "p", "completion": "c"}) + "\n")
    data = load.load(
        ["cloud=twin", f"data.train={quoted(tmp_path / 'train.jsonl')}", f"data.validation={quoted(tmp_path / 'held_out.jsonl')}"]
    ).data
    first_ids = [splits.rows(data, split)[0].id for split in ("train", "validation", "test_both", f"{tmp_path}/elsewhere/x.jsonl")]
    assert first_ids == ["train", "held_out", "test_both", "elsewhere/x"]
    with pytest.raises(Problem, match=r"there is no test_new.jsonl in .*, and no file test_new"):
        splits.path(data, "test_new")
    with pytest.raises(Problem, match="has no row 7") as caught:
        splits.rows(data, "train", "7")
    assert "--id train" in caught.value.hint


def test_rows_of_the_hub_are_left_to_the_trainer():
    data = load.load(["cloud=twin", "data.train='hub:owner/name:train'"]).data
    with pytest.raises(Problem, match="which only the trainer reads"):
        splits.path(data, "train")


def test_rows_are_measured_as_the_model_will_read_them(tiny, template):
    model = load.load(["cloud=twin", f"model.id={quoted(tiny)}"]).model
    counter = token_lengths.length_counter(model, str(tiny), offline=True)
    row = read(Path(__file__).parents[4] / "data/smoke_train.jsonl")[0]
    example = template.example(row)
    assert counter.measure(row) == (len(example.prompt), len(example.completion)) and not counter.note


def test_a_tokenizer_that_is_not_there_is_reported_and_words_are_counted():
    counter = token_lengths.length_counter(load.load(["cloud=twin", "model.id=nobody/nothing"]).model, "nobody/nothing", offline=True)
    assert counter.unit == "words" and "nobody/nothing is not in the cache" in counter.note


def test_rows_that_cannot_be_read_are_reported_before_a_box_is_asked_to_score_them(tmp_path):
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\nnot json\n')
    with pytest.raises(Problem, match=r"mine\.jsonl:2"):
        splits.checked_path(load.load(["cloud=twin"]).data, str(rows))
