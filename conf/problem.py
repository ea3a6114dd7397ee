"""The one error a user sees, and the closed list of reasons for it."""

import errno
import os

# Why a run can fail: the closed list that `state.json` and `inv status` use, with what each means.
REASONS = {
    "bad_config": "the settings cannot work",
    "bad_data": "a row or a file of the data cannot be used",
    "model_unavailable": "the base model could not be fetched from the Hub",
    "out_of_memory": "the device or the machine ran out of memory",
    "disk_full": "the volume has no room left",
    "non_finite_loss": "the loss or a gradient became NaN or infinite",
    "damaged_run": "a file of the run does not match its record",
    "gpu_lost": "the GPU was taken away from the trainer",
    "process_lost": "one of several processes of the trainer was ended",
    "killed": "the trainer was ended from outside",
    "stopped": "the box was stopped under it, or stopped itself",
    "pruned": "its search has given it up: trials that were trained as far did better",
    "crashed": "the trainer ended with an error of its own",
    "unreachable": "a service or the box did not answer",
    "refused": "it is not allowed, or not now",
}

# Reasons that end one run of a sweep and not the next. Any other reason is the machine's or the account's.
RUN_REASONS = {"bad_config", "bad_data", "model_unavailable", "out_of_memory", "non_finite_loss", "crashed", "damaged_run"}


class Problem(Exception):
    """What went wrong, with the values that matter, and a hint that can be pasted.

    `reason` is a word of the closed list of failure reasons (`REASONS`), for programs.
    """

    def __init__(self, what: str, hint: str, reason: str = "bad_config"):
        super().__init__(what)
        if reason not in REASONS:
            raise ValueError(f"{reason} is no failure reason; use one of {', '.join(REASONS)}")
        self.what = what
        self.hint = hint
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what}\n\nhint: {self.hint}"


def of_reason(what: str, hint: str, reason: str) -> Problem:
    """The Problem that a box or a record reports; an unknown reason becomes `crashed`."""
    return Problem(what, hint, reason if reason in REASONS else "crashed")


# Errors of a folder that the user can correct; any other is a bug.
FULL = {errno.ENOSPC, errno.EDQUOT}
PLACE_ERRORS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG} | FULL


def explain(error: Exception) -> Problem | None:
    """An error of a file's place, or one that has a `hint` of its own, as a Problem; None when it is something else."""
    if hint := getattr(error, "hint", None):
        return Problem(str(error), hint)
    if not isinstance(error, OSError) or error.errno not in PLACE_ERRORS:
        return None
    if error.filename is None and error.errno in FULL:  # a file that was opened before says no name
        return Problem(f"a disk of this machine is full: {os.strerror(error.errno)}", "make room there: `df -h` shows where", "disk_full")
    if error.filename is None:
        return None
    what = f"{os.fsdecode(error.filename)}: {os.strerror(error.errno)}"
    return Problem(what, "make room or give yourself the right there; or run the command in a copy of this tree that is yours", "refused")
