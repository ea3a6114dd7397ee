"""What `inv init` and `inv destroy` call beyond what every day takes. Who only trains does not need it.

Nearly all of it is called by CloudFormation on the user's behalf, and is allowed through CloudFormation only: nobody makes a role or a
bucket with it in any other way. What CloudFormation calls for a resource is listed by AWS in the resource type's own schema.
"""

from dataclasses import dataclass

from remote.account.statement import Account, Statement

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-calledvia
VIA_CLOUDFORMATION = {"ForAnyValue:StringEquals": {"aws:CalledVia": ["cloudformation.amazonaws.com"]}}
VIA_CLOUDFORMATION_APART = {
    "ForAnyValue:StringEquals": {"aws:CalledVia": "cloudformation.amazonaws.com"}
}  # likewise, and never put together with it
SCHEMAS = "https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html"
NAMES = ("ssm:DeleteParameter", "ssm:PutParameter")


@dataclass(frozen=True)
class ResourceType:
    """What CloudFormation calls to make, change, read and remove the resources of one type."""

    sid: str
    type: str
    service: str
    resources: tuple[str, ...]
    called: str
    implied: str = ""  # as the type's schema has it, where no call of ours asks: tags that a stack hands on, reading back, other changes

    def statements(self) -> list[Statement]:
        why = f"CloudFormation makes, changes and removes {self.type}"
        statements = [Statement(self.sid, why, self.actions(self.called), self.resources, VIA_CLOUDFORMATION)] if self.called else []
        if self.implied:
            statements.append(Statement(f"{self.sid}Too", why, self.actions(self.implied), self.resources, VIA_CLOUDFORMATION, SCHEMAS))
        return statements

    def actions(self, words: str) -> tuple[str, ...]:
        return tuple(f"{self.service}:{name}" for name in words.split())


def setup(account: Account) -> list[Statement]:
    """What the account's owner calls to make it ready, and to leave it."""
    return [
        *_stack(account),
        *_lookups(account),
        *_removal(account),
        *(one for made in _resource_types(account) for one in made.statements()),
        *_listing(account),
    ]


def _stack(account: Account) -> list[Statement]:
    changes = ("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DeleteChangeSet")
    stacks = ("DescribeStacks", "ListStackResources", "DescribeStackEvents", "DescribeEvents", "DeleteStack")
    actions = tuple(f"cloudformation:{name}" for name in (*changes, *stacks))
    return [
        Statement(
            "Stack", "`init` and `destroy` go through one stack", actions, (account.arn("cloudformation", f"stack/{account.cloud.own}/*"),)
        )
    ]


def _lookups(account: Account) -> list[Statement]:
    """`init` looks at what is there already, and reads back what it has made."""
    return [
        Statement("LookForNetwork", "the default network", ("ec2:DescribeVpcs", "ec2:DescribeLaunchTemplates")),
        Statement("LookForSecret", "a secret of this name", ("secretsmanager:DescribeSecret",), (account.secret,)),
        Statement("LookForGithub", "a provider for workflows", ("iam:ListOpenIDConnectProviders",)),
        Statement("StoreToken", "the Hub token", ("secretsmanager:PutSecretValue",), (account.secret,)),
        Statement("ReadNames", "all names in Parameter Store", ("ssm:GetParametersByPath",), account.names),
        Statement("Names", "the stack makes them, and `init` takes away those that were put there by hand", NAMES, account.names),
    ]


def _removal(account: Account) -> list[Statement]:
    """`destroy --data`."""
    bucket = ("s3:ListBucketVersions", "s3:GetBucketTagging", "s3:DeleteBucket")
    return [
        Statement(
            "LeaveCopies",
            "`destroy --data` removes them",
            ("ec2:DeleteSnapshot",),
            (account.public("ec2", "snapshot/*"),),
            account.ours_by_tag,
        ),
        Statement("LeaveBucket", "`destroy` lists versions, `--data` removes the bucket", bucket, (account.bucket,)),
        Statement("LeaveRuns", "`destroy --data` removes every version", ("s3:DeleteObjectVersion",), (f"{account.bucket}/*",)),
    ]


def _listing(account: Account) -> list[Statement]:
    """What CloudFormation's handlers ask for besides, about nothing that has a name of ours."""
    lists = ("s3:ListAllMyBuckets", "iam:ListRoles", "secretsmanager:ListSecrets", "ssm:DescribeParameters")
    views, profiles = (
        f"arn:{account.partition}:{rest}/*"
        for rest in (f"billing::{account.account_id}:billingview", f"iam::{account.account_id}:instance-profile")
    )

    def implied(sid: str, actions: tuple[str, ...], resources: tuple[str, ...] = ("*",)) -> Statement:
        return Statement(sid, "CloudFormation's handlers look", actions, resources, VIA_CLOUDFORMATION_APART, SCHEMAS)

    return [
        implied("Lists", (*lists, "logs:DescribeIndexPolicies", "logs:DescribeResourcePolicies")),
        implied("ListProfiles", ("iam:ListInstanceProfiles",), (profiles,)),
        implied("BillingView", ("billing:GetBillingViewData",), (views,)),
    ]


def _resource_types(account: Account) -> list[ResourceType]:
    roles = tuple(account.role(name) for name in (account.cloud.box_role, account.cloud.scheduler_role, f"{account.cloud.own}-github"))
    group, templates = (account.arn("ec2", f"{kind}/*") for kind in ("security-group", "launch-template"))
    budgets = (f"arn:{account.partition}:budgets::{account.account_id}:budget/{account.cloud.own}*",)  # the name ends with who hears of it
    logs = tuple(account.arn("logs", f"log-group:{account.cloud.log_group}{end}") for end in ("", ":*"))  # AWS wants either, by action
    return [
        ResourceType(
            "MakeBucket",
            "AWS::S3::Bucket",
            "s3",
            (account.bucket,),
            "CreateBucket PutEncryptionConfiguration PutBucketVersioning PutBucketOwnershipControls PutBucketPublicAccessBlock "
            "PutLifecycleConfiguration PutBucketTagging",
            # To read it back it reads all that a bucket may have.
            "GetBucket* GetA*Configuration GetEncryptionConfiguration GetI*Configuration GetLifecycleConfiguration GetMetricsConfiguration "
            "GetReplicationConfiguration "
            "ListTagsForResource TagResource UntagResource",
        ),
        ResourceType(
            "MakeBucketPolicy", "AWS::S3::BucketPolicy", "s3", (account.bucket,), "PutBucketPolicy", "GetBucketPolicy DeleteBucketPolicy"
        ),
        ResourceType(
            "MakeRepository",
            "AWS::ECR::Repository",
            "ecr",
            (account.images,),
            "CreateRepository PutLifecyclePolicy PutImageScanningConfiguration PutImageTagMutability DeleteRepository",
            "TagResource UntagResource GetLifecyclePolicy DeleteLifecyclePolicy GetRepositoryPolicy ListTagsForResource",
        ),
        ResourceType(
            "MakeLogGroup",
            "AWS::Logs::LogGroup",
            "logs",
            logs,
            "CreateLogGroup PutRetentionPolicy DeleteLogGroup",
            "TagResource UntagResource ListTagsForResource DeleteRetentionPolicy GetDataProtectionPolicy",
        ),
        ResourceType(
            "MakeRoles",
            "AWS::IAM::Role",
            "iam",
            roles,
            "CreateRole UpdateAssumeRolePolicy PutRolePolicy DeleteRolePolicy DeleteRole ListRolePolicies ListAttachedRolePolicies",
            "GetRole GetRolePolicy TagRole UntagRole UpdateRole UpdateRoleDescription",
        ),
        ResourceType(
            "MakeProfile",
            "AWS::IAM::InstanceProfile",
            "iam",
            (account.profile,),
            "CreateInstanceProfile AddRoleToInstanceProfile RemoveRoleFromInstanceProfile DeleteInstanceProfile",
        ),
        ResourceType(
            "MakeGithub",
            "AWS::IAM::OIDCProvider",
            "iam",
            (f"arn:{account.partition}:iam::{account.account_id}:oidc-provider/token.actions.githubusercontent.com",),
            "CreateOpenIDConnectProvider DeleteOpenIDConnectProvider",
            "GetOpenIDConnectProvider TagOpenIDConnectProvider UntagOpenIDConnectProvider ListOpenIDConnectProviderTags "
            "AddClientIDToOpenIDConnectProvider RemoveClientIDFromOpenIDConnectProvider",
        ),
        ResourceType(
            "MakeNetwork",
            "AWS::EC2::SecurityGroup",
            "ec2",
            (group, account.arn("ec2", "vpc/*")),
            "CreateSecurityGroup CreateTags AuthorizeSecurityGroupEgress RevokeSecurityGroupEgress DeleteSecurityGroup",
            "DeleteTags UpdateSecurityGroupRuleDescriptionsEgress",
        ),
        # DescribeSecurityGroups every day takes, too.
        ResourceType(
            "MakeLaunchTemplate",
            "AWS::EC2::LaunchTemplate",
            "ec2",
            (templates,),
            "CreateLaunchTemplate DeleteLaunchTemplate",
            "CreateLaunchTemplateVersion CreateTags DeleteTags",
        ),
        ResourceType(
            "MakeNames",
            "AWS::SSM::Parameter",
            "ssm",
            account.names,
            "",
            "AddTagsToResource RemoveTagsFromResource ListTagsForResource",
        ),
        ResourceType(
            "MakeSecret",
            "AWS::SecretsManager::Secret",
            "secretsmanager",
            (account.secret,),
            "CreateSecret DeleteSecret",
            "UpdateSecret TagResource UntagResource",
        ),
        ResourceType(
            "MakeBudget",
            "AWS::Budgets::Budget",
            "budgets",
            budgets,
            "ModifyBudget",
            "ViewBudget TagResource UntagResource ListTagsForResource",
        ),
    ]
