"""What others write is shown, and moves no cursor, computes no cell and turns no letters around."""

import csv
import io
import re

import pytest

from conf.text import visible
from trainer.record import leaderboard

# A title, a colour, a cursor, the clipboard, a bell, C1's own CSI, a line written over, letters turned around, a line of its own.
EVIL = [
    "\x1b]0;mine\x07",
    "\x1b[31m",
    "\x1b[H\x1b[2J",
    "\x1b]52;c;aWQ=\x1b\\",
    "\x07",
    "\x9b1m",
    "ok\rno",
    "\u202egnp.exe",
    "\u2066a\u2069",
    "\u2028",
]


@pytest.mark.parametrize("text", EVIL)
def test_control_characters_are_seen_and_not_obeyed(text):
    shown = visible.visible(f"before {text} after")
    assert shown.startswith("before ") and shown.endswith(" after") and "\\" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)
    assert visible.values({text: [text, 1, None, {"a": text}]}) == {
        visible.visible(text): [visible.visible(text), 1, None, {"a": visible.visible(text)}]
    }


def test_what_is_text_stays_as_it_is():
    for text in ("", "données — 日本語 🎉\n\ta line\r\nanother", "a\u200db é", "50 % of {x}"):
        assert visible.visible(text) == text


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_cell_that_a_spreadsheet_would_compute_has_an_apostrophe(text):
    assert visible.cell(text) == f"'{text}"
    run = leaderboard.RankedRun(text, text, "score", -0.5, None, -1.5, 3.0)
    page = leaderboard.spreadsheet([run])
    (row,) = csv.DictReader(io.StringIO(page, newline=""))
    assert row["run"] == row["settings"] == f"'{text}" and (row["value"], row["loss"]) == ("-0.5", "-1.5"), "numbers stay numbers"


@pytest.mark.parametrize("value", ["quickstart", "", "a=b", -0.5, 3, None, 0.0])
def test_any_other_cell_stays_as_it_is(value):
    assert visible.cell(value) == value
