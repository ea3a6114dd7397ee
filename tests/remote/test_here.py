"""Which rows and which texts the verbs mean that compute on this machine."""

import io
import json

import pytest

from conf import load
from conf.problem import Problem
from remote import here


@pytest.fixture
def run(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("train", "validation", "test_both"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "completion": "c"}) + "\n")
    return load.load(["cloud=twin", "data.train=rows/train.jsonl", "data.validation=rows/validation.jsonl"])


def test_a_split_is_a_file_beside_the_run_s_held_out_rows(run, tmp_path):
    assert here.find_rows(run, "test_both", tmp_path) == tmp_path / "rows/test_both.jsonl"


def test_a_path_is_taken_as_it_is(run, tmp_path):
    own = tmp_path / "rows/train.jsonl"
    assert here.find_rows(run, str(own), tmp_path / "elsewhere") == own


def test_an_unknown_split_names_those_there_are(run, tmp_path):
    with pytest.raises(
        Problem, match="there is no split `test_all`.*\n.*hint: there are: test_both, train, validation".replace(".*\n.*", r"[\s\S]*")
    ):
        here.find_rows(run, "test_all", tmp_path)
    with pytest.raises(Problem, match="there is no file mine.jsonl"):
        here.find_rows(run, "mine.jsonl", tmp_path)


def test_two_sets_of_rows_never_share_a_name(store, run, tmp_path):
    rows, name = tmp_path / "rows/test_both.jsonl", "runs/r/evaluations/test_both.json"
    here._same_rows(store, name, rows)
    store.put(name, json.dumps({"rows_sha256": "0" * 64}).encode())
    with pytest.raises(Problem, match="holds the scores on other rows"):
        here._same_rows(store, name, rows)


def test_a_text_a_file_and_stdin_are_asked_alike(tmp_path, monkeypatch):
    note = tmp_path / "note.txt"
    note.write_text("Stage II.\nOn tamoxifen.")
    monkeypatch.setattr("sys.stdin", io.StringIO("Stage II.\nOn tamoxifen."))
    expected = [json.dumps({"input": "Stage II.\nOn tamoxifen."})]
    assert here._asked(str(note)) == here._asked("-") == here._asked("Stage II.\nOn tamoxifen.") == expected


def test_a_file_of_rows_is_asked_line_by_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "a"}\n\n{"prompt": "b"}\n')
    assert here._asked(str(rows)) == ['{"input": "a"}', '{"prompt": "b"}']
    with pytest.raises(Problem, match="there is no file"):
        here._asked(str(tmp_path / "none.jsonl"))
