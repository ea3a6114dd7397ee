"""What a request asks of IAM: each action with the resource and the context that a policy is held against.

The resources are those of the Service Authorization Reference, for the calls that are made here; any other call is asked for on `*`, so
only a statement about everything allows it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

from twin.aws import wire
from twin.aws.ec2 import instances, launch_templates, reservations
from twin.aws.iam import linked_roles
from twin.aws.iam.policy import Context


@dataclass(frozen=True)
class Access:
    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)


# What a query on a bucket asks for; without one it is the bucket itself.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ASPECTS = {
    "versions": "BucketVersions",
    "policy": "BucketPolicy",
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "ownershipControls": "BucketOwnershipControls",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "versioning": "BucketVersioning",
    "tagging": "BucketTagging",
    "location": "BucketLocation",
}
WHOLE = {"GET": "ListBucket", "HEAD": "ListBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
OBJECT = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject", "DELETE": "DeleteObject"}
SCHEDULE = {"POST": "CreateSchedule", "GET": "GetSchedule", "DELETE": "DeleteSchedule", "PUT": "UpdateSchedule"}
KINDS = {"i": "instance", "vol": "volume", "snap": "snapshot", "sg": "security-group", "lt": "launch-template"}  # by how ids begin
TOKENS = "MetadataOptions.HttpTokens"
GROUPS = re.compile(r"(NetworkInterface\.\d+\.)?SecurityGroupId\.\d+")
TAGS = re.compile(r"TagSpecification\.(\d+)\.Tag\.\d+\.Key")


def required(request: wire.Request) -> list[Access]:
    """All that must be allowed for the request to go through."""
    find = SPECIAL.get(request.name) or SERVICES.get(request.service)
    needed = list(find(request)) if find else [Access(f"{request.service}:{request.operation}")]
    return [replace(one, context=one.context | {"aws:CalledVia": request.via}) for one in needed] if request.via else needed


def arn(request: wire.Request, service: str, resource: str, account: str = wire.ACCOUNT) -> str:
    return f"arn:aws:{service}:{request.region}:{account}:{resource}"


def iam(resource: str) -> str:
    return f"arn:aws:iam::{wire.ACCOUNT}:{resource}"


def s3(request: wire.Request) -> Iterator[Access]:
    bucket, _, key = unquote(request.path).strip("/").partition("/")
    query, place = parse_qs(request.environ.get("QUERY_STRING", ""), keep_blank_values=True), f"arn:aws:s3:::{bucket}"
    if not bucket:
        yield Access("s3:ListAllMyBuckets")
    elif key:
        given_up = request.operation == "DELETE" and "uploadId" in query
        yield Access(f"s3:{'AbortMultipartUpload' if given_up else OBJECT.get(request.operation, request.operation)}", f"{place}/{key}")
    elif request.operation == "POST" and "delete" in query:
        for removed in re.findall(r"<Object>(.*?)</Object>", request.body.decode(), re.DOTALL):
            version = "Version" if "<VersionId>" in removed else ""
            yield Access(f"s3:DeleteObject{version}", f"{place}/{re.search('<Key>([^<]*)</Key>', removed)[1]}")
    else:
        yield Access(f"s3:{bucket_action(request.operation, query)}", place)


def bucket_action(method: str, query: dict) -> str:
    aspect = next((name for name in ASPECTS if name in query), None)
    if aspect is None:
        return WHOLE.get(method, method)
    # S3 takes an aspect that is put empty or deleted for a change of it, but for a policy.
    verb = "List" if aspect == "versions" else "Get" if method in ("GET", "HEAD") else "Put"
    return ("Delete" if (method, aspect) == ("DELETE", "policy") else verb) + ASPECTS[aspect]


def scheduler(request: wire.Request) -> Iterator[Access]:
    name = request.path.rpartition("/")[2]
    yield Access(f"scheduler:{SCHEDULE[request.operation]}", arn(request, "scheduler", f"schedule/default/{name}"))
    if request.operation in ("POST", "PUT"):
        yield pass_role(request.json["Target"]["RoleArn"], "scheduler.amazonaws.com")


def pass_role(role: str, service: str) -> Access:
    return Access("iam:PassRole", role, {"iam:PassedToService": service})


def parameters(request: wire.Request) -> Iterator[Access]:
    content = request.parameters
    for name in content.get("Names") or [content.get("Name") or content["Path"].rstrip("/")]:
        public = name.startswith("/aws/service/")
        yield Access(f"ssm:{request.operation}", arn(request, "ssm", f"parameter/{name.lstrip('/')}", "" if public else wire.ACCOUNT))


def command(request: wire.Request) -> Iterator[Access]:
    document = request.parameters["DocumentName"]
    yield Access("ssm:SendCommand", arn(request, "ssm", f"document/{document}", "" if document.startswith("AWS-") else wire.ACCOUNT))
    for instance in request.parameters.get("InstanceIds", []):
        yield Access("ssm:SendCommand", arn(request, "ec2", f"instance/{instance}"), tags_of(request, instance, "ssm:resourceTag"))


def session(request: wire.Request) -> Iterator[Access]:
    """A session is started on an instance by a document; the one of preferences may be left out, and then nobody asks for it."""
    content = request.parameters
    if "SessionId" in content:
        yield Access(f"ssm:{request.operation}", arn(request, "ssm", f"session/{content['SessionId']}"))
        return
    instance = content["Target"]
    yield Access("ssm:StartSession", arn(request, "ec2", f"instance/{instance}"), tags_of(request, instance, "ssm:resourceTag"))
    if document := content.get("DocumentName"):
        owner = "" if document.startswith("AWS-") else wire.ACCOUNT
        yield Access("ssm:StartSession", arn(request, "ssm", f"document/{document}", owner))


def channel(request: wire.Request) -> Iterator[Access]:
    verb = "Create" if request.operation == "POST" else "Open"
    yield Access(f"ssmmessages:{verb}{'Data' if '/data-channel/' in request.path else 'Control'}Channel")


def key(request: wire.Request) -> Iterator[Access]:
    instance = request.parameters["InstanceId"]
    yield Access(f"ec2-instance-connect:{request.operation}", arn(request, "ec2", f"instance/{instance}"), tags_of(request, instance))


def report(request: wire.Request) -> Iterator[Access]:
    yield Access("ssm:UpdateInstanceInformation", arn(request, "ec2", f"instance/{request.parameters['InstanceId']}"))


def secret(request: wire.Request) -> Iterator[Access]:
    from moto.secretsmanager.models import secretsmanager_backends

    name = request.parameters.get("SecretId") or request.parameters.get("Name", "*")
    known = secretsmanager_backends[wire.ACCOUNT][request.region].secrets
    resource = (
        name if name.startswith("arn:") else known[name].arn if name in known else arn(request, "secretsmanager", f"secret:{name}-xxxxxx")
    )
    yield Access(f"secretsmanager:{request.operation}", resource)


def registry(request: wire.Request) -> Iterator[Access]:
    content = request.parameters
    names = content.get("repositoryNames") or [content[one] for one in ("repositoryName",) if one in content]
    for name in names:
        yield Access(f"ecr:{request.operation}", arn(request, "ecr", f"repository/{name}"))
    if not names:
        yield Access(f"ecr:{request.operation}")


def stream(request: wire.Request) -> Iterator[Access]:
    content = request.parameters
    group, name = content["logGroupName"], content.get("logStreamName")
    yield Access(f"logs:{request.operation}", arn(request, "logs", f"log-group:{group}:{f'log-stream:{name}' if name else '*'}"))


def identity(request: wire.Request) -> Iterator[Access]:
    """The thing that an action of IAM is about; a role that is put into a profile is passed to EC2."""
    content = request.parameters
    resources = [iam(f"instance-profile/{content['InstanceProfileName']}")] if "InstanceProfileName" in content else []
    resources += [role(content["RoleName"])] if "RoleName" in content else []
    if "AWSServiceName" in content:
        resources = [iam(f"role/{linked_roles.name(content['AWSServiceName'])}")]
    if "Url" in content:
        resources = [iam(f"oidc-provider/{urlsplit(content['Url']).netloc}")]
    yield Access(
        f"iam:{request.operation}", (resources or [content.get("OpenIDConnectProviderArn") or content.get("PolicySourceArn", "*")])[0]
    )
    if request.operation == "AddRoleToInstanceProfile":
        yield pass_role(iam(f"role/{content['RoleName']}"), "ec2.amazonaws.com")


def stack(request: wire.Request) -> Iterator[Access]:
    name = request.parameters.get("StackName", "*")
    yield Access(
        f"cloudformation:{request.operation}", name if name.startswith("arn:") else arn(request, "cloudformation", f"stack/{name}/id")
    )


# https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsbatch.html: what each action is about, by the request's field.
BATCH = {
    "CreateComputeEnvironment": {"computeEnvironmentName": "compute-environment"},
    "UpdateComputeEnvironment": {"computeEnvironment": "compute-environment"},
    "DeleteComputeEnvironment": {"computeEnvironment": "compute-environment"},
    "CreateJobQueue": {"jobQueueName": "job-queue"},
    "UpdateJobQueue": {"jobQueue": "job-queue"},
    "DeleteJobQueue": {"jobQueue": "job-queue"},
    "GetJobQueueSnapshot": {"jobQueue": "job-queue"},
    "RegisterJobDefinition": {"jobDefinitionName": "job-definition"},
    "DeregisterJobDefinition": {"jobDefinition": "job-definition"},
    "SubmitJob": {"jobDefinition": "job-definition", "jobQueue": "job-queue"},
    "CancelJob": {"jobId": "job"},
    "TerminateJob": {"jobId": "job"},
}
LISTING = ("DescribeComputeEnvironments", "DescribeJobQueues", "DescribeJobDefinitions", "DescribeJobs", "ListJobs")


def batch(request: wire.Request) -> Iterator[Access]:
    """Resources by name; a definition's image and roles, and the tags that are given; roles are passed."""
    action = f"batch:{request.operation}"
    if request.path.startswith("/v1/tags/"):
        yield Access(action, unquote(request.path.removeprefix("/v1/tags/")))
        return
    if request.operation in LISTING:
        yield Access(action)
        return
    content = request.json
    tags = content.get("tags", {})
    context: Context = {f"aws:RequestTag/{name}": value for name, value in tags.items()} | ({"aws:TagKeys": list(tags)} if tags else {})
    about = context | definition_context(content) if request.operation == "RegisterJobDefinition" else context
    for name, kind in BATCH.get(request.operation, {}).items():
        yield Access(action, batch_arn(request, kind, content[name]), about)
    for one in content.get("computeEnvironmentOrder", []):
        yield Access(action, batch_arn(request, "compute-environment", one["computeEnvironment"]))
    if tags:
        kind = {"SubmitJob": "job", "CreateJobQueue": "job-queue", "RegisterJobDefinition": "job-definition"}.get(request.operation)
        name = content.get("jobQueueName") or content.get("jobDefinitionName") or content.get("computeEnvironmentName") or "new"
        yield Access("batch:TagResource", batch_arn(request, kind or "compute-environment", name), context)
    yield from passed_roles(content)


def batch_arn(request: wire.Request, kind: str, name: str) -> str:
    return name if name.startswith("arn:") else arn(request, "batch", f"{kind}/{name}")


def definition_context(content: dict) -> Context:
    """The condition keys of RegisterJobDefinition, which speak of the container."""
    tasks = content.get("ecsProperties", {}).get("taskProperties") or [{"containers": [content.get("containerProperties", {})]}]
    own = tasks[0]["containers"][0]
    log = own.get("logConfiguration", {})
    context: Context = {"batch:Image": own.get("image", ""), "batch:Privileged": str(own.get("privileged", False)).lower()}
    options = {
        "awslogs-group": "Group",
        "awslogs-region": "Region",
        "awslogs-stream-prefix": "StreamPrefix",
        "awslogs-create-group": "CreateGroup",
    }
    context |= {f"batch:AWSLogs{word}": value for name, word in options.items() if (value := log.get("options", {}).get(name))}
    return context | ({"batch:User": own["user"]} if "user" in own else {}) | ({"batch:LogDriver": log["logDriver"]} if log else {})


def passed_roles(content: dict) -> Iterator[Access]:
    """A job's roles to its tasks, an environment's to its instances and to Batch."""
    containers = [content.get("containerProperties", {}), *content.get("ecsProperties", {}).get("taskProperties", [])]
    for one in containers:
        for name in ("jobRoleArn", "taskRoleArn", "executionRoleArn"):
            if name in one:
                yield pass_role(one[name], "ecs-tasks.amazonaws.com")
    if profile := content.get("computeResources", {}).get("instanceRole"):
        yield pass_role(role_of(profile.rpartition("/")[2]), "ec2.amazonaws.com")
    if "serviceRole" in content and "aws-service-role" not in content["serviceRole"]:
        yield pass_role(content["serviceRole"], "batch.amazonaws.com")


def budget(request: wire.Request) -> Iterator[Access]:
    content = request.parameters
    name = content.get("BudgetName") or content.get("Budget", {}).get("BudgetName", "*")
    action = "ViewBudget" if request.operation.startswith("Describe") else "ModifyBudget"
    yield Access(f"budgets:{action}", f"arn:aws:budgets::{wire.ACCOUNT}:budget/{name}")


def topic(request: wire.Request) -> Iterator[Access]:
    """A subscription is no resource that a policy could name."""
    content = request.parameters
    named = content.get("TopicArn") or content.get("ResourceArn") or (arn(request, "sns", content["Name"]) if "Name" in content else "*")
    yield Access(f"sns:{request.operation}", named)


def rule(request: wire.Request) -> Iterator[Access]:
    name = request.parameters.get("Rule") or request.parameters.get("Name", "*")
    yield Access(f"events:{request.operation}", arn(request, "events", f"rule/{name}"))


def on_existing(request: wire.Request, ids: dict[str, str]) -> Iterator[Access]:
    """An EC2 action on things that exist: `ids` names their kind for each parameter, whose name may begin a list."""
    for key, value in request.parameters.items():
        if kind := ids.get(key.split(".")[0]):
            kind = kind if kind != "any" else KINDS.get(value.split("-")[0], "*")
            owner = "" if kind == "snapshot" else wire.ACCOUNT  # a snapshot's name has none
            itself = {"ec2:InstanceID": value} if kind == "instance" else {}
            context = itself | tags_of(request, value) | new_tags(request)
            yield Access(f"ec2:{request.operation}", arn(request, "ec2", f"{kind}/{value}", owner), context)


def on_new(request: wire.Request, kinds: dict[str, str], existing: dict[str, str] | None = None) -> Iterator[Access]:
    """An EC2 action that makes things, perhaps with tags; `kinds` names the account in the resource of each (snapshots have none)."""
    tags = given_tags(request)
    for kind, account in kinds.items():
        yield Access(f"ec2:{request.operation}", arn(request, "ec2", f"{kind}/new", account), tags.get(kind, {}))
    for kind, context in tags.items():
        owner = kinds.get(kind, wire.ACCOUNT)
        yield Access("ec2:CreateTags", arn(request, "ec2", f"{kind}/new", owner), context | {"ec2:CreateAction": request.operation})
    yield from on_existing(request, existing or {})


def run_instances(request: wire.Request) -> Iterator[Access]:
    template, request = launch_templates.filled(request)
    content = request.parameters
    of_instance = {"ec2:InstanceType": content.get("InstanceType", ""), "ec2:MetadataHttpTokens": content.get(TOKENS, "optional")}
    for one in on_new(request, dict.fromkeys(("instance", "volume", "network-interface", "subnet"), wire.ACCOUNT)):
        made = one.action == "ec2:RunInstances" and one.resource.endswith(":instance/new")
        yield replace(one, context=one.context | of_instance) if made else one
    for group in [value for name, value in content.items() if GROUPS.fullmatch(name)] or ["default"]:
        yield Access("ec2:RunInstances", arn(request, "ec2", f"security-group/{group}"), tags_of(request, group))
    own = any(image.id == content.get("ImageId") for image in instances.backend(request.region).describe_images(owners=[wire.ACCOUNT]))
    owner = wire.ACCOUNT if own else "amazon"  # nobody else's image is known here
    yield Access("ec2:RunInstances", arn(request, "ec2", f"image/{content.get('ImageId')}", ""), {"ec2:Owner": owner})
    if template:
        yield Access("ec2:RunInstances", arn(request, "ec2", f"launch-template/{template}"))
    if reservation := content.get(reservations.TARGET):
        yield Access("ec2:RunInstances", arn(request, "ec2", f"capacity-reservation/{reservation}"))
    profile = content.get("IamInstanceProfile.Name") or content.get("IamInstanceProfile.Arn", "").rpartition("/")[2]
    if profile:
        yield pass_role(role_of(profile), "ec2.amazonaws.com")


def role(name: str) -> str:
    """A role by its name, which is nobody else's; its path is part of what it is called in policies."""
    from moto.iam.models import iam_backends

    arns = [one.arn for one in iam_backends[wire.ACCOUNT]["aws"].roles.values() if one.name == name]
    return arns[0] if arns else iam(f"role/{name}")


def role_of(profile: str) -> str:
    from moto.iam.models import iam_backends

    profiles = [one for one in iam_backends[wire.ACCOUNT]["aws"].instance_profiles.values() if one.name == profile]
    return profiles[0].roles[0].arn if profiles and profiles[0].roles else iam(f"role/{profile}")


def given_tags(request: wire.Request) -> dict[str, Context]:
    """The tags that a request gives, by kind of thing."""
    content, tags = request.parameters, {}
    for key, name in content.items():
        if match := TAGS.fullmatch(key):
            kind = content[f"TagSpecification.{match[1]}.ResourceType"]
            context = tags.setdefault(kind, {"aws:TagKeys": []})
            context[f"aws:RequestTag/{name}"] = content[key[: -len("Key")] + "Value"]
            context["aws:TagKeys"] = [*context["aws:TagKeys"], name]
    return tags


def new_tags(request: wire.Request) -> Context:
    """The tags that CreateTags and DeleteTags name; the latter may name no value."""
    content = request.parameters
    keys = {name: key for key, name in content.items() if re.fullmatch(r"Tag\.\d+\.Key", key)}
    values = {name: content.get(key[: -len("Key")] + "Value") for name, key in keys.items()}
    context = {f"aws:RequestTag/{name}": value for name, value in values.items() if value is not None}
    return context | ({"aws:TagKeys": list(keys)} if keys else {})


def tags_of(request: wire.Request, thing: str, *prefixes: str) -> Context:
    """The tags that a thing of EC2 has, under the names by which conditions ask for them."""
    known = instances.backend(request.region).describe_tags({"resource-id": [thing]})
    return {f"{prefix}/{one['key']}": one["value"] for one in known for prefix in prefixes or ("aws:ResourceTag", "ec2:ResourceTag")}


Find = Callable[[wire.Request], Iterator[Access]]

SERVICES: dict[str, Find] = {
    "s3": s3,
    "scheduler": scheduler,
    "secretsmanager": secret,
    "ecr": registry,
    "iam": identity,
    "cloudformation": stack,
    "budgets": budget,
    "sns": topic,
    "batch": batch,
    "events": rule,
    "ssmmessages": channel,
}
VOLUME, INSTANCE, GROUP = {"VolumeId": "volume"}, {"InstanceId": "instance"}, {"GroupId": "security-group"}
ABOUT_GROUPS = ("AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupEgress", "RevokeSecurityGroupIngress")
ABOUT_STREAMS = ("CreateLogGroup", "DeleteLogGroup", "PutRetentionPolicy", "DeleteRetentionPolicy")
SPECIAL: dict[str, Find] = {
    **dict.fromkeys(
        ("ssm.GetParameter", "ssm.GetParameters", "ssm.GetParametersByPath", "ssm.PutParameter", "ssm.DeleteParameter"), parameters
    ),
    **dict.fromkeys((f"logs.{name}" for name in ABOUT_STREAMS), stream),
    **dict.fromkeys((f"ec2.{name}" for name in (*ABOUT_GROUPS, "DeleteSecurityGroup")), partial(on_existing, ids=GROUP)),
    "ec2.CreateSecurityGroup": partial(on_new, kinds={"security-group": wire.ACCOUNT}, existing={"VpcId": "vpc"}),
    "ec2.CreateLaunchTemplate": partial(on_new, kinds={"launch-template": wire.ACCOUNT}),
    **dict.fromkeys(
        ("ec2.CreateLaunchTemplateVersion", "ec2.DeleteLaunchTemplate"), partial(on_existing, ids={"LaunchTemplateId": "launch-template"})
    ),
    "ssm.SendCommand": command,
    **dict.fromkeys(("ssm.StartSession", "ssm.ResumeSession", "ssm.TerminateSession"), session),
    "ssm.UpdateInstanceInformation": report,
    **dict.fromkeys(("logs.CreateLogStream", "logs.PutLogEvents", "logs.GetLogEvents", "logs.FilterLogEvents"), stream),
    **dict.fromkeys(
        ("ec2.StartInstances", "ec2.StopInstances", "ec2.RebootInstances", "ec2.TerminateInstances"), partial(on_existing, ids=INSTANCE)
    ),
    **dict.fromkeys(("ec2.ModifyVolume", "ec2.DeleteVolume"), partial(on_existing, ids=VOLUME)),
    **dict.fromkeys(("ec2.AttachVolume", "ec2.DetachVolume"), partial(on_existing, ids=VOLUME | INSTANCE)),
    **dict.fromkeys(("ec2.CreateTags", "ec2.DeleteTags"), partial(on_existing, ids={"ResourceId": "any"})),
    **dict.fromkeys(("ec2.GetConsoleOutput", "ec2.ModifyInstanceMetadataOptions"), partial(on_existing, ids=INSTANCE)),
    "ec2-instance-connect.SendSSHPublicKey": key,
    **dict.fromkeys(
        ("ec2.AuthorizeSecurityGroupIngress", "ec2.RevokeSecurityGroupIngress"), partial(on_existing, ids={"GroupId": "security-group"})
    ),
    "ec2.CancelSpotInstanceRequests": partial(on_existing, ids={"SpotInstanceRequestId": "spot-instances-request"}),
    "ec2.RunInstances": run_instances,
    "ec2.CreateVolume": partial(on_new, kinds={"volume": wire.ACCOUNT}, existing={"SnapshotId": "snapshot"}),
    "ec2.DeleteSnapshot": partial(on_existing, ids={"SnapshotId": "snapshot"}),
    "ec2.CreateSnapshot": partial(on_new, kinds={"snapshot": ""}, existing=VOLUME),
}
