"""Who is told when a run or the box ends: whether he can be, and a notice by hand.

The box sends the others (remote/scripts/notify.sh), and a fleet's job those of its run (carrier/notices.py).
"""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime

from conf import schema
from conf.problem import Problem
from conf.text import webhook
from remote.aws.session import Aws, with_region
from remote.aws.stop_mail import topic

TIMEOUT = 15  # seconds for an answer of a webhook
TITLE, WHAT, NEXT = "fine-tune-slm: a notice by hand", "`inv notify.test` has sent it: nothing has ended", "`inv status`"
CONFIRM = (
    "open the link in AWS's mail, which may lie among spam; AWS sends another: `aws sns subscribe --topic-arn {topic} --protocol email "
)
CONFIRM += "--notification-endpoint {email}`"
SECRET = "put the address into a file, then `aws secretsmanager create-secret --name {name} --secret-string file://FILE`"


def subscription(aws: Aws, email: str) -> str:
    """What SNS has of the address: an ARN, `PendingConfirmation`, or nothing; also where there is no topic."""
    client = aws.client("sns")
    try:
        pages = client.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic(aws))
        found = [one["SubscriptionArn"] for page in pages for one in page["Subscriptions"] if one.get("Endpoint") == email]
    except client.exceptions.NotFoundException:
        return ""
    return found[0] if found else ""


def has_address(aws: Aws, name: str) -> bool:
    """Whether the secret holds what could be an address."""
    client = aws.client("secretsmanager")
    try:
        parse_address(aws.secret(name), name)
    except (client.exceptions.ResourceNotFoundException, Problem):
        return False
    return True


def send_test(aws: Aws, notify: schema.Notify) -> list[str]:
    """Send a notice by every way that is set, and tell what came back; a Problem where none is."""
    if not (notify.email or notify.webhook):
        hint = "`inv init -- notify.email=you@example.com` sends mail; a secret's name sends to a webhook: `notify.webhook=NAME`"
        raise Problem("nobody is told of anything: neither notify.email nor notify.webhook is set", hint, "refused")
    lines = [_mail(aws, notify.email)] if notify.email else []
    return [*lines, *([_post(aws, notify.webhook)] if notify.webhook else [])]


def _mail(aws: Aws, email: str) -> str:
    client, state = aws.client("sns"), subscription(aws, email)
    if not state:
        raise Problem(f"there is no topic that mails {email}", f"`inv init -- notify.email={email}` makes it", "refused")
    answer = client.publish(TopicArn=topic(aws), Subject=TITLE, Message=f"{TITLE}\n\n{WHAT}\nNext: {NEXT}\n")
    if state == "PendingConfirmation":
        how = with_region(CONFIRM.format(topic=topic(aws), email=email), aws.cloud.region)
        return f"mail: SNS took it, and {email} gets nothing before its owner has confirmed: {how}"
    return f"mail: SNS took it for {email} (message {answer['MessageId']})"


def _post(aws: Aws, name: str) -> str:
    client = aws.client("secretsmanager")
    try:
        form, url, ntfy_topic = parse_address(aws.secret(name), name)
    except client.exceptions.ResourceNotFoundException as error:
        raise Problem(f"there is no secret `{name}`, or it is empty", SECRET.format(name=name), "refused") from error
    data = json.dumps(body(form, ntfy_topic)).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            return f"webhook: it answered {reply.status}"
    except urllib.error.HTTPError as error:
        return f"webhook: it answered {error.code}; the box would try again for an hour"
    except OSError as error:  # its words may hold the address
        return f"webhook: no answer within {TIMEOUT} s, or nobody there ({type(getattr(error, 'reason', error)).__name__})"


def parse_address(text: str, name: str) -> tuple[str, str, str]:
    """How a body must be, where it is posted to, and ntfy's topic; as notify.sh has it."""
    try:
        return webhook.parse(text)
    except ValueError as error:
        again = SECRET.format(name=name).replace("create-secret --name", "put-secret-value --secret-id")
        hint = again if "http" in str(error) else "an address such as https://ntfy.sh/TOPIC"
        raise Problem(f"the secret `{name}` {error}", hint, "refused") from error


def body(form: str, ntfy_topic: str) -> dict:
    about = {"event": "test", "run": "", "instance": "", "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "cost": ""}
    return webhook.body(form, ntfy_topic, about | {"title": TITLE, "what": WHAT, "next": NEXT})
