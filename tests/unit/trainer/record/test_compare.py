"""Two runs are compared in what differs, and no difference is claimed that the rows cannot bear."""

import json

import pytest

from conf import load
from conf.problem import Problem
from tests.unit.trainer.finished_run import METRICS, PREDICTIONS, finished, settings
from trainer.record import compare


@pytest.fixture
def pair(tmp_path):
    return finished(tmp_path / "one"), finished(tmp_path / "two")


def put(folder, **values):
    (folder / "metrics.json").write_text(json.dumps({**METRICS, **values}))


def test_only_settings_that_differ_are_reported(pair):
    (pair[1] / "config.yaml").write_text(load.dump(settings("lora.r=64", "train.lr=1e-5", "box.disk_gb=500")))
    assert compare.settings(*pair) == [("box.disk_gb", "100", "500"), ("lora.r", "16", "64"), ("train.lr", "0.002", "1e-05")]
    assert compare.settings(pair[0], pair[0]) == []


def test_the_figures_are_those_of_the_two_tuned_models(pair):
    put(pair[1], tuned=METRICS["base"], completion_loss={"base": 1.0, "tuned": 0.9})
    lines = {line.key: (line.base, line.tuned) for line in compare.scores(*pair)}
    assert lines["macro_f1"] == (METRICS["tuned"]["macro_f1"], METRICS["base"]["macro_f1"])
    assert lines["completion_loss"] == (0.3, 0.9)
    assert lines["stage"] == (METRICS["tuned"]["fields"]["stage"]["f1"], METRICS["base"]["fields"]["stage"]["f1"])


def test_a_difference_whose_interval_holds_0_names_no_winner(pair, monkeypatch):
    put(pair[1], tuned=METRICS["base"])
    for interval, verdict in (([-0.7, -0.6], "A is better"), ([-0.7, 0.1], "may be chance")):
        difference = {"macro_f1": {"value": -0.64, "interval": interval}}
        monkeypatch.setattr(compare.score, "difference", lambda *_, difference=difference: difference, raising=False)
        rows = {row[0]: row for row in compare.tables(*pair)[1]}
        assert rows["macro-F1 over fields"][4] == verdict
        assert rows["macro-F1 over fields"][3].startswith("-0.640 (-0.700 to ")


def test_the_rows_are_paired_as_they_were_answered(pair, monkeypatch):
    calls = []
    monkeypatch.setattr(compare.score, "difference", lambda *words: calls.append(words), raising=False)
    compare.scores(*pair)
    before, after, rows, fields, seed = calls[0]
    assert before == after == [row["tuned"] for row in PREDICTIONS]
    assert [row.id for row in rows] == [row["id"] for row in PREDICTIONS]
    assert [json.dumps(row.output) for row in rows] == [row["expected"] for row in PREDICTIONS]
    assert (fields, seed) == (settings().data.fields, 17)


def test_runs_scored_on_other_rows_are_reported_to_be(pair):
    assert compare.tables(*pair)[2] == "both were scored on the same rows"
    rows = [{**row, "expected": row["expected"].replace("IV", "II")} for row in PREDICTIONS]
    (pair[1] / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, figures, note = compare.tables(*pair)
    assert "different rows" in note and figures[0][3] == "+0.000"


def test_runs_of_different_tasks_have_nothing_in_common(pair):
    put(pair[1], task="text", tuned={"exact": 1.0})
    with pytest.raises(Problem, match="no figure in common"):
        compare.scores(*pair)
