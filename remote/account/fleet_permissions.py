"""What a fleet takes besides: of who trains, of its instances, and of `inv init`. Without `fleet=batch` nobody needs any of it.

Names of AWS Batch's actions, resources and condition keys: https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsbatch.html
"""

from remote.account.setup_permissions import SCHEMAS, VIA_CLOUDFORMATION_APART, ResourceType
from remote.account.statement import Account, Statement

MARKETS = ("spot", "on-demand")  # the compute environments: STACK-spot and STACK-on-demand
QUEUES = (*MARKETS, "spot-first")
TAG = "fine-tune-slm:fleet"
LINKED = ("AWSServiceRoleForBatch", "AWSServiceRoleForEC2Spot")
DIGITS = "?" * 16  # of an image's tag, which ends the name of its job definition: another stack's has more between
ROLES_PAGE = "https://docs.aws.amazon.com/batch/latest/userguide/using-service-linked-roles.html"
AGENT_PAGE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/instance_IAM_role.html"
TAGS_PAGE = "https://docs.aws.amazon.com/batch/latest/userguide/using-tags.html"
PULL_PAGE = "https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-pull-iam.html"
PASS_PAGE = "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"
IAM_ROLE = (
    "CreateRole UpdateAssumeRolePolicy PutRolePolicy DeleteRolePolicy DeleteRole ListRolePolicies ListAttachedRolePolicies",
    "GetRole GetRolePolicy TagRole UntagRole UpdateRole UpdateRoleDescription",
)


def ends_log(account: Account) -> str:
    return account.arn("logs", f"log-group:/aws/events/{account.cloud.own}/fleet-ends")


def fleet(account: Account) -> list[Statement]:
    """What the verbs call with the user's own credentials for runs on a fleet, besides `laptop` and `files`."""
    own = account.cloud.own
    definitions = account.arn("batch", f"job-definition/{own}-{DIGITS}")
    queues = tuple(account.arn("batch", f"job-queue/{own}-{queue}") for queue in QUEUES)
    jobs = account.arn("batch", "job/*")
    tagged_so, with_tag = {"StringEquals": {f"aws:RequestTag/{TAG}": own}}, {"StringEquals": {f"aws:ResourceTag/{TAG}": own}}
    # These keys are those of `containerProperties`: https://docs.aws.amazon.com/batch/latest/userguide/iam-example-job-def.html
    # A definition that says nothing of `privileged` is none that is.
    ours_alone = {
        "StringLike": {"batch:Image": f"{account.registry}/{account.cloud.repository}@sha256:*"},
        "BoolIfExists": {"batch:Privileged": "false"},
        "StringEquals": tagged_so["StringEquals"] | {"batch:AWSLogsGroup": account.cloud.log_group},
    }
    linked = tuple(account.role(f"aws-service-role/{path}") for path in ("batch.amazonaws.com/*", "spot.amazonaws.com/*"))
    linked += tuple(account.role(name) for name in LINKED)  # of one that is not there nobody knows the path
    described = ("Jobs", "JobQueues", "JobDefinitions", "ComputeEnvironments")
    return [
        Statement(
            "SubmitRuns",
            "`train` and `sweep` hand runs over, to this stack's queues with this stack's definitions",
            ("batch:SubmitJob",),
            (definitions, f"{definitions}:*", *queues, jobs),
            tagged_so,
        ),
        Statement(
            "TagRuns",
            "and say whose they are",
            ("batch:TagResource",),
            (jobs, definitions, f"{definitions}:*"),
            tagged_so,
            TAGS_PAGE,
        ),
        Statement("EndRuns", "`stop-run` and `down --fleet`", ("batch:CancelJob", "batch:TerminateJob"), (jobs,), with_tag),
        Statement(
            "DefineRuns",
            "with an image of ours, with no rights over its host",
            ("batch:RegisterJobDefinition",),
            (definitions,),
            ours_alone,
        ),
        Statement("ForgetDefinitions", "`destroy`", ("batch:DeregisterJobDefinition",), (f"{definitions}:*",)),
        Statement("GiveRunsTheirRole", "a run acts by its role", ("iam:PassRole",), (account.role(f"{own}-job"),), implied=PASS_PAGE),
        Statement("LookAtRuns", "what waits, runs and has ended", ("batch:ListJobs", *(f"batch:Describe{name}" for name in described))),
        Statement("Ends", "`costs`: when each instance ended", ("logs:FilterLogEvents",), (f"{ends_log(account)}:*",)),
        Statement(
            "LookAtRuleOfEnds",
            "`doctor`: whether they are written down",
            ("events:DescribeRule", "events:ListTargetsByRule"),
            (account.arn("events", f"rule/{own}-fleet-ends"),),
        ),
        Statement("LookAtLinkedRoles", "`doctor`: the roles that AWS itself makes", ("iam:GetRole",), linked),
    ]


def instance(account: Account) -> list[Statement]:
    """What ECS's agent and docker on an instance call: less than AWS's own AmazonEC2ContainerServiceforEC2Role allows."""
    clusters = tuple(f"AWSBatch-{account.cloud.own}-{market}-*" for market in MARKETS)  # as Batch calls them
    joined = tuple(account.arn("ecs", f"cluster/{cluster}") for cluster in clusters)
    members = tuple(account.arn("ecs", f"container-instance/{cluster}/*") for cluster in clusters)
    submitted = ("AttachmentStateChanges", "ContainerStateChange", "TaskStateChange")
    on_cluster = ("RegisterContainerInstance", "DeregisterContainerInstance", *(f"Submit{name}" for name in submitted))
    on_member = ("Poll", "StartTelemetrySession", "UpdateContainerInstancesState", "TagResource")
    log = account.arn("logs", f"log-group:{account.cloud.log_group}:*")
    layers = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
    return [
        Statement(
            "Join", "its agent joins Batch's cluster and reports", tuple(f"ecs:{name}" for name in on_cluster), joined, implied=AGENT_PAGE
        ),
        Statement("TakeTasks", "and takes tasks", tuple(f"ecs:{name}" for name in on_member), members, implied=AGENT_PAGE),
        Statement("FindAgentService", "has no resource to name", ("ecs:DiscoverPollEndpoint",), implied=AGENT_PAGE),
        Statement("RegistryLogin", "has no resource to name", ("ecr:GetAuthorizationToken",), implied=PULL_PAGE),
        Statement("Pull", "the image", tuple(f"ecr:{name}" for name in layers), (account.images,), implied=PULL_PAGE),
        Statement("RunsLog", "docker's copy of a run's log", ("logs:CreateLogStream", "logs:PutLogEvents"), (log,), implied=AGENT_PAGE),
    ]


def setup(account: Account) -> list[Statement]:
    """What `inv init -- fleet=batch` and `inv destroy` call besides `setup`: CloudFormation on the user's behalf."""
    own, linked = account.cloud.own, account.role("aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch")
    policies = ("logs:PutResourcePolicy", "logs:DeleteResourcePolicy", "logs:DescribeResourcePolicies")
    return [
        *(one for made in resource_types(account) for one in made.statements()),
        Statement(
            "PassInstanceRole", "instances of the fleet act by it", ("iam:PassRole",), (account.role(f"{own}-fleet"),), implied=PASS_PAGE
        ),
        Statement(
            "FirstBatch",
            "the first use of Batch makes AWS's own role for it",
            ("iam:CreateServiceLinkedRole",),
            (linked,),
            implied=ROLES_PAGE,
        ),
        Statement(
            "LetEventsWrite", "EventBridge may write into the log of ends", policies, condition=VIA_CLOUDFORMATION_APART, implied=SCHEMAS
        ),
        Statement(
            "LookAtRules", "CloudFormation's handlers look", ("events:ListRules",), condition=VIA_CLOUDFORMATION_APART, implied=SCHEMAS
        ),
    ]


def resource_types(account: Account) -> list[ResourceType]:
    own = account.cloud.own
    environments = tuple(account.arn("batch", f"compute-environment/{own}-{market}") for market in MARKETS)
    queues = tuple(account.arn("batch", f"job-queue/{own}-{queue}") for queue in QUEUES)
    log = ends_log(account)
    return [
        ResourceType(
            "MakeEnvironments",
            "AWS::Batch::ComputeEnvironment",
            "batch",
            environments,
            "CreateComputeEnvironment UpdateComputeEnvironment DeleteComputeEnvironment",
            "TagResource UntagResource",
        ),
        ResourceType(
            "MakeQueues",
            "AWS::Batch::JobQueue",
            "batch",
            (*queues, *environments),
            "CreateJobQueue UpdateJobQueue DeleteJobQueue",
            "TagResource UntagResource",
        ),
        ResourceType(
            "MakeFleetRoles", "AWS::IAM::Role", "iam", tuple(account.role(f"{own}-{name}") for name in ("fleet", "job")), *IAM_ROLE
        ),
        ResourceType(
            "MakeFleetProfile",
            "AWS::IAM::InstanceProfile",
            "iam",
            (f"arn:{account.partition}:iam::{account.account_id}:instance-profile/{own}-fleet",),
            "CreateInstanceProfile AddRoleToInstanceProfile RemoveRoleFromInstanceProfile DeleteInstanceProfile",
            "GetInstanceProfile",
        ),
        ResourceType(
            "MakeLogOfEnds",
            "AWS::Logs::LogGroup",
            "logs",
            (log, f"{log}:*"),
            "CreateLogGroup PutRetentionPolicy DeleteLogGroup",
            "TagResource UntagResource ListTagsForResource DeleteRetentionPolicy GetDataProtectionPolicy",
        ),
        ResourceType(
            "MakeRule",
            "AWS::Events::Rule",
            "events",
            (account.arn("events", f"rule/{own}-fleet-ends"),),
            "PutRule PutTargets RemoveTargets DeleteRule",
            "DescribeRule ListTargetsByRule TagResource UntagResource ListTagsForResource",
        ),
    ]
