"""On a GPU: Llama-3.1-8B's sizes in NF4 train in the memory that was planned, and faster than TRL."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.gpu
def test_an_8b_model_trains_faster_than_in_trl():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    words = [sys.executable, ROOT / "tests/bench/trainer.py", "--shape", "llama31-8b", "--steps", "8", "--rounds", "3", "--trl-batch", "8"]
    done = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    print(done)
    ratio = float(next(line for line in done.splitlines() if line.startswith("tokens/s")).split()[-2])
    assert ratio > 1


@pytest.mark.gpu
def test_the_planned_memory_is_what_the_allocator_holds_at_most():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    script = [sys.executable, ROOT / "tests/bench/trainer.py", "--shape", "llama31-8b", "--steps", "2", "--turn", "ours"]
    found = json.loads(subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert found["planned"] == pytest.approx(found["allocated"], rel=0.1)
