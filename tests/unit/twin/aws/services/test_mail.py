"""SNS by e-mail and EventBridge's rules about EC2, as the emulation has them."""

import json
from datetime import UTC, datetime

import pytest
from moto.events.models import events_backends
from moto.sns.models import sns_backends

from twin.aws import wire
from twin.aws.services.events import Events
from twin.aws.services.mail import Mail

REGION = "eu-central-1"  # no other test of this process has one here
OPEN = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sns:Publish"}
NOW = datetime(2026, 11, 30, 20, tzinfo=UTC)
PATTERN = {"source": ["aws.ec2"], "detail": {"instance-id": ["i-1"], "state": ["stopped"]}}


@pytest.fixture
def mail(tmp_path):
    yield Mail(tmp_path, REGION, lambda: NOW)
    for backends in (sns_backends, events_backends):
        backends[wire.ACCOUNT][REGION].reset()


def read(mail: Mail) -> list[dict]:
    return [json.loads(line) for line in mail.path.read_text().splitlines()] if mail.path.exists() else []


def told(mail: Mail, policy: dict | None, rule: str = "fine-tune-slm-i-1-stopped") -> list[dict]:
    """What comes by mail when two instances stop, and a rule about one of them publishes to a topic with this statement."""
    topic = mail.backend.create_topic("notices")
    if policy:
        topic.policy = json.dumps({"Version": "2012-10-17", "Statement": [policy | {"Resource": topic.arn}]})
    mail.backend.subscribe(topic.arn, "me@example.com", "email")
    events = events_backends[wire.ACCOUNT][REGION]
    events.put_rule(name=rule, event_pattern=json.dumps(PATTERN), state="ENABLED")
    transformer = {"InputPathsMap": {"state": "$.detail.state", "time": "$.time"}, "InputTemplate": '"it is <state> since <time> <else>"'}
    events.put_targets(rule, "default", [{"Id": "mail", "Arn": topic.arn, "InputTransformer": transformer}])
    fired = Events(REGION, lambda: NOW.timestamp(), mail)
    for instance, state in (("i-2", "stopped"), ("i-1", "stopping"), ("i-1", "stopped")):
        fired.instance_changed(instance, state)
    fired.interrupted("i-1", "stop")
    return read(mail)


def test_a_rule_tells_of_its_instance_in_its_own_words(mail):
    (one,) = told(mail, OPEN)
    assert (one["to"], one["text"]) == ("me@example.com", '"it is stopped since 2026-11-30T20:00:00Z <else>"')


@pytest.mark.parametrize("policy", [None, OPEN | {"Condition": {"StringEquals": {"aws:SourceAccount": wire.ACCOUNT}}}])
def test_a_rule_publishes_only_where_the_topics_policy_lets_it_without_a_condition(mail, policy):
    assert told(mail, policy) == []


def test_a_subscription_waits_for_its_owner(cloud):
    sns = cloud.sns
    topic = sns.create_topic(Name="waiting")["TopicArn"]
    where = {"TopicArn": topic, "Protocol": "email", "Endpoint": "you@example.com"}
    assert sns.subscribe(**where)["SubscriptionArn"] == "pending confirmation"
    assert [one["SubscriptionArn"] for one in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]] == ["PendingConfirmation"]
    sns.publish(TopicArn=topic, Subject="early", Message="nobody gets this")
    (asked,) = [json.loads(line) for line in (cloud.state / "mail.jsonl").read_text().splitlines()]
    token = asked["text"].rpartition("--token ")[2]
    arn = sns.confirm_subscription(TopicArn=topic, Token=token)["SubscriptionArn"]
    assert sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"][0]["SubscriptionArn"] == arn
    sns.publish(TopicArn=topic, Subject="late", Message="here it is")
    last = json.loads((cloud.state / "mail.jsonl").read_text().splitlines()[-1])
    assert (last["subject"], last["text"], last["to"]) == ("late", "here it is", "you@example.com")
