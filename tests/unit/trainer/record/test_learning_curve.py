"""The score against the number of rows, and what twice as many would bring, never surer than it is."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.trainer.finished_run import METRICS, finished
from trainer import files
from trainer.record import learning_curve

HELD_OUT = 100


@pytest.fixture
def runs(tmp_path_factory):
    """Makes a run for each number of rows, of which the model answers so many held-out rows right."""

    def make(right: dict[int, int], other_rows=()):
        root, folders = tmp_path_factory.mktemp("runs"), []
        for number, (rows, count) in enumerate(right.items()):
            folder = finished(root / f"receipts.{number}")
            predictions = [_answer(row, row < count, rows in other_rows) for row in range(HELD_OUT)]
            (folder / "predictions.jsonl").write_text("".join(map(files.json_line, predictions)))
            score = count / HELD_OUT
            tuned = METRICS["tuned"] | {"macro_f1": score, "intervals": {"macro_f1": [score - 0.05, score + 0.05]}}
            (folder / "metrics.json").write_text(json.dumps(METRICS | {"tuned": tuned, "training": {"rows": rows, "empty": {}}}))
            folders.append(folder)
        return folders

    return make


def _answer(number: int, right: bool, other: bool) -> dict:
    expected = {"cancer_type": "lung", "stage": f"IV {number}", "gene_mutation": "EGFR"}
    prompt = [{"role": "user", "content": f"Note {number}{' anew' if other else ''}"}]
    tuned = expected if right else {"cancer_type": "a", "stage": "b", "gene_mutation": "c"}
    return {"id": str(number), "prompt": prompt, "expected": json.dumps(expected), "base": "", "tuned": json.dumps(tuned)}


def test_a_power_law_goes_on_as_one(runs):
    """What is lacking halves with each fourfold: 40, 20, 10 of 100, so twice the rows take 29 % of 10."""
    curve = learning_curve.measure(runs({512: 90, 32: 60, 128: 80}))
    assert [point.rows for point in curve.points] == [32, 128, 512]
    assert curve.forecast.rows == 1024 and curve.forecast.share == pytest.approx(1 - 2**-0.5)
    assert curve.forecast.gain == pytest.approx(0.1 * (1 - 2**-0.5))
    assert 0 < curve.forecast.low < curve.forecast.gain < curve.forecast.high < 0.1
    assert (
        "twice the rows (1,024) would bring about +0.029" in curve.outlook and "each doubling took 29% of what is lacking" in curve.outlook
    )


def test_a_curve_that_ends_flat_may_bring_nothing(runs):
    curve = learning_curve.measure(runs({32: 40, 128: 79, 512: 79}))
    assert curve.forecast.low <= 0 < curve.forecast.gain and "so perhaps nothing" in curve.outlook


def test_a_curve_that_falls_promises_nothing(runs):
    curve = learning_curve.measure(runs({32: 80, 128: 70, 512: 60}))
    assert curve.forecast.gain < 0 and "each doubling did not help" in curve.outlook


def test_a_perfect_score_leaves_nothing_to_bring(runs):
    forecast = learning_curve.measure(runs({32: 90, 128: 99, 512: 100})).forecast
    assert forecast.gain <= 0 and forecast.high <= 0


def test_fewer_than_three_numbers_of_rows_are_no_curve(runs):
    curve = learning_curve.measure(runs({32: 60, 128: 80}))
    assert curve.forecast is None and "shows from 3 numbers of rows on" in curve.outlook


def test_scores_of_other_rows_are_no_curve(runs):
    curve = learning_curve.measure(runs({32: 60, 128: 80, 512: 90}, other_rows=(128,)))
    assert curve.forecast is None and "scored on different rows" in curve.outlook


def test_the_page_has_the_picture_and_asks_nothing_of_a_network(runs):
    text, best = learning_curve.best(dict.fromkeys(runs({32: 60, 128: 80, 512: 90}), ""))
    page = re.search("page       (.*)", text)[1]
    assert best == "receipts.2" and page.endswith("/receipts.html")
    html = Path(page).read_text(encoding="utf-8")
    assert "<svg" in html and "macro-F1 over fields by training rows" in html and "(1,024)" in html and "forecast" in html
    assert "https://" not in html and "<script" not in html and "#030303" not in html


def test_without_matplotlib_the_page_says_how_to_get_the_picture(runs, monkeypatch):
    monkeypatch.setattr("trainer.record.curves.find_spec", lambda _: None)
    page = learning_curve.render(learning_curve.measure(runs({32: 60, 128: 80, 512: 90})), "receipts")
    assert "<svg" not in page and "pip install -r trainer/requirements.txt" in page
