"""`inv data.show`, `data.stats` and `data.scoring.baselines` on rows of a user's own, without a cloud."""

import json
import sys

import pytest
from invoke import Context, Exit

import tasks
from conf.text.quoting import quoted

ROWS = [
    {"id": f"r-{number}", "instruction": "Where?", "input": f"Note {number} from {city}.", "output": {"city": city}}
    for number, city in enumerate(["Oslo", "Oslo", "Rome"])
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    for name, rows in (("train", ROWS), ("held", ROWS[2:]), ("other", ROWS[1:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"data.train={quoted(tmp_path / 'train.jsonl')}", f"data.validation={quoted(tmp_path / 'held.jsonl')}", "data.fields=[city]"]
    monkeypatch.setattr(sys, "argv", ["inv", "--", "cloud=twin", *words])


def test_show_prints_rows_of_the_split_that_is_asked_for(own, capsys):
    tasks.namespace["data.show"](Context(), rows=9, split="train")
    tasks.namespace["data.show"](Context(), id="r-1", split="other")
    out = capsys.readouterr().out
    assert [out.count(f"{name} ─") for name in ("r-0", "r-1", "r-2")] == [1, 2, 1]


def test_stats_have_a_column_for_each_split(own, capsys):
    tasks.namespace["data.stats"](Context(), split=["other"])
    head, rows, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["train", "validation", "other"] and rows.split() == ["rows", "3", "1", "2"]


def test_baselines_are_a_table(own, capsys):
    tasks.namespace["data.baselines"](Context())
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["oracle"][1] == "1.000" and lines["majority"][1] == "0.000" and lines["nearest"][1] == "1.000"


def test_what_is_not_there_is_one_sentence(own):
    with pytest.raises(Exit) as caught:
        tasks.namespace["data.show"](Context(), id="r-7", split="train")
    assert "has no row r-7" in str(caught.value) and "hint: " in str(caught.value)
