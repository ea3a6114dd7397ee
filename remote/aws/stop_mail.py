"""Mail about a box that can no longer send any itself: rules of EventBridge tell the topic that it has stopped, or that AWS takes it back.

EC2's events name an instance and nothing else of it: no rule can ask for a tag or a name (Amazon EC2 User Guide, "State change events for
your instances"). So each box has rules of its own, which `up` makes, beside the schedule that stops it; a rule of the stack would tell of
every instance of the account. The box tells first where it can: this mail comes besides, and only `down` sends none.
The only file with boto3's events.
"""

import contextlib
import json

from conf.problem import Problem
from remote.aws.session import Aws

TARGET = "mail"
NEXT = "Next: `inv up` starts it again, `inv up deploy train` goes on with an unfinished run, `inv costs` shows what it has cost."
# Of a notice: how EC2 calls the event, what its detail must be, and what the mail says; <name> is what stands at that place of the event.
RULES = {
    "stopped": ("EC2 Instance State-change Notification", {"state": ["stopped", "terminated"]}, "is <state> since <time>"),
    "spot": ("EC2 Spot Instance Interruption Warning", {}, "is taken back by AWS within two minutes (<action>, told at <time>)"),
}
PATHS = {"instance": "$.detail.instance-id", "state": "$.detail.state", "action": "$.detail.instance-action", "time": "$.time"}


def arm(aws: Aws, instance_id: str, name: str, events: tuple[str, ...]) -> None:
    """Let EventBridge send mail when the box stops."""
    client = aws.client("events")
    for event in (one for one in RULES if one in events):
        rule = _name(aws, instance_id, event)
        client.put_rule(
            Name=rule, EventPattern=_pattern(instance_id, event), Description="fine-tune-slm: `inv up` has made it", State="ENABLED"
        )
        refused = client.put_targets(Rule=rule, Targets=[_target(aws, name, event)])["FailedEntries"]
        if refused:
            what = f"EventBridge takes no target for the rule {rule}: {refused[0].get('ErrorMessage', refused[0])}"
            raise Problem(what, "`inv doctor` looks at the notices; `notify.email=null` goes on without mail", "refused")


def disarm(aws: Aws, instance_id: str) -> None:
    """Take the rules away."""
    client = aws.client("events")
    for event in RULES:
        with contextlib.suppress(client.exceptions.ResourceNotFoundException):
            client.remove_targets(Rule=_name(aws, instance_id, event), Ids=[TARGET])
            client.delete_rule(Name=_name(aws, instance_id, event))


def topic(aws: Aws) -> str:
    """The topic's ARN, whether it is there or not."""
    _, partition, _, _, account, _ = aws.caller.split(":", 5)
    return f"arn:{partition}:sns:{aws.cloud.region}:{account}:{aws.cloud.own}"


def _name(aws: Aws, instance_id: str, event: str) -> str:
    return f"{aws.cloud.own}-{instance_id}-{event}"


def _pattern(instance_id: str, event: str) -> str:
    kind, detail, _ = RULES[event]
    return json.dumps({"source": ["aws.ec2"], "detail-type": [kind], "detail": {"instance-id": [instance_id], **detail}})


def _target(aws: Aws, name: str, event: str) -> dict:
    _, _, what = RULES[event]
    shown = "".join(sign for sign in name if sign not in '<>"\\')
    template = f'"fine-tune-slm: the box {shown} (<instance>) {what}. {NEXT}"'
    paths = {key: path for key, path in PATHS.items() if f"<{key}>" in template}
    return {"Id": TARGET, "Arn": topic(aws), "InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}
