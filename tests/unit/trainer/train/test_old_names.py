"""A run that was begun when settings had their old names goes on, is reported, and is the run of the same settings."""

import json
import time
from pathlib import Path

import pytest
import yaml

from conf import load, renamed
from tests.unit.trainer import forked
from trainer import __main__ as command
from trainer.record import compare, record

WORDS = ["quant=none", "train.steps=8", "train.batch_size=2", "train.save_steps=1", "train.eval_steps=8", "data.eval_rows=2"]


def steps(folder: Path) -> list[int]:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event["step"] for event in events if event["event"] == "step"]


@pytest.mark.slow  # a process of its own, with torch
def test_a_run_begun_under_old_names_goes_on_and_is_reported(settings_for, tmp_path, capsys):
    settings = settings_for(tmp_path / "runs", *WORDS, "train.report_to=[]")
    folder = forked.make(settings, "begun")
    written = yaml.safe_dump(renamed.with_old_names(yaml.safe_load(load.dump(settings))))
    assert "rows_per_step: 2" in written and "batch_size: 2" not in written.replace("eval_batch_size", "")
    (folder / "config.yaml").write_text(written)
    child = forked.start(settings, folder)
    while child.is_alive() and not (folder / "checkpoints/step-000001/COMPLETE").exists():
        time.sleep(0.01)
    child.kill()
    child.join()
    before = steps(folder)
    command.run(folder, None)
    assert record.sealed(folder) and steps(folder)[-1] == 8
    assert before[:1] == [1] and steps(folder).count(1) == 1, "it goes on from a checkpoint"
    assert (folder / "config.yaml").read_text() == written, "what was settled is written once"
    assert "| steps | 8 of 2 rows each |" in (folder / "card.md").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(load.dump(settings))
    assert compare.settings(folder, other) == []
    assert " is now `" not in capsys.readouterr().err
