"""The SSM agent on the box: commands travel by it, once it has registered."""

import math
import time

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import describe
from remote.aws.instance import StartKind
from remote.aws.session import Aws, is_access_denied, pauses

AGENT_TIMEOUT = 600  # seconds until an agent must have registered
REBOOT_AFTER = 240  # seconds after which a new box whose agent has not is rebooted, once


def wait(
    aws: Aws,
    instance_id: str,
    seconds: float = AGENT_TIMEOUT,
    changed: StartKind | None = None,
    reboot_after: float = REBOOT_AFTER,
) -> str:
    """Wait until the box's agent takes commands.

    Answers its version.
    """
    started = describe.instance(aws, instance_id)["LaunchTime"]
    # Nothing can be at work on a box that this very command has launched.
    reboot_at = time.monotonic() + reboot_after if changed == "launched" else math.inf
    mine = [{"Key": "InstanceIds", "Values": [instance_id]}]
    for _ in pauses(seconds):
        registered = aws.client("ssm").describe_instance_information(Filters=mine)["InstanceInformationList"]
        # After a stop and a start the record can still say Online from before.
        if registered and registered[0]["PingStatus"] == "Online" and registered[0]["LastPingDateTime"] > started:
            return registered[0].get("AgentVersion", "?")
        if time.monotonic() > reboot_at:
            _reboot_once(aws, instance_id, reboot_after)
            reboot_at = math.inf
    raise Problem(
        f"the agent on {instance_id} did not register within {seconds:.0f} s",
        "`inv up -- box.ssh=true` takes SSH in its place, and so do the verbs after it; or repair the agent: `inv doctor` "
        "looks at its role and at its subnet's way to the ssm endpoints; "
        f"`aws ec2 get-console-output --latest --instance-id {instance_id}` shows its boot, "
        f"`aws ec2 reboot-instances --instance-ids {instance_id}` makes the agent try again",
        reason="unreachable",
    )


def _reboot_once(aws: Aws, instance_id: str, reboot_after: float) -> None:
    """Reboot a new box whose agent is silent.

    An agent that AWS has refused once, because its role was new, sleeps for about 26 minutes ("Sleeping for 25m42s before retrying
    retrieve credentials": https://github.com/aws-samples/aws-cloud9-bootstrapping-example/pull/7, hashicorp/packer-plugin-amazon#503);
    a new one asks at once. The shutdown that the box has planned for itself is planned again at each boot (USER_DATA).
    """
    ec2 = aws.client("ec2")
    silent = f"  the agent on {instance_id} has been silent for {reboot_after:.0f} s"
    try:
        ec2.reboot_instances(InstanceIds=[instance_id])
    except ec2.exceptions.ClientError as error:
        if not is_access_denied(error):
            raise
        screen.note(f"{silent}; a reboot would let it try again, and your policy has no ec2:RebootInstances (`inv policy`): waiting on")
        return
    screen.note(
        f"{silent}: one that was refused once, as while its role was new, sleeps for half an hour. The box is rebooted, once; waiting on"
    )
