"""Colours are for terminals, and not where NO_COLOR is set."""

import os
import pty

import pytest

from remote.plan import preflight


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("", True), ("1", False)])
def test_colours_on_a_terminal_heed_no_color(monkeypatch, value, wanted):
    monkeypatch.delenv("NO_COLOR", raising=False) if value is None else monkeypatch.setenv("NO_COLOR", value)
    ours, its = pty.openpty()
    with os.fdopen(its, "w", encoding="utf-8") as terminal, os.fdopen(ours):
        assert preflight.coloured(terminal) is wanted


def test_no_colours_go_into_a_file(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_COLOR", raising=False)
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        assert not preflight.coloured(file)
