"""What `inv init` and `inv destroy` call beyond what every day takes. Who only trains does not need it.

Nearly all of it is called by CloudFormation on the user's behalf, and is allowed through CloudFormation only: nobody makes a role or a
bucket with it in any other way. What CloudFormation calls for a resource is listed by AWS in the resource type's own schema.
"""

from dataclasses import dataclass

from remote.account.statement import Place, Statement

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-calledvia
THROUGH_STACK = {"ForAnyValue:StringEquals": {"aws:CalledVia": ["cloudformation.amazonaws.com"]}}
THROUGH_STACK_TOO = {
    "ForAnyValue:StringEquals": {"aws:CalledVia": "cloudformation.amazonaws.com"}
}  # likewise, and never put together with it
SCHEMAS = "https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html"
NAMES = ("ssm:DeleteParameter", "ssm:PutParameter")


@dataclass(frozen=True)
class Made:
    """What CloudFormation calls to make, change, read and remove the resources of one type."""

    sid: str
    type: str
    service: str
    resources: tuple[str, ...]
    called: str
    implied: str = ""  # as the type's schema has it, where no call of ours asks: tags that a stack hands on, reading back, other changes

    def statements(self) -> list[Statement]:
        why = f"CloudFormation makes, changes and removes {self.type}"
        found = [Statement(self.sid, why, self.actions(self.called), self.resources, THROUGH_STACK)] if self.called else []
        if self.implied:
            found.append(Statement(f"{self.sid}Too", why, self.actions(self.implied), self.resources, THROUGH_STACK, SCHEMAS))
        return found

    def actions(self, words: str) -> tuple[str, ...]:
        return tuple(f"{self.service}:{name}" for name in words.split())


def setup(at: Place) -> list[Statement]:
    """What the account's owner calls to make it ready, and to leave it."""
    return [*_stack(at), *_looking(at), *_leaving(at), *(one for made in _made(at) for one in made.statements()), *_listing(at)]


def _stack(at: Place) -> list[Statement]:
    changes = ("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DeleteChangeSet")
    stacks = ("DescribeStacks", "ListStackResources", "DescribeStackEvents", "DescribeEvents", "DeleteStack")
    actions = tuple(f"cloudformation:{name}" for name in (*changes, *stacks))
    return [
        Statement("Stack", "`init` and `destroy` go through one stack", actions, (at.arn("cloudformation", f"stack/{at.cloud.own}/*"),))
    ]


def _looking(at: Place) -> list[Statement]:
    """`init` looks at what is there already, and reads back what it has made."""
    return [
        Statement("LookForNetwork", "the default network", ("ec2:DescribeVpcs", "ec2:DescribeLaunchTemplates")),
        Statement("LookForSecret", "a secret of this name", ("secretsmanager:DescribeSecret",), (at.secret,)),
        Statement("LookForGithub", "a provider for workflows", ("iam:ListOpenIDConnectProviders",)),
        Statement("StoreToken", "the Hub token", ("secretsmanager:PutSecretValue",), (at.secret,)),
        Statement("ReadNames", "all names in Parameter Store", ("ssm:GetParametersByPath",), at.names),
        Statement("Names", "the stack makes them, and `init` takes away those that were put there by hand", NAMES, at.names),
    ]


def _leaving(at: Place) -> list[Statement]:
    """`destroy --data`."""
    bucket = ("s3:ListBucketVersions", "s3:GetBucketTagging", "s3:DeleteBucket")
    return [
        Statement("LeaveCopies", "`destroy --data` removes them", ("ec2:DeleteSnapshot",), (at.public("ec2", "snapshot/*"),), at.mine),
        Statement("LeaveBucket", "`destroy` lists versions, `--data` removes the bucket", bucket, (at.bucket,)),
        Statement("LeaveRuns", "`destroy --data` removes every version", ("s3:DeleteObjectVersion",), (f"{at.bucket}/*",)),
    ]


def _listing(at: Place) -> list[Statement]:
    """What CloudFormation's handlers ask for besides, about nothing that has a name of ours."""
    lists = ("s3:ListAllMyBuckets", "iam:ListRoles", "secretsmanager:ListSecrets", "ssm:DescribeParameters")
    views, profiles = (
        f"arn:{at.partition}:{rest}/*" for rest in (f"billing::{at.account}:billingview", f"iam::{at.account}:instance-profile")
    )

    def implied(sid: str, actions: tuple[str, ...], resources: tuple[str, ...] = ("*",)) -> Statement:
        return Statement(sid, "CloudFormation's handlers look", actions, resources, THROUGH_STACK_TOO, SCHEMAS)

    return [
        implied("Lists", (*lists, "logs:DescribeIndexPolicies", "logs:DescribeResourcePolicies")),
        implied("ListProfiles", ("iam:ListInstanceProfiles",), (profiles,)),
        implied("BillingView", ("billing:GetBillingViewData",), (views,)),
    ]


def _made(at: Place) -> list[Made]:
    roles = tuple(at.role(name) for name in (at.cloud.box_role, at.cloud.scheduler_role, f"{at.cloud.own}-github"))
    group, templates = (at.arn("ec2", f"{kind}/*") for kind in ("security-group", "launch-template"))
    budgets = (f"arn:{at.partition}:budgets::{at.account}:budget/{at.cloud.own}*",)  # the name ends with who hears of it
    logs = tuple(at.arn("logs", f"log-group:{at.cloud.log_group}{end}") for end in ("", ":*"))  # AWS wants either, by action
    return [
        Made(
            "MakeBucket",
            "AWS::S3::Bucket",
            "s3",
            (at.bucket,),
            "CreateBucket PutEncryptionConfiguration PutBucketVersioning PutBucketOwnershipControls PutBucketPublicAccessBlock "
            "PutLifecycleConfiguration PutBucketTagging",
            # To read it back it reads all that a bucket may have.
            "GetBucket* GetA*Configuration GetEncryptionConfiguration GetI*Configuration GetLifecycleConfiguration GetMetricsConfiguration "
            "GetReplicationConfiguration "
            "ListTagsForResource TagResource UntagResource",
        ),
        Made("MakeBucketPolicy", "AWS::S3::BucketPolicy", "s3", (at.bucket,), "PutBucketPolicy", "GetBucketPolicy DeleteBucketPolicy"),
        Made(
            "MakeRepository",
            "AWS::ECR::Repository",
            "ecr",
            (at.images,),
            "CreateRepository PutLifecyclePolicy PutImageScanningConfiguration PutImageTagMutability DeleteRepository",
            "TagResource UntagResource GetLifecyclePolicy DeleteLifecyclePolicy GetRepositoryPolicy ListTagsForResource",
        ),
        Made(
            "MakeLogGroup",
            "AWS::Logs::LogGroup",
            "logs",
            logs,
            "CreateLogGroup PutRetentionPolicy DeleteLogGroup",
            "TagResource UntagResource ListTagsForResource DeleteRetentionPolicy GetDataProtectionPolicy",
        ),
        Made(
            "MakeRoles",
            "AWS::IAM::Role",
            "iam",
            roles,
            "CreateRole UpdateAssumeRolePolicy PutRolePolicy DeleteRolePolicy DeleteRole ListRolePolicies ListAttachedRolePolicies",
            "GetRole GetRolePolicy TagRole UntagRole UpdateRole UpdateRoleDescription",
        ),
        Made(
            "MakeProfile",
            "AWS::IAM::InstanceProfile",
            "iam",
            (at.profile,),
            "CreateInstanceProfile AddRoleToInstanceProfile RemoveRoleFromInstanceProfile DeleteInstanceProfile",
        ),
        Made(
            "MakeGithub",
            "AWS::IAM::OIDCProvider",
            "iam",
            (f"arn:{at.partition}:iam::{at.account}:oidc-provider/token.actions.githubusercontent.com",),
            "CreateOpenIDConnectProvider DeleteOpenIDConnectProvider",
            "GetOpenIDConnectProvider TagOpenIDConnectProvider UntagOpenIDConnectProvider ListOpenIDConnectProviderTags "
            "AddClientIDToOpenIDConnectProvider RemoveClientIDFromOpenIDConnectProvider",
        ),
        Made(
            "MakeNetwork",
            "AWS::EC2::SecurityGroup",
            "ec2",
            (group, at.arn("ec2", "vpc/*")),
            "CreateSecurityGroup CreateTags AuthorizeSecurityGroupEgress RevokeSecurityGroupEgress DeleteSecurityGroup",
            "DeleteTags UpdateSecurityGroupRuleDescriptionsEgress",
        ),
        # DescribeSecurityGroups every day takes, too.
        Made(
            "MakeLaunchTemplate",
            "AWS::EC2::LaunchTemplate",
            "ec2",
            (templates,),
            "CreateLaunchTemplate DeleteLaunchTemplate",
            "CreateLaunchTemplateVersion CreateTags DeleteTags",
        ),
        Made(
            "MakeNames",
            "AWS::SSM::Parameter",
            "ssm",
            at.names,
            "",
            "AddTagsToResource RemoveTagsFromResource ListTagsForResource",
        ),
        Made(
            "MakeSecret",
            "AWS::SecretsManager::Secret",
            "secretsmanager",
            (at.secret,),
            "CreateSecret DeleteSecret",
            "UpdateSecret TagResource UntagResource",
        ),
        Made(
            "MakeBudget",
            "AWS::Budgets::Budget",
            "budgets",
            budgets,
            "ModifyBudget",
            "ViewBudget TagResource UntagResource ListTagsForResource",
        ),
    ]
