"""The stack's fleet as a whole: what its environments and queues are called, and which instances it has."""

from conf import schema
from remote.aws import describe
from remote.aws.session import Aws
from remote.aws.tags import FLEET

ENVIRONMENTS = ("spot", "on-demand")  # STACK-spot and STACK-on-demand
QUEUES = (*ENVIRONMENTS, "spot-first")
MARKETS = {
    schema.Market.spot: ("spot",),
    schema.Market.on_demand: ("on-demand",),
    schema.Market.spot_first: ("spot", "on-demand"),
}
THERE = ("pending", "running", "stopping", "shutting-down")


def environments(aws: Aws) -> list[dict]:
    """The stack's compute environments; none where it has no fleet."""
    names = [f"{aws.cloud.own}-{name}" for name in ENVIRONMENTS]
    return aws.client("batch").describe_compute_environments(computeEnvironments=names)["computeEnvironments"]


def instances(aws: Aws, states: tuple[str, ...] = THERE) -> list[dict]:
    """The fleet's instances in these states, as EC2 describes them."""
    return describe.instances(aws, {f"tag:{FLEET}": [aws.cloud.own], "instance-state-name": list(states)})
