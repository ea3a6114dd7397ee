"""A tracker that fails is told in a sentence, and never the end of a run."""

import pytest

from conf.problem import Problem
from trainer.record import trackers


class Broken:
    def __init__(self, *_):
        self.asked = 0

    def log(self, *_):
        self.asked += 1
        raise ConnectionError("the server is away\nand more")

    def close(self):
        raise ConnectionError("still away")


def test_a_tracker_that_fails_says_so_once_and_the_run_goes_on(capsys):
    broken = Broken()
    careful = trackers.SafeTracker("mlflow", broken)
    for step in (1, 2):
        careful.log({"loss": 1.0}, step)
    careful.close()
    assert broken.asked == 1
    assert capsys.readouterr().out == "the tracker mlflow is switched off: the server is away\n"


def test_a_tracker_that_does_not_start_is_one_sentence(settings_for, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no such server\nhttps://...")

    monkeypatch.setitem(trackers.KINDS, "tensorboard", refuse)
    with pytest.raises(Problem, match="the tracker tensorboard does not start: no such server") as caught:
        trackers.start_trackers(tmp_path, settings_for(tmp_path, "train.report_to=[tensorboard]"), 0)
    assert "MLFLOW_TRACKING_URI" in caught.value.hint
