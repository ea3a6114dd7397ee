"""What CloudFormation calls for a resource with its caller's rights: the handlers that each type's schema in the registry lists.

handlers.json holds those lists, as cfn-lint ships the registry's schemas; a test compares them. A handler asks for some of its actions only
where the template sets a property: those stand here, judged by their names, since the schemas do not say so.
https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twin.aws import wire
from twin.aws.iam.actions import Access
from twin.aws.iam.policy import Context

HANDLERS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("handlers.json").read_text(encoding="utf-8"))
EKS = "Eks:AssociateAccessPolicy Eks:CreateAccessEntry Eks:DeleteAccessEntry Eks:DescribeAccessEntry Eks:DescribeCluster "
EKS += "Eks:ListAssociatedAccessPolicies"
ONLY_WITH: dict[str, dict[str, str]] = {
    "AWS::Batch::ComputeEnvironment": {
        "EksConfiguration": EKS,
        "ComputeResources.LaunchTemplate": "ec2:DescribeLaunchTemplateVersions",
        "ComputeResources.ManagedInstancesProvider": "Batch:SetCapacityTags",
    },
    "AWS::ECR::Repository": {
        "RepositoryPolicyText": "ecr:SetRepositoryPolicy ecr:DeleteRepositoryPolicy",
        "EncryptionConfiguration.KmsKey": "kms:CreateGrant kms:DescribeKey kms:RetireGrant",
    },
    "AWS::EC2::SecurityGroup": {
        "SecurityGroupIngress": "ec2:AuthorizeSecurityGroupIngress ec2:RevokeSecurityGroupIngress "
        "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
    },
    "AWS::IAM::OIDCProvider": {"ThumbprintList": "iam:UpdateOpenIDConnectProviderThumbprint"},
    "AWS::IAM::Role": {
        "ManagedPolicyArns": "iam:AttachRolePolicy iam:DetachRolePolicy",
        "PermissionsBoundary": "iam:PutRolePermissionsBoundary iam:DeleteRolePermissionsBoundary",
    },
    "AWS::Logs::LogGroup": {
        "BearerTokenAuthenticationEnabled": "logs:PutBearerTokenAuthentication",
        "DataProtectionPolicy": "logs:PutDataProtectionPolicy logs:DeleteDataProtectionPolicy logs:CreateLogDelivery "
        "firehose:TagDeliveryStream s3:REST.PUT.OBJECT",
        "DeletionProtectionEnabled": "logs:PutLogGroupDeletionProtection",
        "FieldIndexPolicies": "logs:PutIndexPolicy logs:DeleteIndexPolicy",
        "KmsKeyId": "logs:AssociateKmsKey logs:DisassociateKmsKey",
        "ResourcePolicyDocument": "logs:PutResourcePolicy logs:DeleteResourcePolicy",
    },
    "AWS::S3::Bucket": {
        "AbacStatus": "s3:PutBucketAbac",
        "AccelerateConfiguration": "s3:PutAccelerateConfiguration",
        "AccessControl": "s3:PutBucketAcl s3:PutObjectAcl s3:DeleteObject",
        "AnalyticsConfigurations": "s3:PutAnalyticsConfiguration s3:DeleteBucketAnalyticsConfiguration",
        "CorsConfiguration": "s3:PutBucketCORS s3:DeleteBucketCors",
        "IntelligentTieringConfigurations": "s3:PutIntelligentTieringConfiguration",
        "InventoryConfigurations": "s3:PutInventoryConfiguration",
        "LoggingConfiguration": "s3:PutBucketLogging",
        "MetadataConfiguration": "s3:UpdateBucketMetadataAnnotationTableConfiguration "
        "s3:UpdateBucketMetadataInventoryTableConfiguration s3:UpdateBucketMetadataJournalTableConfiguration s3tables:CreateNamespace "
        "s3tables:CreateTable s3tables:CreateTableBucket s3tables:GetTable s3tables:GetTableMetadataLocation s3tables:PutTableBucketPolicy "
        "s3tables:PutTableEncryption s3tables:PutTablePolicy s3tables:UpdateTableMetadataLocation",
        "MetadataTableConfiguration": "s3:CreateBucketMetadataTableConfiguration s3:DeleteBucketMetadataTableConfiguration",
        "MetricsConfigurations": "s3:PutMetricsConfiguration s3:DeleteBucketMetricsConfiguration",
        "NotificationConfiguration": "s3:PutBucketNotification",
        "ObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration s3:PutObjectLockConfiguration",
        "ReplicationConfiguration": "s3:PutReplicationConfiguration s3:PutBucketReplication s3:DeleteBucketReplication iam:PassRole",
        "WebsiteConfiguration": "s3:PutBucketWebsite s3:DeleteBucketWebsite",
    },
    "AWS::SNS::Subscription": {"SubscriptionRoleArn": "iam:GetRole iam:PassRole"},
    "AWS::SNS::Topic": {
        "DataProtectionPolicy": "sns:PutDataProtectionPolicy",
        "DeliveryStatusLogging": "iam:GetRole iam:PassRole",
        "Subscription": "sns:Subscribe sns:Unsubscribe",
    },
    "AWS::SecretsManager::Secret": {
        "GenerateSecretString": "secretsmanager:GetRandomPassword",
        "ReplicaRegions": "secretsmanager:ReplicateSecretToRegions secretsmanager:RemoveRegionsFromReplication",
    },
}
# IAM has no such action, though the schema names it: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucketEncryption.html says
# which permission the call takes, and so does the page of the other.
ACTUAL_ACTIONS = {"s3:DeleteBucketEncryption": "s3:PutEncryptionConfiguration", "s3:DeleteBucketLifecycle": "s3:PutLifecycleConfiguration"}
# Those that are about nothing in particular.
ANY_RESOURCE = ("s3:ListAllMyBuckets", "iam:ListRoles", "secretsmanager:ListSecrets", "ssm:DescribeParameters")
ANY_RESOURCE += ("logs:DescribeIndexPolicies", "logs:DescribeResourcePolicies")
ANY_RESOURCE += ("sns:ListTopics", "sns:ListSubscriptions", "sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes")
ANY_RESOURCE += ("sns:Unsubscribe",)
ANY_RESOURCE += (
    "Batch:DescribeComputeEnvironments",
    "Batch:DescribeJobQueues",
    "events:ListRules",
    "logs:PutResourcePolicy",
    "logs:DeleteResourcePolicy",
)
ASKED_BY_THE_CALL = ("iam:PassRole", "Iam:PassRole")  # asked for by the call itself, with the role that is passed

# https://docs.aws.amazon.com/batch/latest/userguide/using-service-linked-roles.html
LINKED: Context = {"iam:AWSServiceName": "batch.amazonaws.com"}


def required_access(type: str, handler: str, properties: dict, physical: str, region: str) -> Iterator[Access]:
    """All that one handler asks for, for a resource with these properties."""
    unset = {action for path, words in ONLY_WITH.get(type, {}).items() if not is_set(properties, path) for action in words.split()}
    for action in HANDLERS[type].get(handler, "").split():  # a type without a handler that reads is not read back
        if action not in unset and action not in ASKED_BY_THE_CALL:
            yield Access(
                ACTUAL_ACTIONS.get(action, action),
                resource_arn(type, action, properties, physical, region),
                {"aws:CalledVia": [wire.STACKS]} | (LINKED if action == "iam:CreateServiceLinkedRole" else {}),
            )


def is_set(properties: dict, path: str) -> bool:
    value: Any = properties
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value is not None


def resource_arn(type: str, action: str, properties: dict, physical: str, region: str) -> str:
    """The ARN of what an action is about."""
    if action in ANY_RESOURCE or action.startswith("ec2:Describe"):
        return "*"
    if action.startswith("billing:"):
        return f"arn:aws:billing::{wire.ACCOUNT}:billingview/primary"
    if action == "iam:CreateServiceLinkedRole":
        return f"arn:aws:iam::{wire.ACCOUNT}:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
    if type == "AWS::SNS::TopicPolicy":  # whose own id is nothing in SNS
        return properties["Topics"][0]
    service, kind, name, regional = ARNS[type]
    place = f"{region if regional else ''}:{'' if service == 's3' else wire.ACCOUNT}"
    return physical if physical.startswith("arn:") else f"arn:aws:{service}:{place}:{kind}{physical or name(properties)}"


# Of each type: the service, what stands before the name in its ARN, the name by its properties, and whether a region stands there, too.
ARNS: dict[str, tuple] = {
    "AWS::S3::Bucket": ("s3", "", lambda properties: properties.get("BucketName", "new"), False),
    "AWS::S3::BucketPolicy": ("s3", "", lambda properties: properties["Bucket"], False),
    "AWS::ECR::Repository": ("ecr", "repository/", lambda properties: properties.get("RepositoryName", "new"), True),
    "AWS::Logs::LogGroup": ("logs", "log-group:", lambda properties: properties.get("LogGroupName", "new"), True),
    "AWS::IAM::Role": ("iam", "role/", lambda properties: properties.get("RoleName", "new"), False),
    "AWS::IAM::InstanceProfile": ("iam", "instance-profile/", lambda properties: properties.get("InstanceProfileName", "new"), False),
    "AWS::IAM::OIDCProvider": ("iam", "oidc-provider/", lambda properties: urlsplit(properties["Url"]).netloc, False),
    "AWS::EC2::SecurityGroup": ("ec2", "security-group/", lambda properties: "new", True),
    "AWS::EC2::LaunchTemplate": ("ec2", "launch-template/", lambda properties: "new", True),
    "AWS::Logs::ResourcePolicy": ("logs", "log-group:", lambda properties: "*", True),
    "AWS::Batch::ComputeEnvironment": (
        "batch",
        "compute-environment/",
        lambda properties: properties.get("ComputeEnvironmentName", "new"),
        True,
    ),
    "AWS::Batch::JobQueue": ("batch", "job-queue/", lambda properties: properties.get("JobQueueName", "new"), True),
    "AWS::Events::Rule": ("events", "rule/", lambda properties: properties.get("Name", "new"), True),
    "AWS::SSM::Parameter": ("ssm", "parameter", lambda properties: properties.get("Name", "/new"), True),
    "AWS::SecretsManager::Secret": ("secretsmanager", "secret:", lambda properties: f"{properties.get('Name', 'new')}-xxxxxx", True),
    "AWS::SNS::Topic": ("sns", "", lambda properties: properties.get("TopicName", "new"), True),
    "AWS::SNS::Subscription": ("sns", "", lambda properties: properties["TopicArn"].rpartition(":")[2], True),
    "AWS::SNS::TopicPolicy": ("sns", "", lambda properties: properties["Topics"][0].rpartition(":")[2], True),
    "AWS::Budgets::Budget": ("budgets", "budget/", lambda properties: properties["Budget"].get("BudgetName", "new"), False),
}
