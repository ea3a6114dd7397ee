"""Who may do what: one list for the laptop, the box and the image workflow, as data. Policies are made from it and from nothing else.

A test takes all that every verb asks for and compares: what is asked for is allowed, and what is allowed is asked for. Actions that no
request names are marked `implied`, with the page that says so. Keys of KMS are not in it: disks, secrets and bucket use keys that AWS
manages, whose own policies let the account's services use them.
"""

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.account import fleet_permissions, notice_permissions, session_permissions, setup_permissions
from remote.account.statement import INLINE, MANAGED, Account, Statement, combine_conditions, document, merge_statements, size
from remote.aws.session import Aws, is_access_denied

LAUNCHED_WITH = ("volume", "network-interface", "subnet", "launch-template", "capacity-reservation")
GPUS = ["g*", "p*"]  # instance types; for others, let the policy name them
SSH_LOGIN = ("ec2:GetConsoleOutput", "ec2-instance-connect:SendSSHPublicKey")
SSH_INGRESS = ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress")
AGENT_MESSAGES = ("AcknowledgeMessage", "DeleteMessage", "FailMessage", "GetEndpoint", "GetMessages", "SendReply")
PUSH_PAGE = "https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html"
LAYERS_READ = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
LAYERS_WRITTEN = ("CompleteLayerUpload", "InitiateLayerUpload", "PutImage", "UploadLayerPart")
AGENT_CHANNELS = ("CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel")


def account(aws: Aws) -> Account:
    return Account(aws.caller.split(":")[1], aws.caller.split(":")[4], aws.cloud, principal(aws))


def principal(aws: Aws) -> str:
    """The user or role whose policies decide; a session's ARN names the role without its path."""
    if ":assumed-role/" not in aws.caller:
        return aws.caller
    return aws.client("iam").get_role(RoleName=aws.caller.rsplit("/", 1)[1])["Role"]["Arn"]


def _account_by_caller(aws: Aws) -> Account:
    """The same for a caller who may not read his own role, since he needs to see the policy."""
    from botocore.exceptions import ClientError

    try:
        return account(aws)
    except ClientError as error:
        if not is_access_denied(error):
            raise
    _, partition, _, _, account_id, who = aws.caller.split(":", 5)
    itself = f"arn:{partition}:iam::{account_id}:role/*{who.rsplit('/', 1)[1]}"
    screen.note(f"your login may not look up its own role (iam:GetRole): `{itself}` stands for it, whatever its path")
    return Account(partition, account_id, aws.cloud, itself)


def roles(cloud: schema.Cloud, account_id: str, principal: str, partition: str = "aws") -> dict[str, dict]:
    """The policies of all who act for us."""
    return _documents(Account(partition, account_id, cloud, principal))


def policy(aws: Aws, who: str) -> dict:
    """The policy of one of them, in the account that is asked."""
    policies = _documents(_account_by_caller(aws))
    if who not in policies:
        raise Problem(f"nobody is called `{who}`", f"say one of {', '.join(policies)}: `inv policy --who laptop`")
    return policies[who]


def how_to_attach(who: str, policy: dict, own: str = schema.TOOL) -> str:
    """The kind of policy that IAM accepts it in, and the command that creates one."""
    length = size(policy)
    if length > MANAGED:
        what = f"this policy has {length:,} characters, and IAM takes {MANAGED:,} in one"
        raise Problem(what, "shorter names of bucket, prefix, roles, repository or secret; or divide its statements among two", "refused")
    small = [f"a {kind} ({most:,})" for kind, most in INLINE.items() if length > most]
    not_inline = f"; it is too long for an inline policy of {' or '.join(small)}" if small else ""
    command = f"`aws iam create-policy --policy-name {own}-{who} --policy-document file://{who}.json`"
    return f"{length:,} of the {MANAGED:,} characters that a managed policy may have{not_inline}: {command}, then attach it"


def _documents(account: Account) -> dict[str, dict]:
    mine, setup, notices = (
        merge_statements(laptop(account), account.ours_by_tag),
        merge_statements(setup_permissions.setup(account), setup_permissions.VIA_CLOUDFORMATION),
        merge_statements(notice_permissions.notices(account), setup_permissions.VIA_CLOUDFORMATION),
    )
    lists = {
        "laptop": mine,
        "files": merge_statements([*files(account), *session_permissions.sessions(account)]),
        "setup": setup,
        "notices": notices,
        "box": box(account),
        "scheduler": scheduler(account),
        "workflow": workflow(account),
        "fleet": merge_statements(fleet_permissions.fleet(account)),
        "fleet-setup": merge_statements(fleet_permissions.setup(account), setup_permissions.VIA_CLOUDFORMATION),
        "fleet-instance": fleet_permissions.instance(account),
        "job": job(account),
    }
    return {who: document(statements) for who, statements in lists.items()}


def laptop(account: Account) -> list[Statement]:
    """What the verbs call with the user's own credentials for boxes and their disks; `files` is what they call besides.

    Two policies, because IAM takes so many characters in one.
    """
    return [*_boxes(account), *_disks(account), *_commands(account)]


def files(account: Account) -> list[Statement]:
    """What the verbs call with the user's own credentials for runs, images, tokens and roles, and to look around."""
    return [*_files(account), *_roles(account), *_reading(account)]


def _boxes(account: Account) -> list[Statement]:
    launch_resources = tuple(account.arn("ec2", f"{kind}/*") for kind in LAUNCHED_WITH)
    ours = {"StringEquals": {"aws:ResourceTag/Name": account.cloud.own}}  # the security group of stack.yaml
    instances, groups = account.arn("ec2", "instance/*"), account.arn("ec2", "security-group/*")
    tagging = (instances, account.arn("ec2", "volume/*"), account.public("ec2", "snapshot/*"))
    at_birth = combine_conditions(
        {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateVolume", "CreateSnapshot"]}}, account.created_with_our_tag
    )
    used = ("ec2:StartInstances", "ec2:StopInstances", "ec2:RebootInstances", "ec2:TerminateInstances")
    noted = ("ec2:ModifyInstanceMetadataOptions", "ec2:AttachVolume", "ec2:CreateTags", "ec2:DeleteTags")
    return [
        Statement(
            "LaunchBox",
            "`up` launches a box, which carries our tag, has a GPU and a metadata service that wants a token",
            ("ec2:RunInstances",),
            (instances,),
            combine_conditions(
                {"StringEquals": {"ec2:MetadataHttpTokens": "required"}, "StringLike": {"ec2:InstanceType": GPUS}},
                account.created_with_our_tag,
            ),
        ),
        Statement("LaunchWith", "and with it disk and network", ("ec2:RunInstances",), launch_resources),
        Statement("LaunchIn", "in our security group alone, which is in one network", ("ec2:RunInstances",), (groups,), ours),
        Statement(
            "LaunchFrom",
            "from an image of AWS's own",
            ("ec2:RunInstances",),
            (account.public("ec2", "image/*"),),
            {"StringEquals": {"ec2:Owner": "amazon"}},
        ),
        Statement(
            "TagAtBirth",
            "tags that are given with the launch",
            ("ec2:CreateTags",),
            tagging,
            at_birth,
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html",
        ),
        # In one statement, for IAM's limit: attach its volume, note its host key (its console shows it) and why it stopped, send it a key.
        Statement(
            "UseBox",
            "`up` starts, closes to containers, reboots one whose agent is silent, `down` stops, `down --purge` ends our boxes",
            (*used, *SSH_LOGIN),
            (instances,),
            account.ours_by_tag,
        ),
        # Else a box of ours could be made to look like another stack's, which its laptops would take for theirs.
        Statement(
            "NoteBox",
            "and nobody's box becomes another's",
            noted,
            (instances,),
            combine_conditions(account.ours_by_tag, account.not_retagged),
        ),
        Statement(
            "GiveUpSpot",
            "`down --purge` gives up the spot request",
            ("ec2:CancelSpotInstanceRequests",),
            (account.arn("ec2", "spot-instances-request/*"),),
        ),
        Statement(
            "FirstSpot",
            "the first spot box of an account makes AWS's own role for spot",
            ("iam:CreateServiceLinkedRole",),
            (account.role("aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"),),
            implied="https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html",
        ),
        Statement(
            "OpenPort",
            "`shell`, `forward` and `box.ssh=true`: port 22 is opened to the caller, and closed again",
            SSH_INGRESS,
            (groups,),
            ours,
        ),
    ]


def _disks(account: Account) -> list[Statement]:
    volumes, snapshots = account.arn("ec2", "volume/*"), account.public("ec2", "snapshot/*")
    changed = ("ec2:AttachVolume", "ec2:ModifyVolume", "ec2:DeleteVolume", "ec2:CreateSnapshot", "ec2:CreateTags")
    return [
        Statement("MakeVolume", "`up` makes the volume that keeps runs", ("ec2:CreateVolume",), (volumes,), account.created_with_our_tag),
        Statement(
            "UseVolume",
            "attach, grow, copy, note, delete",
            changed,
            (volumes,),
            combine_conditions(account.ours_by_tag, account.not_retagged),
        ),
        # Its root disk is nobody's box by the tag that we look for: of disks without it those may get these tags that no other stack has.
        Statement(
            "TagRoot",
            "AWS's bill says whose a root disk is",
            ("ec2:CreateTags",),
            (volumes,),
            {
                "StringEquals": {"aws:RequestTag/fine-tune-slm:stack": account.cloud.own},
                "StringEqualsIfExists": {"aws:ResourceTag/fine-tune-slm:stack": account.cloud.own},
                "StringNotLike": {"aws:ResourceTag/fine-tune-slm:box": "*"},
                "ForAllValues:StringEquals": {"aws:TagKeys": ["Name", "fine-tune-slm:owner", "fine-tune-slm:stack"]},
            },
        ),
        Statement("KeepCopy", "`down --snapshot`", ("ec2:CreateSnapshot",), (snapshots,), account.created_with_our_tag),
        Statement(
            "UseCopy",
            "the way out of a zone: a volume of that copy in another",
            ("ec2:CreateVolume",),
            (snapshots,),
            account.box_tag_condition("ec2:ResourceTag"),
        ),
    ]


def _commands(account: Account) -> list[Statement]:
    ours, theirs = account.arn("ssm", f"parameter/{account.cloud.own}/*"), account.public("ssm", "parameter/aws/service/*")
    # In fewer words, for IAM's limit: only ec2/instance-id and ebs/volume-id end so.
    records = tuple(account.arn("ssm", f"parameter/{account.cloud.own}/{name}") for name in ("*-id", "ecr/image-digest"))
    own = account.box_tag_condition("ssm:resourceTag")
    answers = ("ssm:GetCommandInvocation", "ssm:ListCommands", "ssm:CancelCommand", "ssm:DescribeInstanceInformation")
    schedules = ("scheduler:CreateSchedule", "scheduler:GetSchedule", "scheduler:DeleteSchedule")
    return [
        Statement("RunScripts", "scripts run on our boxes", ("ssm:SendCommand",), (account.arn("ec2", "instance/*"),), own),
        Statement("RunAsShell", "by AWS's own document", ("ssm:SendCommand",), (account.public("ssm", "document/AWS-RunShellScript"),)),
        Statement("Answers", "what the scripts answered, that one is not to begin any more, and whether the agent lives", answers),
        Statement("Settings", "settings, from Parameter Store", ("ssm:GetParameters",), (ours,)),
        Statement(
            "Records",
            "`up` writes down which instance and volume it uses, `deploy` which image it has had built",
            ("ssm:PutParameter",),
            records,
        ),
        Statement("Ami", "the newest image of AWS for the box", ("ssm:GetParameter",), (theirs,)),
        Statement(
            "MailFromOutside",
            "the rules that send mail about a dead box",
            tuple(f"events:{name}" for name in ("PutRule", "PutTargets", "RemoveTargets", "DeleteRule")),
            (account.arn("events", f"rule/{account.cloud.own}-i-*"),),
        ),
        Statement(
            "StopFromOutside",
            "the schedule that stops a dead box",
            schedules,
            (account.arn("scheduler", f"schedule/default/{account.cloud.own}-i-*"),),
        ),
    ]


def _files(account: Account) -> list[Statement]:
    looked_at = tuple(
        f"s3:Get{name}" for name in ("BucketPublicAccessBlock", "BucketVersioning", "EncryptionConfiguration", "BucketPolicy")
    )
    return [
        Statement("Runs", "runs, inputs, locks, audit", ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"), (account.objects,)),
        Statement(
            "GiveUpUpload",
            "botocore gives up an upload that failed",
            ("s3:AbortMultipartUpload",),
            (account.objects,),
            implied="https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html",
        ),
        Statement("ListRuns", "which runs there are, and whether there is a bucket", ("s3:ListBucket",), (account.bucket,)),
        Statement("LookAtBucket", "`doctor`: nobody else may read it, and it is as `init` made it", looked_at, (account.bucket,)),
        Statement("HubToken", "`train` and `publish` ask the Hub with it", ("secretsmanager:GetSecretValue",), (account.secret,)),
        Statement("Webhook", "`notify.test` and `doctor`", ("secretsmanager:GetSecretValue",), (account.webhook_secrets,)),
        Statement("Mail", "`notify.test` and `doctor`", ("sns:Publish", "sns:ListSubscriptionsByTopic"), (account.topic,)),
        Statement(
            "FindImage",
            "the image of this tree",
            ("ecr:DescribeRepositories", "ecr:DescribeImages", "ecr:DescribeImageScanFindings", "ecr:GetLifecyclePolicy"),
            (account.images,),
        ),
        Statement("RegistryLogin", "`image.push`, by this machine's docker", ("ecr:GetAuthorizationToken",), implied=PUSH_PAGE),
        Statement(
            "Push",
            "and `image.verify`",
            tuple(f"ecr:{name}" for name in (*LAYERS_READ, *LAYERS_WRITTEN)),
            (account.images,),
            implied=PUSH_PAGE,
        ),
    ]


def _roles(account: Account) -> list[Statement]:
    def passed(sid: str, why: str, role: str, service: str, page: str) -> Statement:
        condition = {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}}
        return Statement(sid, why, ("iam:PassRole",), (account.role(role),), condition, page)

    page = "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"
    looked_at, by_user = [account.role(account.cloud.box_role), account.role(account.cloud.scheduler_role)], []
    if ":role/" in account.principal:  # whose session does not say the role's path
        looked_at.append(account.principal)
    else:
        by_user.append(Statement("LookAtSelf", "`doctor`", ("iam:SimulatePrincipalPolicy",), (account.principal,)))
    return [
        passed("GiveBoxItsRole", "the box acts by its role", account.cloud.box_role, "ec2", page),
        passed("GiveSchedulerItsRole", "the schedule acts by its role", account.cloud.scheduler_role, "scheduler", page),
        Statement("LookAtProfile", "`doctor`", ("iam:GetInstanceProfile",), (account.profile,)),
        Statement("LookAtRoles", "`doctor`", ("iam:GetRole", "iam:SimulatePrincipalPolicy"), tuple(looked_at)),
        *by_user,
    ]


def _reading(account: Account) -> list[Statement]:
    """What names no resource: AWS allows these on everything or not at all."""
    seen = ["Instances", "InstanceTypes", "InstanceTypeOfferings", "Images", "Volumes", "VolumesModifications", "Subnets"]
    seen += ["RouteTables", "SecurityGroups", "SpotPriceHistory", "LaunchTemplateVersions", "Snapshots", "CapacityReservations"]
    return [
        Statement("LookAtEc2", "boxes, disks, what can be had", tuple(f"ec2:Describe{name}" for name in seen)),
        Statement("Prices", "the Price List", ("pricing:GetProducts",)),
        Statement("Quotas", "`doctor`", ("servicequotas:GetServiceQuota", "freetier:GetAccountPlanState")),
        Statement("LookForLogs", "`doctor`", ("logs:DescribeLogGroups",)),
    ]


def box(account: Account) -> list[Statement]:
    """What scripts and agent on the box call with its role."""
    agent = tuple(f"ec2messages:{name}" for name in AGENT_MESSAGES)
    page = "https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html"
    token = account.secret_named(account.cloud.box_secret)
    log = account.arn("logs", f"log-group:{account.cloud.log_group}:*")
    # As AWS's own policy AWSEC2VssSnapshotPolicy has it; and by no tag is it taken for another's.
    itself: dict[str, dict] = {"ArnLike": {"ec2:SourceInstanceARN": account.arn("ec2", "instance/${ec2:InstanceID}")}}
    itself |= {"ForAllValues:StringEquals": {"aws:TagKeys": ["fine-tune-slm:stopped"]}}
    return [
        Statement(
            "ItsRuns",
            "inputs, log chunks, checkpoints, what a run made",
            ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
            (account.objects,),
        ),
        Statement("ListOfItsRuns", "`aws s3 sync` and `cp --recursive` list first", ("s3:ListBucket",), (account.bucket,)),
        Statement(
            "GiveUpUpload",
            "the AWS CLI gives up an upload that failed",
            ("s3:AbortMultipartUpload",),
            (account.objects,),
            implied="https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html",
        ),
        Statement("HubToken", "the trainer reads the base model with it", ("secretsmanager:GetSecretValue",), (token,)),
        Statement("Webhook", "where notices are posted to", ("secretsmanager:GetSecretValue",), (account.webhook_secrets,)),
        Statement("Mail", "notices", ("sns:Publish",), (account.topic,)),
        Statement("RegistryLogin", "has no resource to name", ("ecr:GetAuthorizationToken",)),
        Statement(
            "Pull",
            "docker reads layers by these",
            tuple(f"ecr:{name}" for name in LAYERS_READ),
            (account.images,),
            implied="https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-pull-iam.html",
        ),
        Statement(
            "Push",
            "an image that the box has built, where the registry has none",
            tuple(f"ecr:{name}" for name in LAYERS_WRITTEN),
            (account.images,),
            implied=PUSH_PAGE,
        ),
        Statement("ItsLog", "the mirror of a run's log", ("logs:CreateLogStream", "logs:PutLogEvents"), (log,)),
        Statement("StopItself", "and say why", ("ec2:StopInstances", "ec2:CreateTags"), (account.arn("ec2", "instance/*"),), itself),
        Statement(
            "AgentIsThere", "its agent reports", ("ssm:UpdateInstanceInformation",), (account.arn("ec2", "instance/*"),), implied=page
        ),
        Statement("Agent", "and takes commands", (*agent, *(f"ssmmessages:{name}" for name in AGENT_CHANNELS)), implied=page),
    ]


JOB = ("ItsRuns", "ListOfItsRuns", "GiveUpUpload", "HubToken", "Webhook", "Mail")


def job(account: Account) -> list[Statement]:
    """What a run of a fleet calls with its role: what one on the box does, and nothing of the box itself."""
    return [one for one in box(account) if one.sid in JOB]


def workflow(account: Account) -> list[Statement]:
    """What .github/workflows/image.yml calls with the role that it takes by OIDC."""
    read = ("BatchCheckLayerAvailability", "BatchGetImage", "DescribeImages", "GetDownloadUrlForLayer")
    digest = account.arn("ssm", f"parameter/{account.cloud.own}/ecr/image-digest")
    return [
        Statement("RegistryLogin", "has no resource to name", ("ecr:GetAuthorizationToken",)),
        Statement(
            "Push", "layers and image", tuple(f"ecr:{name}" for name in (*read, *LAYERS_WRITTEN)), (account.images,), implied=PUSH_PAGE
        ),
        Statement("Digest", "which image is the newest", ("ssm:PutParameter",), (digest,)),
    ]


def scheduler(account: Account) -> list[Statement]:
    """What the schedule does with its role."""
    return [Statement("StopBox", "when its time is over", ("ec2:StopInstances",), (account.arn("ec2", "instance/*"),), account.ours_by_tag)]
