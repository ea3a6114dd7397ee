"""Whatever stops a run becomes one sentence, a word of the closed list, and a hint."""

import errno

import pytest
import torch
from safetensors import SafetensorError

from conf.problem import REASONS, Problem
from trainer.record.failure import diagnose

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


def test_a_full_disk_stops_a_checkpoint_with_that_reason(tmp_path):
    from trainer.train import checkpoint

    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint._write(tmp_path.joinpath("/dev/full"), b"x")
    assert diagnose(caught.value).reason == "disk_full"
