"""From whatever stopped a run to the one sentence, reason and hint that its state keeps."""

import errno

from conf.problem import Problem

ROOM = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "not enough memory")


def diagnose(error: BaseException) -> Problem:
    """The Problem that `error` is, or stands for."""
    text = str(error)
    if isinstance(error, Problem):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Problem("the trainer was ended from outside", "start it again: it goes on at its last checkpoint", "killed")
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return Problem(
            f"the disk is full: {text}",
            "`inv clean` removes old runs; `inv up deploy train -- box.disk_gb=...` makes the volume larger",
            "disk_full",
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(words in text for words in ROOM):
        hint = "lower `train.pack_tokens` (and `train.eval_batch` if it was scoring), or use `quant=nf4`"
        return Problem(f"out of memory: {text.splitlines()[0] if text else 'no room'}", hint, "out_of_memory")
    what = f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
    return Problem(f"the trainer crashed: {what}", "the traceback is in log.txt of the run", "crashed")
