"""What `inv init` and `inv destroy` call besides where `notify.email` is set: SNS's topic.

Apart from the rest of it: IAM takes so many characters in one policy.
"""

from remote.account.setup_permissions import SCHEMAS, VIA_CLOUDFORMATION, ResourceType
from remote.account.statement import Account, Statement


def resource_types(account: Account) -> list[ResourceType]:
    topic = (account.topic,)
    return [
        ResourceType(
            "MakeTopic",
            "AWS::SNS::Topic",
            "sns",
            topic,
            "CreateTopic DeleteTopic",
            "GetTopicAttributes GetDataProtectionPolicy ListSubscriptionsByTopic ListTagsForResource TagResource UntagResource",
        ),
        ResourceType("MakeTopicPolicy", "AWS::SNS::TopicPolicy", "sns", topic, "SetTopicAttributes"),
        ResourceType("MakeSubscription", "AWS::SNS::Subscription", "sns", topic, "Subscribe"),
    ]


def notices(account: Account) -> list[Statement]:
    """What has no resource to name is about subscriptions, or lists them."""
    called = Statement("LeaveTopic", "CloudFormation ends a subscription", ("sns:Unsubscribe",), ("*",), VIA_CLOUDFORMATION)
    implied = ("ListTopics", "ListSubscriptions", "GetSubscriptionAttributes", "SetSubscriptionAttributes")
    looks = Statement(
        "Subscriptions", "CloudFormation's handlers look", tuple(f"sns:{name}" for name in implied), ("*",), VIA_CLOUDFORMATION, SCHEMAS
    )
    return [*(one for made in resource_types(account) for one in made.statements()), called, looks]
