"""EventBridge rules that fire: what becomes of an instance goes to the targets of the rules that match it, where those allow it.

Moto keeps rules, targets and the resource policies of CloudWatch Logs. Known are events of EC2, and log groups and topics as targets.
EventBridge takes no role for them: "CloudWatch Logs must include a resource-based policy that enables EventBridge to write to" them.
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-cloudwatchlogs-permissions
"""

import json
import uuid
from collections.abc import Callable

from twin.aws import wire
from twin.aws.ec2.metadata import stamp
from twin.aws.iam import policy
from twin.aws.services.mail import Mail

PRINCIPALS = ("events.amazonaws.com", "delivery.logs.amazonaws.com")
NEEDED = ("logs:CreateLogStream", "logs:PutLogEvents")


class Events:
    def __init__(self, region: str, now: Callable[[], float], mail: Mail):
        self.region, self.now, self.mail = region, now, mail
        self.operations: dict[str, wire.Handler] = {"events.PutTargets": self.check_targets}

    def check_targets(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        for target in request.parameters["Targets"]:
            if ":log-group:" not in target["Arn"] and not target["Arn"].startswith("arn:aws:sns:"):
                raise wire.Refusal("ValidationException", "this emulation delivers events to log groups and topics only")
            if "RoleArn" in target:
                raise wire.Refusal("ValidationException", f"RoleArn is not supported for target {target['Arn']}.")
        return forward(request)

    def instance_changed(self, instance: str, state: str) -> None:
        """As https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html shows the event."""
        self.publish("EC2 Instance State-change Notification", instance, {"instance-id": instance, "state": state})

    def interrupted(self, instance: str, action: str) -> None:
        """As https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html shows it."""
        self.publish("EC2 Spot Instance Interruption Warning", instance, {"instance-id": instance, "instance-action": action})

    def publish(self, kind: str, instance: str, detail: dict) -> None:
        from moto.events.models import events_backends

        arn = f"arn:aws:ec2:{self.region}:{wire.ACCOUNT}:instance/{instance}"
        event = {"version": "0", "id": str(uuid.uuid4()), "detail-type": kind, "source": "aws.ec2", "account": wire.ACCOUNT}
        event |= {"time": stamp(self.now()), "region": self.region, "resources": [arn], "detail": detail}
        for rule in list(events_backends[wire.ACCOUNT][self.region].event_buses["default"].rules.values()):
            if rule.state == "ENABLED" and rule.event_pattern.get_pattern() and rule.event_pattern.matches_event(event):
                for target in list(rule.targets):
                    if ":log-group:" in target["Arn"]:
                        self.deliver(target["Arn"], event)
                    else:
                        self.mail.deliver(target, event)

    def deliver(self, target: str, event: dict) -> None:
        """One event is one line, in a stream of its own."""
        from moto.logs.models import logs_backends

        group = target.split(":log-group:")[1].split(":")[0]
        backend = logs_backends[wire.ACCOUNT][self.region]
        if group not in backend.groups or not self.allowed(group, backend):
            print(f"an event did not reach {group}: there is no such group, or no resource policy of CloudWatch Logs allows it", flush=True)
            return
        stream = str(uuid.uuid4())
        backend.create_log_stream(group, stream)
        backend.put_log_events(group, stream, [{"timestamp": int(self.now() * 1000), "message": json.dumps(event)}])

    def allowed(self, group: str, backend) -> bool:
        resource = f"arn:aws:logs:{self.region}:{wire.ACCOUNT}:log-group:{group}:log-stream:any"
        documents = [json.loads(one.policy_document) for one in backend.describe_resource_policies()]
        return any(
            all(policy.decide(of(documents, who), action, resource, {}) == policy.ALLOWED for action in NEEDED) for who in PRINCIPALS
        )


def of(documents: list[dict], principal: str) -> list[dict]:
    """What resource policies say of one service."""
    statements = [one for document in documents for one in policy.statements(document)]
    services = [policy.as_list(one["Principal"]["Service"]) if isinstance(one["Principal"], dict) else [] for one in statements]
    return [{"Statement": [one for one, names in zip(statements, services, strict=True) if principal in names]}]
