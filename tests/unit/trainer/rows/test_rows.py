"""Rows come from files of three kinds, by name or by hash; what is wrong with one is said with its place."""

import csv
import json
import shutil

import pytest

from conf.problem import Problem
from conf.schema import Data, LossOn, TooLong
from data.rows import normalise
from tests.unit.trainer.conftest import TRAIN, VALIDATION
from trainer.files import digest
from trainer.rows import rows


def data(train, validation=VALIDATION, train_sha256=None) -> Data:
    return Data(str(train), str(validation), None, 100, TooLong.refuse, LossOn.last_answer, {}, 4, 24, train_sha256=train_sha256)


def test_csv_and_parquet_give_the_rows_that_jsonl_gives(tmp_path):
    import pandas

    raw = [{"prompt": f"Question {n}?", "completion": f"Answer, {n}."} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    pandas.DataFrame(raw).to_parquet(tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w") as file:
        table = csv.DictWriter(file, ["prompt", "completion"])
        table.writeheader()
        table.writerows(raw)
    tables = [rows.read(data(tmp_path / f"a{kind}"), tmp_path)[0][0].rows for kind in (".jsonl", ".csv", ".parquet")]
    prompts = [[(row.messages, row.completion) for row in each] for each in tables]
    assert prompts[0] == prompts[1] == prompts[2]


def test_a_broken_row_is_named_by_the_file_that_its_owner_knows(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 3, "completion": "b"}\n')
    sha = digest(tmp_path / "mine.jsonl")
    inputs = tmp_path / "volume/inputs"
    inputs.mkdir(parents=True)
    shutil.move(tmp_path / "mine.jsonl", inputs / sha)
    with pytest.raises(Problem, match=r"^mine.jsonl:2: `prompt` is a number \(3\)") as caught:
        rows.read(data("mine.jsonl", train_sha256=sha), tmp_path / "volume/runs/one")
    assert caught.value.reason == "bad_data"


def test_rows_that_are_not_those_the_run_was_made_for_are_refused(tmp_path):
    with pytest.raises(Problem, match="has the sha256 .* and the run was made for 0000") as caught:
        rows.read(data(TRAIN, train_sha256="0" * 64), tmp_path)
    assert caught.value.reason == "damaged_run"


def test_missing_rows_and_rows_that_are_trained_on_are_refused(tmp_path):
    with pytest.raises(Problem, match="data.validation names nowhere.jsonl, and there is no such file"):
        rows.read(data(TRAIN, "nowhere.jsonl"), tmp_path)
    with pytest.raises(Problem, match="are the same: the scores"):
        rows.read(data(TRAIN, TRAIN), tmp_path)


def test_the_instruction_of_the_rows_is_what_their_prompts_share_or_the_most_frequent_one():
    def rows_of(*pairs):
        return [normalise({"instruction": task, "input": text, "output": "x"}, "f:1") for task, text in pairs]

    assert rows.shared_instruction(rows_of(("Do it.\n\nWell.", "a"), ("Do it.\n\nWell.", "b"))) == "Do it.\n\nWell."
    assert rows.shared_instruction(rows_of(("Do it.", "a"), ("Try it.", "b"), ("Do it.", "c"))) == "Do it."
    assert rows.shared_instruction(rows_of(("Do it.", "a"), ("Try it.", "b"))) == ""
