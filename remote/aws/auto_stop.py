"""The switch outside the box: one schedule that stops it when its time is over, whatever has become of us, it or its agent.

It is armed when the box starts, never moved, and taken away only when AWS says that the box is stopped.
The only file with boto3's scheduler.
"""

import contextlib
import functools
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.session import Aws, retry_until_visible

# "Universal target": the scheduler calls the EC2 API itself, with the role that it is given.
STOP = "arn:{partition}:scheduler:::aws-sdk:ec2:stopInstances"
NEW_ROLE = "must allow AWS EventBridge Scheduler to assume the role"  # also where it never will
GRACE = timedelta(minutes=10)  # for the box to end its run and stop itself first; this is for a box that cannot
SHOWN = "%Y-%m-%dT%H:%M:%SZ"
WHEN = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True)
class Armed:
    stops_at: str


def arm(aws: Aws, instance_id: str, hours: float) -> Armed:
    """Let AWS itself stop the box soon after `box.max_hours`: one schedule, made once for each start."""
    scheduler = aws.client("scheduler")
    due = stop_time(aws, instance_id)
    if due and due <= datetime.now(UTC):
        disarm(aws, instance_id)  # it has fired, and somebody has started the box again
        due = None
    if due:
        screen.note(f"  AWS stops it at {due:{SHOWN}}: its longest life counts from its start, and another holds from the next one")
    else:
        due = datetime.now(UTC) + timedelta(hours=hours) + GRACE
        try:
            make = functools.partial(scheduler.create_schedule, **_schedule(aws, instance_id, due))
            retry_until_visible(make, NEW_ROLE, "the scheduler's new role")
        except scheduler.exceptions.ConflictException:
            # The answer to our own request was lost, and botocore has sent it twice; it may not show yet.
            due = stop_time(aws, instance_id) or due
        except scheduler.exceptions.ClientError as error:
            raise _not_armed(aws, instance_id, error) from error
    return Armed(f"{due:{SHOWN}}")


def disarm(aws: Aws, instance_id: str) -> None:
    """Take the schedule away; the box is stopped."""
    scheduler = aws.client("scheduler")
    with contextlib.suppress(scheduler.exceptions.ResourceNotFoundException):
        scheduler.delete_schedule(Name=_name(aws, instance_id))


def stop_time(aws: Aws, instance_id: str) -> datetime | None:
    """When the schedule will stop the box, or None when there is no schedule."""
    scheduler = aws.client("scheduler")
    try:
        expression = scheduler.get_schedule(Name=_name(aws, instance_id))["ScheduleExpression"]
    except scheduler.exceptions.ResourceNotFoundException:
        return None
    return datetime.strptime(expression.removeprefix("at(").removesuffix(")"), WHEN).replace(tzinfo=UTC)


def _name(aws: Aws, instance_id: str) -> str:
    return f"{aws.cloud.own}-{instance_id}"


def _schedule(aws: Aws, instance_id: str, due: datetime) -> dict:
    partition, account = aws.caller.split(":")[1], aws.caller.split(":")[4]
    role = f"arn:{partition}:iam::{account}:role/{aws.cloud.scheduler_role}"
    return {
        "Name": _name(aws, instance_id),
        "ScheduleExpression": due.strftime(f"at({WHEN})"),
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {"Arn": STOP.format(partition=partition), "RoleArn": role, "Input": json.dumps({"InstanceIds": [instance_id]})},
    }


def _not_armed(aws: Aws, instance_id: str, error: Exception) -> Problem:
    role = aws.cloud.scheduler_role
    return Problem(
        f"nothing would stop {instance_id} from outside: the scheduler refused ({error})",
        f"it needs the role `{role}`, which may call ec2:StopInstances and trusts scheduler.amazonaws.com; "
        "name another with `cloud.scheduler_role=...`. The box runs: `inv down` stops it",
        reason="refused",
    )
