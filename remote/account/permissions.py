"""Who may do what: one list for the laptop, the box and the image workflow, as data. Policies are made from it and from nothing else.

A test takes all that every verb asks for and compares: what is asked for is allowed, and what is allowed is asked for. Actions that no
request names are marked `implied`, with the page that says so. Keys of KMS are not in it: disks, secrets and bucket use keys that AWS
manages, whose own policies let the account's services use them.
"""

import sys

from conf import schema
from conf.problem import Problem
from remote.account import setup_permissions
from remote.account.statement import INLINE, MANAGED, Place, Statement, both, document, size, together
from remote.aws.session import Aws, may_not

GPUS = ["g*", "p*"]  # instance types; for others, let the policy name them
COMING = ("ec2:GetConsoleOutput", "ec2-instance-connect:SendSSHPublicKey")
DOOR = ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress")
AGENT_MESSAGES = ("AcknowledgeMessage", "DeleteMessage", "FailMessage", "GetEndpoint", "GetMessages", "SendReply")
PUSHING = "https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html"
LAYERS_READ = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
LAYERS_WRITTEN = ("CompleteLayerUpload", "InitiateLayerUpload", "PutImage", "UploadLayerPart")
AGENT_CHANNELS = ("CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel")


def place(aws: Aws) -> Place:
    return Place(aws.caller.split(":")[1], aws.caller.split(":")[4], aws.cloud, principal(aws))


def principal(aws: Aws) -> str:
    """The user or role whose policies decide; a session's ARN names the role without its path."""
    if ":assumed-role/" not in aws.caller:
        return aws.caller
    return aws.client("iam").get_role(RoleName=aws.caller.rsplit("/", 1)[1])["Role"]["Arn"]


def _place_of_anyone(aws: Aws) -> Place:
    """The same for who may not even look himself up: he is the one who needs his policy."""
    from botocore.exceptions import ClientError

    try:
        return place(aws)
    except ClientError as error:
        if not may_not(error):
            raise
    _, partition, _, _, account, who = aws.caller.split(":", 5)
    itself = f"arn:{partition}:iam::{account}:role/*{who.rsplit('/', 1)[1]}"
    print(f"your login may not look up its own role (iam:GetRole): `{itself}` stands for it, whatever its path", file=sys.stderr)
    return Place(partition, account, aws.cloud, itself)


def roles(cloud: schema.Cloud, account: str, principal: str, partition: str = "aws") -> dict[str, dict]:
    """The policies of all who act for us."""
    return _documents(Place(partition, account, cloud, principal))


def policy(aws: Aws, who: str) -> dict:
    """The policy of one of them, in the account that is asked."""
    known = _documents(_place_of_anyone(aws))
    if who not in known:
        raise Problem(f"nobody is called `{who}`", f"`inv policy --who` takes one of {', '.join(known)}")
    return known[who]


def where_to(who: str, policy: dict, own: str = schema.TOOL) -> str:
    """In which kind of policy IAM takes it, and the command that makes one."""
    length = size(policy)
    if length > MANAGED:
        what = f"this policy has {length:,} characters, and IAM takes {MANAGED:,} in one"
        raise Problem(what, "shorter names of bucket, prefix, roles, repository or secret; or divide its statements among two", "refused")
    small = [f"a {kind} ({most:,})" for kind, most in INLINE.items() if length > most]
    not_inline = f"; it is too long for an inline policy of {' or '.join(small)}" if small else ""
    command = f"`aws iam create-policy --policy-name {own}-{who} --policy-document file://{who}.json`"
    return f"{length:,} of the {MANAGED:,} characters that a managed policy may have{not_inline}: {command}, then attach it"


def _documents(at: Place) -> dict[str, dict]:
    mine, setup = together(laptop(at), at.mine), together(setup_permissions.setup(at), setup_permissions.THROUGH_STACK)
    lists = {
        "laptop": mine,
        "files": together(files(at)),
        "setup": setup,
        "box": box(at),
        "scheduler": stopping(at),
        "workflow": workflow(at),
    }
    return {who: document(statements) for who, statements in lists.items()}


def laptop(at: Place) -> list[Statement]:
    """What the verbs call with the user's own credentials for boxes and their disks; `files` is what they call besides.

    Two policies, because IAM takes so many characters in one.
    """
    return [*_boxes(at), *_disks(at), *_commands(at)]


def files(at: Place) -> list[Statement]:
    """What the verbs call with the user's own credentials for runs, images, tokens and roles, and to look around."""
    return [*_files(at), *_roles(at), *_reading(at)]


def _boxes(at: Place) -> list[Statement]:
    made = tuple(at.arn("ec2", f"{kind}/*") for kind in ("volume", "network-interface", "subnet", "launch-template"))
    ours = {"StringEquals": {"aws:ResourceTag/Name": at.cloud.own}}  # the security group of stack.yaml
    instances, groups = at.arn("ec2", "instance/*"), at.arn("ec2", "security-group/*")
    tagging = (instances, at.arn("ec2", "volume/*"), at.public("ec2", "snapshot/*"))
    at_birth = both({"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateVolume", "CreateSnapshot"]}}, at.born)
    used = ("ec2:StartInstances", "ec2:StopInstances", "ec2:RebootInstances", "ec2:TerminateInstances")
    noted = ("ec2:ModifyInstanceMetadataOptions", "ec2:AttachVolume", "ec2:CreateTags", "ec2:DeleteTags")
    return [
        Statement(
            "LaunchBox",
            "`up` launches a box, which carries our tag, has a GPU and a metadata service that wants a token",
            ("ec2:RunInstances",),
            (instances,),
            both({"StringEquals": {"ec2:MetadataHttpTokens": "required"}, "StringLike": {"ec2:InstanceType": GPUS}}, at.born),
        ),
        Statement("LaunchWith", "and with it disk and network", ("ec2:RunInstances",), made),
        Statement("LaunchIn", "in our security group alone, which is in one network", ("ec2:RunInstances",), (groups,), ours),
        Statement(
            "LaunchFrom",
            "from an image of AWS's own",
            ("ec2:RunInstances",),
            (at.public("ec2", "image/*"),),
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
            (*used, *COMING),
            (instances,),
            at.mine,
        ),
        # Else a box of ours could be made to look like another stack's, which its laptops would take for theirs.
        Statement("NoteBox", "and nobody's box becomes another's", noted, (instances,), both(at.mine, at.kept)),
        Statement(
            "GiveUpSpot",
            "`down --purge` gives up the spot request",
            ("ec2:CancelSpotInstanceRequests",),
            (at.arn("ec2", "spot-instances-request/*"),),
        ),
        Statement(
            "FirstSpot",
            "the first spot box of an account makes AWS's own role for spot",
            ("iam:CreateServiceLinkedRole",),
            (at.role("aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"),),
            implied="https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html",
        ),
        Statement("OpenPort", "`box.ssh=true`: `up` opens port 22 to its caller, `down` closes it", DOOR, (groups,), ours),
    ]


def _disks(at: Place) -> list[Statement]:
    volumes, snapshots = at.arn("ec2", "volume/*"), at.public("ec2", "snapshot/*")
    changed = ("ec2:AttachVolume", "ec2:ModifyVolume", "ec2:DeleteVolume", "ec2:CreateSnapshot", "ec2:CreateTags")
    return [
        Statement("MakeVolume", "`up` makes the volume that keeps runs", ("ec2:CreateVolume",), (volumes,), at.born),
        Statement("UseVolume", "attach, grow, copy, note, delete", changed, (volumes,), both(at.mine, at.kept)),
        Statement("KeepCopy", "`down --snapshot`", ("ec2:CreateSnapshot",), (snapshots,), at.born),
        Statement(
            "UseCopy",
            "the way out of a zone: a volume of that copy in another",
            ("ec2:CreateVolume",),
            (snapshots,),
            at.boxes("ec2:ResourceTag"),
        ),
    ]


def _commands(at: Place) -> list[Statement]:
    ours, theirs = at.arn("ssm", f"parameter/{at.cloud.own}/*"), at.public("ssm", "parameter/aws/service/*")
    # In fewer words, for IAM's limit: only ec2/instance-id and ebs/volume-id end so.
    records = tuple(at.arn("ssm", f"parameter/{at.cloud.own}/{name}") for name in ("*-id", "ecr/image-digest"))
    own = at.boxes("ssm:resourceTag")
    answers = ("ssm:GetCommandInvocation", "ssm:ListCommands", "ssm:CancelCommand", "ssm:DescribeInstanceInformation")
    schedules = ("scheduler:CreateSchedule", "scheduler:GetSchedule", "scheduler:DeleteSchedule")
    return [
        Statement("RunScripts", "scripts run on our boxes", ("ssm:SendCommand",), (at.arn("ec2", "instance/*"),), own),
        Statement("RunAsShell", "by AWS's own document", ("ssm:SendCommand",), (at.public("ssm", "document/AWS-RunShellScript"),)),
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
            "StopFromOutside",
            "the schedule that stops a dead box",
            schedules,
            (at.arn("scheduler", f"schedule/default/{at.cloud.own}-i-*"),),
        ),
    ]


def _files(at: Place) -> list[Statement]:
    looked_at = tuple(
        f"s3:Get{name}" for name in ("BucketPublicAccessBlock", "BucketVersioning", "EncryptionConfiguration", "BucketPolicy")
    )
    return [
        Statement("Runs", "runs, inputs, locks, audit", ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"), (at.objects,)),
        Statement(
            "GiveUpUpload",
            "botocore gives up an upload that failed",
            ("s3:AbortMultipartUpload",),
            (at.objects,),
            implied="https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html",
        ),
        Statement("ListRuns", "which runs there are, and whether there is a bucket", ("s3:ListBucket",), (at.bucket,)),
        Statement("LookAtBucket", "`doctor`: nobody else may read it, and it is as `init` made it", looked_at, (at.bucket,)),
        Statement("HubToken", "`train` and `publish` ask the Hub with it", ("secretsmanager:GetSecretValue",), (at.secret,)),
        Statement(
            "FindImage",
            "the image of this tree",
            ("ecr:DescribeRepositories", "ecr:DescribeImages", "ecr:DescribeImageScanFindings", "ecr:GetLifecyclePolicy"),
            (at.images,),
        ),
        Statement("RegistryLogin", "`image.push`, by this machine's docker", ("ecr:GetAuthorizationToken",), implied=PUSHING),
        Statement(
            "Push", "and `image.verify`", tuple(f"ecr:{name}" for name in (*LAYERS_READ, *LAYERS_WRITTEN)), (at.images,), implied=PUSHING
        ),
    ]


def _roles(at: Place) -> list[Statement]:
    def passed(sid: str, why: str, role: str, service: str, page: str) -> Statement:
        condition = {"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}}
        return Statement(sid, why, ("iam:PassRole",), (at.role(role),), condition, page)

    page = "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"
    looked_at, by_user = [at.role(at.cloud.box_role), at.role(at.cloud.scheduler_role)], []
    if ":role/" in at.principal:  # whose session does not say the role's path
        looked_at.append(at.principal)
    else:
        by_user.append(Statement("LookAtSelf", "`doctor`", ("iam:SimulatePrincipalPolicy",), (at.principal,)))
    return [
        passed("GiveBoxItsRole", "the box acts by its role", at.cloud.box_role, "ec2", page),
        passed("GiveSchedulerItsRole", "the schedule acts by its role", at.cloud.scheduler_role, "scheduler", page),
        Statement("LookAtProfile", "`doctor`", ("iam:GetInstanceProfile",), (at.profile,)),
        Statement("LookAtRoles", "`doctor`", ("iam:GetRole", "iam:SimulatePrincipalPolicy"), tuple(looked_at)),
        *by_user,
    ]


def _reading(at: Place) -> list[Statement]:
    """What names no resource: AWS allows these on everything or not at all."""
    seen = ["Instances", "InstanceTypes", "InstanceTypeOfferings", "Images", "Volumes", "VolumesModifications", "Subnets"]
    seen += ["RouteTables", "SecurityGroups", "SpotPriceHistory", "LaunchTemplateVersions", "Snapshots"]
    return [
        Statement("LookAtEc2", "boxes, disks, what can be had", tuple(f"ec2:Describe{name}" for name in seen)),
        Statement("Prices", "the Price List", ("pricing:GetProducts",)),
        Statement("Quotas", "`doctor`", ("servicequotas:GetServiceQuota", "freetier:GetAccountPlanState")),
        Statement("LookForLogs", "`doctor`", ("logs:DescribeLogGroups",)),
    ]


def box(at: Place) -> list[Statement]:
    """What scripts and agent on the box call with its role."""
    agent = tuple(f"ec2messages:{name}" for name in AGENT_MESSAGES)
    page = "https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html"
    token = at.secret_called(at.cloud.box_secret)
    log = at.arn("logs", f"log-group:{at.cloud.log_group}:*")
    # As AWS's own policy AWSEC2VssSnapshotPolicy has it; and by no tag is it taken for another's.
    itself: dict[str, dict] = {"ArnLike": {"ec2:SourceInstanceARN": at.arn("ec2", "instance/${ec2:InstanceID}")}}
    itself |= {"ForAllValues:StringEquals": {"aws:TagKeys": ["fine-tune-slm:stopped"]}}
    return [
        Statement(
            "ItsRuns",
            "inputs, log chunks, checkpoints, what a run made",
            ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
            (at.objects,),
        ),
        Statement("ListOfItsRuns", "`aws s3 sync` and `cp --recursive` list first", ("s3:ListBucket",), (at.bucket,)),
        Statement(
            "GiveUpUpload",
            "the AWS CLI gives up an upload that failed",
            ("s3:AbortMultipartUpload",),
            (at.objects,),
            implied="https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html",
        ),
        Statement("HubToken", "the trainer reads the base model with it", ("secretsmanager:GetSecretValue",), (token,)),
        Statement("RegistryLogin", "has no resource to name", ("ecr:GetAuthorizationToken",)),
        Statement(
            "Pull",
            "docker reads layers by these",
            tuple(f"ecr:{name}" for name in LAYERS_READ),
            (at.images,),
            implied="https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-pull-iam.html",
        ),
        Statement(
            "Push",
            "an image that the box has built, where the registry has none",
            tuple(f"ecr:{name}" for name in LAYERS_WRITTEN),
            (at.images,),
            implied=PUSHING,
        ),
        Statement("ItsLog", "the mirror of a run's log", ("logs:CreateLogStream", "logs:PutLogEvents"), (log,)),
        Statement("StopItself", "and say why", ("ec2:StopInstances", "ec2:CreateTags"), (at.arn("ec2", "instance/*"),), itself),
        Statement("AgentIsThere", "its agent reports", ("ssm:UpdateInstanceInformation",), (at.arn("ec2", "instance/*"),), implied=page),
        Statement("Agent", "and takes commands", (*agent, *(f"ssmmessages:{name}" for name in AGENT_CHANNELS)), implied=page),
    ]


def workflow(at: Place) -> list[Statement]:
    """What .github/workflows/image.yml calls with the role that it takes by OIDC."""
    read = ("BatchCheckLayerAvailability", "BatchGetImage", "DescribeImages", "GetDownloadUrlForLayer")
    digest = at.arn("ssm", f"parameter/{at.cloud.own}/ecr/image-digest")
    return [
        Statement("RegistryLogin", "has no resource to name", ("ecr:GetAuthorizationToken",)),
        Statement("Push", "layers and image", tuple(f"ecr:{name}" for name in (*read, *LAYERS_WRITTEN)), (at.images,), implied=PUSHING),
        Statement("Digest", "which image is the newest", ("ssm:PutParameter",), (digest,)),
    ]


def stopping(at: Place) -> list[Statement]:
    """What the schedule does with its role."""
    return [Statement("StopBox", "when its time is over", ("ec2:StopInstances",), (at.arn("ec2", "instance/*"),), at.mine)]
