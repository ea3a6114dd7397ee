"""From the error that stopped a run to the sentence, reason and hint in its state."""

import errno
import os

from conf.problem import Problem

OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "not enough memory")
# What CUDA and its driver say of a GPU that was there and is not any more: a container loses it at a reload of systemd
# (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48), a machine when the card has "fallen off the bus".
GPU_LOST = (
    "Failed to initialize NVML",
    "CUDA error: unknown error",
    "CUDA unknown error",
    "no CUDA-capable device",
    "No CUDA GPUs are available",
    "GPU is lost",
    "fallen off the bus",
)
ENDED_OUTSIDE = "`inv train` goes on at its last checkpoint, unless `inv stop-run` has ended the run for good"
# What gloo and NCCL say of a process that is not there any more.
PROCESS_LOST = ("Connection closed by peer", "Connection reset by peer", "ncclRemoteError")


def diagnose(error: BaseException) -> Problem:
    """`error` as a Problem."""
    text = str(error)
    if isinstance(error, Problem):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Problem("the trainer was ended from outside", ENDED_OUTSIDE, "killed")
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return Problem(
            f"the disk is full: {text}",
            "`inv clean` removes old runs; `inv up deploy train -- box.disk_gb=...` makes the volume larger",
            "disk_full",
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(phrase in text for phrase in OUT_OF_MEMORY):
        hint = (
            "`train.gradient_checkpointing=yes`, a lower `train.pack_tokens` (`train.eval_batch_size=1` if it was scoring), or `quant=nf4`"
        )
        return Problem(f"out of memory: {text.splitlines()[0] if text else 'no room'}", hint, "out_of_memory")
    what = f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
    if any(phrase in text for phrase in GPU_LOST):
        hint = "`inv train` resumes in a new container with the GPU; if that fails: `inv down`, then `inv up deploy train`"
        return Problem(f"the trainer has lost the GPU: {what}", hint, "gpu_lost")
    if any(phrase in text for phrase in PROCESS_LOST) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        hint = "start it again, as `inv train` does: it goes on at its last checkpoint"
        return Problem(f"another process of the trainer has ended: {what}", hint, "process_lost")
    return Problem(f"the trainer crashed: {what}", "the traceback is in log.txt of the run", "crashed")
