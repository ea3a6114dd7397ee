"""Whatever stops a run becomes one sentence, a word of the closed list, and a hint."""

import errno
import logging
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from conf.problem import REASONS, Problem
from trainer import __main__ as command
from trainer.record.failure import diagnose
from trainer.train import launch, loop
from trainer.train.checkpoint import Progress

OWN = Problem("what", "hint", "bad_data")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OWN, "bad_data"),
        (KeyboardInterrupt(), "killed"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk_full"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (RuntimeError("CUDA error: unknown error\nCUDA kernel errors might be asynchronously reported"), "gpu_lost"),
        (RuntimeError("No CUDA GPUs are available"), "gpu_lost"),
        (RuntimeError("CUDA error: device-side assert triggered"), "crashed"),
        (ZeroDivisionError("division by zero"), "crashed"),
        (ValueError(), "crashed"),
    ],
)
def test_every_end_has_its_reason(error, reason):
    problem = diagnose(error)
    assert problem.reason == reason in REASONS
    assert problem.what and problem.hint and "\n" not in problem.what
    assert problem is error or error is not OWN


def test_a_run_that_was_ended_is_not_told_to_go_on_where_it_was_ended_for_good():
    """`inv stop-run` ends a trainer as a restart of its box does: it cannot tell them apart."""
    ended = [diagnose(KeyboardInterrupt()), launch._problem(Path("none"), {0: -15}, 2)]
    ended.append(loop._save_interrupted(Progress(), 4, None, None, None, None))
    assert [problem.reason for problem in ended] == ["killed"] * 3
    assert all("unless `inv stop-run` has ended the run for good" in problem.hint for problem in ended)


def test_a_library_that_asks_for_a_package_which_runs_code_of_others_is_not_heard(monkeypatch):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    with warnings.catch_warnings():
        command._quiet_libraries()
    assert logger.level == logging.ERROR


def test_a_full_disk_stops_a_checkpoint_with_that_reason(tmp_path):
    from trainer.train import checkpoint

    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint._write(tmp_path.joinpath("/dev/full"), b"x")
    assert diagnose(caught.value).reason == "disk_full"
