"""`no sign of life for 2 min: inv down --force ends it` was said of a run that fetched sixteen gigabytes."""

import time
from pathlib import Path

import pytest

from trainer.model import model
from trainer.model.distributed import ALONE
from trainer.record import sign_of_life
from trainer.record.record import Record
from trainer.train import recipe


class Reached(Exception):
    pass


def busy_until(happened, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        sum(range(10_000))
    return happened()


def test_a_process_that_computes_shows_it_and_one_that_waits_does_not(monkeypatch):
    monkeypatch.setattr(sign_of_life, "EVERY", 0.2)
    beats: list[float] = []
    with sign_of_life.while_computing(lambda: beats.append(time.monotonic())):
        assert busy_until(lambda: bool(beats))
    count = len(beats)
    with sign_of_life.while_computing(lambda: beats.append(time.monotonic())):
        time.sleep(1.0)
    assert len(beats) == count


def test_one_that_computes_without_end_is_silent_again(monkeypatch):
    monkeypatch.setattr(sign_of_life, "EVERY", 0.05)
    monkeypatch.setattr(sign_of_life, "LONGEST", 0.0)
    beats: list[float] = []
    with sign_of_life.while_computing(lambda: beats.append(time.monotonic())):
        busy_until(lambda: False, 1.0)
    assert beats == []


def test_a_full_disk_is_told_by_the_run_and_by_no_traceback_of_a_thread(monkeypatch, capsys):
    monkeypatch.setattr(sign_of_life, "EVERY", 0.05)
    monkeypatch.setattr(sign_of_life, "LEAST", 0.0)
    tried = []

    def full() -> None:
        tried.append(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), sign_of_life.while_computing(full):
        assert busy_until(lambda: bool(tried))
    with pytest.raises(Reached), sign_of_life.while_computing(full):
        assert busy_until(lambda: len(tried) == 2)
        raise Reached  # what went wrong first is what is told
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", ["fetch", "load"])
def test_a_run_lives_while_its_model_is_fetched_and_loaded(stage, settings_for, tmp_path, monkeypatch):
    monkeypatch.setattr(sign_of_life, "EVERY", 0.05)
    monkeypatch.setattr(sign_of_life, "LEAST", 0.0)
    settings = settings_for(tmp_path)
    settings.run_id = "20260101-000000-slow-0000"
    record = Record(Path(settings.runs) / settings.run_id)
    record.phase("running")
    beats: list[float] = []
    monkeypatch.setattr(record, "heartbeat", lambda: beats.append(time.monotonic()))

    def slow(*_):
        beats.clear()
        assert busy_until(lambda: bool(beats)), "no sign of life came"
        raise Reached

    monkeypatch.setattr(model, stage, slow)
    with pytest.raises(Reached):
        recipe.run(settings, record.folder, record, time.monotonic(), ALONE)
