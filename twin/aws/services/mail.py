"""SNS by e-mail, with a mailbox: a subscription is pending until its owner confirms it, and gets nothing before. Moto keeps the topics."""

import json
import re
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from twin.aws import wire

EVENTS = "events.amazonaws.com"
FORMAT = "%Y-%m-%dT%H:%M:%SZ"
PLACE = re.compile(r"<([A-Za-z0-9_-]+)>")


class Mail:
    def __init__(self, state: Path, region: str, today: Callable[[], datetime]):
        self.path, self.region, self.today = state / "mail.jsonl", region, today
        self.tokens: dict[str, str] = {}  # of what is not confirmed yet, with the ARN of the subscription
        self.lock = threading.Lock()
        self.operations: dict[str, wire.Handler] = {
            "sns.Subscribe": self.subscribe,
            "sns.ConfirmSubscription": self.confirm,
            "sns.ListSubscriptions": self.show,
            "sns.ListSubscriptionsByTopic": self.show,
            "sns.Publish": self.publish,
        }

    @property
    def backend(self):
        from moto.sns.models import sns_backends

        return sns_backends[wire.ACCOUNT][self.region]

    def subscribe(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """An address gets a token by mail; the caller learns the ARN only where he asks for it (API Reference, Subscribe)."""
        content = request.parameters
        known = set(self.backend.subscriptions)
        response = forward(request)
        if response.status_code != 200 or content["Protocol"] != "email":
            return response
        (arn,) = re.findall(r"<SubscriptionArn>(.*?)</SubscriptionArn>", response.get_data(as_text=True))
        if arn not in known:
            token = secrets.token_hex(32)
            self.tokens[token] = arn
            topic, address = content["TopicArn"], content["Endpoint"]
            text = f"You have chosen to subscribe to the topic:\n{topic}\n\nTo confirm this subscription: `inv twin.mail --confirm`, or\n"
            text += f"aws sns confirm-subscription --topic-arn {topic} --token {token}"
            self.put(address, "AWS Notification - Subscription Confirmation", text)
        if content.get("ReturnSubscriptionArn") != "true" and arn in self.tokens.values():
            response.set_data(response.get_data(as_text=True).replace(arn, "pending confirmation"))
        return response

    def confirm(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        arn = self.tokens.pop(request.parameters.get("Token", ""), None)
        if arn is None:
            raise wire.Refusal("InvalidParameter", "Invalid parameter: Token")
        return answer("ConfirmSubscription", f"<SubscriptionArn>{arn}</SubscriptionArn>")

    def show(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """What is not confirmed is shown without its ARN."""
        response = forward(request)
        text = response.get_data(as_text=True)
        for arn in self.tokens.values():
            text = text.replace(f">{arn}<", ">PendingConfirmation<")
        response.set_data(text)
        return response

    def publish(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200:
            content = request.parameters
            self.send(content["TopicArn"], content.get("Subject", "AWS Notification Message"), content["Message"])
        return response

    def send(self, topic: str, subject: str, text: str) -> None:
        for subscription in list(self.backend.subscriptions.values()):
            if subscription.topic.arn == topic and subscription.protocol == "email" and subscription.arn not in self.tokens.values():
                self.put(subscription.endpoint, subject, text)

    def put(self, address: str, subject: str, text: str) -> None:
        line = {"time": self.today().strftime(FORMAT), "to": address, "subject": subject, "text": text}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def confirm_all(self) -> dict:
        """Whoever reads this mailbox opens every link in it."""
        confirmed = list(self.tokens.values())
        self.tokens.clear()
        return {"confirmed": confirmed}

    def deliver(self, target: dict, event: dict) -> None:
        """What a rule of EventBridge publishes, where the topic lets it."""
        if self.may_publish(target["Arn"]):
            self.send(target["Arn"], "AWS Notification Message", transformed(target, event))

    def may_publish(self, topic: str) -> bool:
        """By the topic's own policy, in a statement without a condition: EventBridge fulfils none there ("You can't use Condition blocks in
        Amazon SNS topic policies for EventBridge", EventBridge User Guide)."""
        if topic not in self.backend.topics:
            return False
        for statement in json.loads(self.backend.topics[topic].policy)["Statement"]:
            service = statement["Principal"].get("Service") if isinstance(statement["Principal"], dict) else None
            if (
                statement["Effect"] == "Allow"
                and service == EVENTS
                and statement["Action"] == "sns:Publish"
                and "Condition" not in statement
            ):
                return True
        print(f"a rule may not publish to {topic}: its policy does not allow it", flush=True)
        return False


def transformed(target: dict, event: dict) -> str:
    """The event, or what the target's input transformer makes of it: each <name> is what its path finds, nothing where there is nothing."""
    if "InputTransformer" not in target:
        return json.dumps(event)
    paths, template = target["InputTransformer"].get("InputPathsMap", {}), target["InputTransformer"]["InputTemplate"]
    return PLACE.sub(lambda match: str(at(event, paths[match[1]])) if match[1] in paths else match[0], template)


def at(event: dict, path: str) -> object:
    value: object = event
    for name in path.removeprefix("$.").split("."):
        value = value.get(name, "") if isinstance(value, dict) else ""
    return value


def answer(operation: str, content: str) -> wire.Response:
    space = "http://sns.amazonaws.com/doc/2010-03-31/"
    result = f"<{operation}Result>{content}</{operation}Result>"
    request_id = "<ResponseMetadata><RequestId>twin</RequestId></ResponseMetadata>"
    return wire.Response(f'<{operation}Response xmlns="{space}">{result}{request_id}</{operation}Response>', content_type="text/xml")
