"""A curve of one line."""

import math

import pytest

from conf.text import sparkline


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    monkeypatch.setattr("sys.__stderr__", type("Terminal", (), {"encoding": "UTF-8"}))


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([3, 2, 1], "█▅▁"),
        ([0, math.nan, math.inf, 8], "▁█"),
        ([1, 1, 5, 5, 9, 9, 13, 13], "▁▃▆█"),
    ],
)
def test_each_column_is_the_mean_of_its_share(values, curve):
    assert sparkline.sparkline(values, 4) == curve


def test_a_terminal_without_blocks_has_letters(monkeypatch):
    monkeypatch.setattr("sys.__stderr__", type("Terminal", (), {"encoding": "ANSI_X3.4-1968"}))
    assert sparkline.sparkline([1, 2], 4) == "_@"
