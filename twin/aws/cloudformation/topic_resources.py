"""The resource types of notices: SNS's topics, their policies, and subscriptions, which stay pending until their owner confirms them."""

import json

from twin.aws.cloudformation.resource_type import Client, Properties, ResourceType


def create_topic(client: Client, properties: Properties, default_name: str) -> str:
    return client("sns").create_topic(Name=properties.get("TopicName", default_name))["TopicArn"]


def subscribe(client: Client, properties: Properties, default_name: str) -> str:
    """Its ARN, also while it waits for its owner."""
    words = {name: properties[name] for name in ("TopicArn", "Protocol", "Endpoint")}
    return client("sns").subscribe(**words, ReturnSubscriptionArn=True)["SubscriptionArn"]


def put_topic_policy(client: Client, properties: Properties, default_name: str) -> str:
    for topic in properties["Topics"]:
        client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(properties["PolicyDocument"]))
    return default_name


TYPES = {
    "AWS::SNS::Topic": ResourceType(
        create_topic,
        lambda client, arn, properties: None,
        lambda client, arn, properties: client("sns").delete_topic(TopicArn=arn),
        ("TopicName",),
        create_only=("TopicName",),
    ),
    "AWS::SNS::Subscription": ResourceType(
        subscribe,
        lambda client, arn, properties: None,
        lambda client, arn, properties: client("sns").unsubscribe(SubscriptionArn=arn),
        ("TopicArn", "Protocol", "Endpoint"),
        create_only=("TopicArn", "Protocol", "Endpoint"),
        tagged=False,
    ),
    "AWS::SNS::TopicPolicy": ResourceType(
        put_topic_policy,
        lambda client, id, properties: put_topic_policy(client, properties, id) and None,
        lambda client, id, properties: None,  # its topic goes, too; the policy of one that stays would be the first one again
        ("Topics", "PolicyDocument"),
        tagged=False,
    ),
}
