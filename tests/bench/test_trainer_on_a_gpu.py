"""One command shows what a card has to show. On a GPU: Llama-3.1-8B's sizes train in the memory that was planned, faster than in TRL."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shown(shape: str, *words: str) -> str:
    command = [sys.executable, ROOT / "tests/bench/trainer.py", "--shape", shape, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(done)
    return done


def number(pattern: str, text: str) -> float:
    return float(re.search(pattern, text)[1])


@pytest.mark.gpu
def test_a_card_shows_all_of_it_in_ten_minutes():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    told = shown("llama31-8b")
    assert "attention by varlen_attn; loss by linear_cross_entropy" in told
    assert number(r"([\d.]+) times the plan", told) == pytest.approx(1, rel=0.1)
    assert number(r"the host waits in a step: (\d+)", told) == 1
    assert "kill and resume: went on from step" in told
    assert number(r"parts shown in (\d+) s", told) < 600
    if "the packages of bench/requirements.txt cannot be installed" not in told:
        assert number(r"ours is ([\d.]+) times as fast", told) > 1


@pytest.mark.slow
def test_the_command_shows_the_same_of_a_toy_without_a_card():
    told = shown("toy", "--steps", "1", "--rows", "4")
    assert "proof: rows in a pack give what they give alone" in told
    assert "went on from step" in told and "; the same bytes as a run that nobody killed" in told
    for line in ("machine: ", "NF4 training: ", "peak memory: ", "scoring: ", "TRL: "):
        assert f"\n{line}" in f"\n{told}", line


def test_a_part_that_cannot_be_shown_says_why_and_the_others_go_on(monkeypatch, capsys):
    from tests.bench import card

    class Turn:
        returncode = 1

        def communicate(self, timeout=None):
            return "", "Traceback\ntorch.OutOfMemoryError: CUDA out of memory\n\nhint: use less\n"

        def poll(self):
            return 1

        def send_signal(self, _number):
            pass

    monkeypatch.setattr(card.bench, "turn", lambda *_words: Turn())
    monkeypatch.setattr(card.bench, "their_python", lambda: sys.executable)
    card.show(None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{part}: not shown: torch.OutOfMemoryError: CUDA out of memory" for part in ("proof and training", "kill and resume", "TRL")
    ]
    assert lines[3].startswith("0 of 3 parts shown in")
