"""EventBridge Scheduler with schedules that fire: at their moment on the world's clock, with the rights of their role.

Moto keeps the records. Known are one-time `at(...)` and `rate(...)` expressions, and universal targets of EC2.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from twin.aws import calls, wire
from twin.aws.ec2 import instances
from twin.aws.iam import actions, policy
from twin.clock import Clock

AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
RATE = re.compile(r"rate\(([1-9]\d*) (minute|hour|day)s?\)")
SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
TARGET = re.compile(r"arn:aws:scheduler:::aws-sdk:ec2:(\w+)")
PRINCIPAL = "scheduler.amazonaws.com"
KEY = "SCHEDULER"  # stands in the journal where a caller would


class Scheduler:
    def __init__(self, clock: Clock, region: str, gateway: Callable):
        self.clock, self.region = clock, region
        self.gateway = gateway  # the WSGI application through which targets are called
        self.operations: dict[str, wire.Handler] = {"scheduler.POST": self.write, "scheduler.PUT": self.write}

    def write(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """CreateSchedule or UpdateSchedule: checked as the service does, then due."""
        if not request.path.startswith("/schedules/"):
            return forward(request)
        content = request.json
        moment = self.next(content, self.clock.now())
        check_target(content["Target"])
        response = forward(request)
        if response.status_code == 200:
            group, name = content.get("GroupName") or "default", request.path.rpartition("/")[2]
            self.set(group, name, moment)
        return response

    def set(self, group: str, name: str, moment: float) -> None:
        schedule = self.find(group, name)
        schedule.due = moment
        self.clock.at(moment, lambda: self.fire(group, name, schedule, moment))

    def find(self, group: str, name: str):
        from moto.scheduler.models import scheduler_backends

        schedule_group = scheduler_backends[wire.ACCOUNT][self.region].schedule_groups.get(group)
        return schedule_group.schedules.get(name) if schedule_group else None

    def fire(self, group: str, name: str, schedule, moment: float) -> None:
        """Calls the target, unless the schedule was deleted, changed or disabled since."""
        if self.find(group, name) is not schedule or schedule.due != moment:
            return
        if schedule.state == "ENABLED":
            self.call(schedule.target)
        if schedule.schedule_expression.startswith("rate"):
            self.set(group, name, moment + period(schedule.schedule_expression))
        elif schedule.action_after_completion == "DELETE":
            del self.find_group(group).schedules[name]

    def find_group(self, group: str):
        from moto.scheduler.models import scheduler_backends

        return scheduler_backends[wire.ACCOUNT][self.region].schedule_groups[group]

    def call(self, target: dict) -> None:
        operation = TARGET.fullmatch(target["Arn"])[1]
        operation = operation[0].upper() + operation[1:]
        role = role_of(target["RoleArn"])
        content = flat(json.loads(target.get("Input", "{}")))
        wanted = actions.required(wire.Request({}, "ec2", operation, self.region, urlencode(content).encode()))
        if not role or not policy.allows(
            instances.documents(role), wanted
        ):  # the real service drops the call, too, and only a dead-letter queue would hear of it
            print(f"a schedule may not call ec2:{operation}: {target['RoleArn']} does not allow it", flush=True)
            return
        call_ec2(self.gateway, self.region, operation, content, KEY)

    def next(self, content: dict, now: float) -> float:
        expression, zone = content["ScheduleExpression"], content.get("ScheduleExpressionTimezone") or "UTC"
        if once := AT.fullmatch(expression):
            try:
                meant = datetime.fromisoformat(once[1]).replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone)).timestamp()
                return meant + self.clock.offset  # the caller has read the real clock: so it is as far away as was meant
            except (ValueError, ZoneInfoNotFoundError) as error:
                raise wire.Refusal("ValidationException", f"Invalid Schedule Expression {expression}: {error}") from error
        if RATE.fullmatch(expression):
            return now + period(expression)
        raise wire.Refusal("ValidationException", f"Invalid Schedule Expression {expression}. (This emulation knows at and rate.)")


def period(expression: str) -> int:
    count, unit = RATE.fullmatch(expression).groups()
    return int(count) * SECONDS[unit]


def check_target(target: dict) -> None:
    if not TARGET.fullmatch(target["Arn"]):
        raise wire.Refusal("ValidationException", f"Provided Arn is not in correct format. (This emulation knows {TARGET.pattern}.)")
    role = role_of(target["RoleArn"])
    trust = json.dumps(role.assume_role_policy_document) if role else ""
    if PRINCIPAL not in trust:
        raise wire.Refusal("ValidationException", "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.")
    try:
        json.loads(target.get("Input", "{}"))
    except ValueError as error:
        raise wire.Refusal("ValidationException", f"Invalid Input: {error}") from error


def role_of(arn: str):
    from moto.iam.models import iam_backends

    return next((role for role in iam_backends[wire.ACCOUNT]["aws"].roles.values() if role.arn == arn), None)


def flat(content: dict) -> dict[str, str]:
    """The input of a universal target as the parameters of EC2's query protocol: InstanceIds becomes InstanceId.1, ..."""
    parameters = {}
    for name, value in content.items():
        if isinstance(value, list):
            parameters |= {f"{name.removesuffix('s')}.{number}": str(one) for number, one in enumerate(value, 1)}
        else:
            parameters[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return parameters


def call_ec2(gateway: Callable, region: str, operation: str, parameters: dict[str, str], by: str) -> int:
    """The HTTP status of a call to EC2 that AWS itself makes."""
    return calls.ec2(gateway, region, operation, parameters, by)[0]
