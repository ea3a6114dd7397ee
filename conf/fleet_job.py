"""What the laptop and the carrier of a fleet's job have to agree on: names, the job's words, how it ends."""

from enum import IntEnum

HOLDER = "AWS Batch"  # who has a fleet's run, in the place of a box's name in its box.json
STOP = "stop.json"  # beside a run's files: somebody wants it ended for good, and its state is to say why
PRUNED = "pruned"  # the reason where a search wants it
WORDS = ("run", "config", "seconds", "limit", "attempts")  # parameters of the job's definition, in the order of the carrier's words


class Exit(IntEnum):
    """How the carrier ends; the retry rules of the job's definition know these."""

    finished = 0  # delivered, or there is nothing to do
    failed = 1  # the run's own failure: its state says which
    wrong = 64  # nothing that another attempt could do better
    again = 75  # on another instance


def job_name(run_id: str) -> str:
    """What the run's job is called: a job's name takes no `.` (AWS Batch, API Reference, SubmitJob)."""
    return run_id.replace(".", "-")
