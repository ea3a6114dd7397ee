"""What is kept of scores on other rows."""

import json

import pytest

from conf import load
from conf.problem import Problem
from remote.runs import evaluations


@pytest.fixture
def run(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("train", "validation", "test_both"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "completion": "c"}) + "\n")
    return load.load(["cloud=twin", "data.train=rows/train.jsonl", "data.validation=rows/validation.jsonl"])


def test_two_sets_of_rows_never_share_a_name(store, run, tmp_path):
    rows, name = tmp_path / "rows/test_both.jsonl", "runs/r/evaluations/test_both.json"
    evaluations._check_same_rows(store, name, rows)
    store.put(name, json.dumps({"rows_sha256": "0" * 64}).encode())
    with pytest.raises(Problem, match="holds the scores on other rows"):
        evaluations._check_same_rows(store, name, rows)
