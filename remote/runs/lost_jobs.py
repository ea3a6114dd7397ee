"""What is said of a run whose job on AWS Batch has ended before the run could say anything: which kind of end that was, and what helps."""

from conf import schema
from conf.fleet_job import Exit
from remote.aws.batch import FleetJob

AGAIN = "`inv train` hands it over again"
ROOM = "`inv train -- fleet.market=on_demand` may find room; or let the fleet have more types, then `inv train`: "
ROOM += "`inv init -- 'fleet.instance_type=[g6.2xlarge,g5.2xlarge]'`"
# What stands in the reasons of Batch (User Guide, "Jobs stuck in a RUNNABLE status") and ECS (Developer Guide, "Stopped tasks error
# messages").
KINDS = {
    "CAPACITY:": ("unreachable", ROOM),
    "MISCONFIGURATION:": (
        "unreachable",
        "`inv doctor` compares the fleet with your settings, `inv init` makes it as they say; then `inv train`",
    ),
    "CannotPull": (
        "unreachable",
        "`inv up deploy down -- fleet=none` lets a box build the image again, or `inv image.push`; then `inv train`",
    ),
    "OutOfMemoryError": ("out_of_memory", "lower `train.pack_tokens`, then `inv train`"),
}


def explain(job: FleetJob | None, cloud: schema.Cloud) -> tuple[str, str]:
    """The reason, of the closed list, and the hint."""
    said = f"{job.reason}\n{job.container}" if job else ""
    for words, meaning in KINDS.items():
        if words in said:
            return meaning
    if job and job.exit_code == Exit.again:
        shows = f"`aws logs tail {cloud.log_group} --log-stream-name-prefix fleet/ --since 1d` shows what it could not reach"
        return "unreachable", f"{AGAIN}; {shows}"
    return "unreachable", AGAIN
