"""The resource types that stacks may have: each is made, changed and removed by the ordinary calls of its own service.

A property that is not named here is refused, so that nothing of a template is quietly left out.
"""

import json
import secrets
from functools import partial
from typing import Any

from twin.aws import wire
from twin.aws.cloudformation import fleet_resources, topic_resources
from twin.aws.cloudformation.resource_type import AlreadyExists, Client, Properties, ResourceType

NOT_FOUND = ("NoSuchEntity", "NoSuchBucket", "NoSuchBucketPolicy", "ParameterNotFound", "NotFoundException")
NOT_FOUND += (
    "RepositoryNotFoundException",
    "ResourceNotFoundException",
    "InvalidGroup.NotFound",
    "InvalidLaunchTemplateName.NotFoundException",
)
NOT_FOUND += ("InvalidLaunchTemplateId.NotFound",)


def create_bucket(client: Client, properties: Properties, default_name: str) -> str:
    name, s3 = properties.get("BucketName", default_name.lower()), client("s3")
    region = s3.meta.region_name
    if has_bucket(s3, name):
        raise AlreadyExists(f"{name} already exists")  # us-east-1 takes a second CreateBucket of the owner's for an answer
    s3.create_bucket(Bucket=name, **({} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}))
    update_bucket(client, name, properties)
    return name


def has_bucket(s3: Any, name: str) -> bool:
    try:
        s3.head_bucket(Bucket=name)
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return False
    return True


def update_bucket(client: Client, name: str, properties: Properties) -> None:
    s3 = client("s3")
    if "BucketEncryption" in properties:
        rules = [
            {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]}
            for rule in properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        ]
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
    if "VersioningConfiguration" in properties:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
    if "OwnershipControls" in properties:
        s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    if "PublicAccessBlockConfiguration" in properties:
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"])
    if "LifecycleConfiguration" in properties:
        rules = [
            {"Filter": {"Prefix": ""}, "ID": rule["Id"]} | without(rule, "Id") for rule in properties["LifecycleConfiguration"]["Rules"]
        ]
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    if "Tags" in properties:
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": properties["Tags"]})


def put_policy(client: Client, bucket: str, properties: Properties) -> None:
    client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(properties["PolicyDocument"]))


def create_policy(client: Client, properties: Properties, default_name: str) -> str:
    put_policy(client, properties["Bucket"], properties)
    return properties["Bucket"]


def create_repository(client: Client, properties: Properties, default_name: str) -> str:
    name = properties.get("RepositoryName", default_name.lower())
    encryption = properties.get("EncryptionConfiguration", {}).get("EncryptionType", "AES256")
    client("ecr").create_repository(repositoryName=name, encryptionConfiguration={"encryptionType": encryption})
    update_repository(client, name, properties)
    return name


def update_repository(client: Client, name: str, properties: Properties) -> None:
    ecr = client("ecr")
    scan = properties.get("ImageScanningConfiguration", {}).get("ScanOnPush", False)
    ecr.put_image_scanning_configuration(repositoryName=name, imageScanningConfiguration={"scanOnPush": scan})
    ecr.put_image_tag_mutability(repositoryName=name, imageTagMutability=properties.get("ImageTagMutability", "MUTABLE"))
    if "LifecyclePolicy" in properties:
        ecr.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=properties["LifecyclePolicy"]["LifecyclePolicyText"])


def create_log_group(client: Client, properties: Properties, default_name: str) -> str:
    name = properties.get("LogGroupName", default_name)
    client("logs").create_log_group(logGroupName=name)
    update_log_group(client, name, properties)
    return name


def update_log_group(client: Client, name: str, properties: Properties) -> None:
    if "RetentionInDays" in properties:
        client("logs").put_retention_policy(logGroupName=name, retentionInDays=int(properties["RetentionInDays"]))
    else:
        client("logs").delete_retention_policy(logGroupName=name)


def create_role(client: Client, properties: Properties, default_name: str) -> str:
    name = properties.get("RoleName", default_name)
    client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]))
    update_role(client, name, properties)
    return name


def update_role(client: Client, name: str, properties: Properties) -> None:
    iam = client("iam")
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]))
    inline_policies = {policy["PolicyName"]: policy["PolicyDocument"] for policy in properties.get("Policies", [])}
    clear_role(iam, name, keep=(*inline_policies, *properties.get("ManagedPolicyArns", [])))
    for policy, document in inline_policies.items():
        iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
    for arn in properties.get("ManagedPolicyArns", []):
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)


def clear_role(iam: Any, name: str, keep: tuple[str, ...] = ()) -> None:
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        if policy not in keep:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
    for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        if policy["PolicyArn"] not in keep:
            iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])


def delete_role(client: Client, name: str, properties: Properties) -> None:
    clear_role(client("iam"), name)
    client("iam").delete_role(RoleName=name)


def create_profile(client: Client, properties: Properties, default_name: str) -> str:
    name = properties.get("InstanceProfileName", default_name)
    client("iam").create_instance_profile(InstanceProfileName=name)
    update_profile(client, name, properties)
    return name


def update_profile(client: Client, name: str, properties: Properties) -> None:
    iam = client("iam")
    current = [role["RoleName"] for role in iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]]
    for role in set(current) - set(properties["Roles"]):
        iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role)
    for role in set(properties["Roles"]) - set(current):
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)


def delete_profile(client: Client, name: str, properties: Properties) -> None:
    update_profile(client, name, {"Roles": []})
    client("iam").delete_instance_profile(InstanceProfileName=name)


def create_provider(client: Client, properties: Properties, default_name: str) -> str:
    answer = client("iam").create_open_id_connect_provider(Url=properties["Url"], ClientIDList=properties.get("ClientIdList", []))
    return answer["OpenIDConnectProviderArn"]


def update_provider(client: Client, arn: str, properties: Properties) -> None:
    iam = client("iam")
    current, client_ids = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)["ClientIDList"], properties.get("ClientIdList", [])
    for one in set(client_ids) - set(current):
        iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=one)
    for one in set(current) - set(client_ids):
        iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=one)


def create_group(client: Client, properties: Properties, default_name: str) -> str:
    name = properties.get("GroupName", default_name)
    answer = client("ec2").create_security_group(GroupName=name, Description=properties["GroupDescription"], VpcId=properties["VpcId"])
    update_group(client, answer["GroupId"], properties)
    return answer["GroupId"]


def update_group(client: Client, group: str, properties: Properties) -> None:
    ec2 = client("ec2")
    current = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    if current["IpPermissionsEgress"]:
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=current["IpPermissionsEgress"])
    if current["IpPermissions"]:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=current["IpPermissions"])
    everything = [{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}]
    ec2.authorize_security_group_egress(
        GroupId=group, IpPermissions=[rule(one) for one in properties.get("SecurityGroupEgress", everything)]
    )
    if properties.get("SecurityGroupIngress"):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule(one) for one in properties["SecurityGroupIngress"]])
    if properties.get("Tags"):
        ec2.create_tags(Resources=[group], Tags=properties["Tags"])


def rule(properties: Properties) -> dict:
    address = {"CidrIp": properties["CidrIp"]} | ({"Description": properties["Description"]} if "Description" in properties else {})
    ports = {name: int(properties[name]) for name in ("FromPort", "ToPort") if name in properties}
    return {"IpProtocol": str(properties["IpProtocol"]), "IpRanges": [address], **ports}


def create_launch_template(client: Client, properties: Properties, default_name: str) -> str:
    answer = client("ec2").create_launch_template(
        LaunchTemplateName=properties.get("LaunchTemplateName", default_name), LaunchTemplateData=launch_data(properties)
    )
    return answer["LaunchTemplate"]["LaunchTemplateId"]


def update_launch_template(client: Client, template: str, properties: Properties) -> None:
    """A new version; as on AWS, the default version stays what it was."""
    client("ec2").create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=launch_data(properties))


def launch_data(properties: Properties) -> Properties:
    """As EC2 takes it: a parameter of a stack is a text, and a size is a number."""
    data = properties["LaunchTemplateData"]
    if "BlockDeviceMappings" not in data:
        return data
    disks = [one | {"Ebs": one["Ebs"] | {"VolumeSize": int(one["Ebs"]["VolumeSize"])}} for one in data["BlockDeviceMappings"]]
    return data | {"BlockDeviceMappings": disks}


def template_version(client: Client, template: str, name: str) -> str:
    return str(client("ec2").describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"][0][name])


def put_parameter(client: Client, properties: Properties, overwrite: bool) -> str:
    more = {"Description": properties["Description"]} if "Description" in properties else {}
    client("ssm").put_parameter(
        Name=properties["Name"], Value=str(properties["Value"]), Type=properties["Type"], Overwrite=overwrite, **more
    )
    return properties["Name"]


def create_secret(client: Client, properties: Properties, default_name: str) -> str:
    value = {"SecretString": properties["SecretString"]} if "SecretString" in properties else {}
    answer = client("secretsmanager").create_secret(
        Name=properties.get("Name", default_name), Description=properties.get("Description", ""), **value
    )
    return answer["ARN"]


def update_secret(client: Client, arn: str, properties: Properties) -> None:
    value = {"SecretString": properties["SecretString"]} if "SecretString" in properties else {}
    client("secretsmanager").update_secret(SecretId=arn, Description=properties.get("Description", ""), **value)


def create_budget(client: Client, properties: Properties, default_name: str) -> str:
    budget = {"BudgetName": default_name} | properties["Budget"]
    limit = {name: str(value) for name, value in budget["BudgetLimit"].items()}
    client("budgets").create_budget(
        AccountId=wire.ACCOUNT,
        Budget=budget | {"BudgetLimit": limit},
        NotificationsWithSubscribers=properties.get("NotificationsWithSubscribers", []),
    )
    return budget["BudgetName"]


def update_budget(client: Client, name: str, properties: Properties) -> None:
    client("budgets").delete_budget(AccountId=wire.ACCOUNT, BudgetName=name)
    create_budget(client, properties, name)


def exists(kind: ResourceType, client: Client, id: str) -> bool:
    """Whether there is a resource with this identifier; one that the caller may not read is none."""
    from botocore.exceptions import ClientError

    try:
        return bool(kind.find(client, id))
    except ClientError as error:
        if error.response["Error"]["Code"] not in (
            *NOT_FOUND,
            "404",
            "403",
            "AccessDenied",
            "AccessDeniedException",
            "UnauthorizedOperation",
        ):
            raise
        return False


def log_group(client: Client, name: str) -> bool:
    groups = client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return any(group["logGroupName"] == name for group in groups)


def needs_replacement(kind: ResourceType, current: Properties, new: Properties) -> bool:
    """Whether what has changed is among what a resource has for life."""
    fixed = (*kind.create_only, *kind.create_only_at_times(new))
    return any(property_at(current, name) != property_at(new, name) for name in fixed)


def property_at(properties: Properties, path: str) -> Any:
    for name in path.split("."):
        properties = properties.get(name) if isinstance(properties, dict) else None
    return properties


def without(values: dict, *names: str) -> dict:
    return {key: value for key, value in values.items() if key not in names}


RESOURCE_TYPES = (
    fleet_resources.TYPES
    | topic_resources.TYPES
    | {
        "AWS::S3::Bucket": ResourceType(
            create_bucket,
            update_bucket,
            lambda client, name, properties: client("s3").delete_bucket(Bucket=name),
            (
                *("BucketName", "BucketEncryption", "VersioningConfiguration", "OwnershipControls"),
                *("PublicAccessBlockConfiguration", "LifecycleConfiguration", "Tags"),
            ),
            create_only=("BucketName",),
            attributes={"Arn": lambda client, name: f"arn:aws:s3:::{name}"},
            primary_identifier="BucketName",
            find=lambda client, name: client("s3").head_bucket(Bucket=name),
        ),
        "AWS::S3::BucketPolicy": ResourceType(
            create_policy,
            put_policy,
            lambda client, bucket, properties: client("s3").delete_bucket_policy(Bucket=bucket),
            ("Bucket", "PolicyDocument"),
            create_only=("Bucket",),
            tagged=False,
            primary_identifier="Bucket",
            find=lambda client, bucket: client("s3").get_bucket_policy(Bucket=bucket),
        ),
        "AWS::ECR::Repository": ResourceType(
            create_repository,
            update_repository,
            lambda client, name, properties: client("ecr").delete_repository(
                repositoryName=name, force=properties.get("EmptyOnDelete", False)
            ),
            (
                *("RepositoryName", "ImageScanningConfiguration", "ImageTagMutability"),
                *("EmptyOnDelete", "EncryptionConfiguration", "LifecyclePolicy"),
            ),
            create_only=("RepositoryName", "EncryptionConfiguration"),
            primary_identifier="RepositoryName",
            find=lambda client, name: client("ecr").describe_repositories(repositoryNames=[name])["repositories"],
        ),
        "AWS::Logs::LogGroup": ResourceType(
            create_log_group,
            update_log_group,
            lambda client, name, properties: client("logs").delete_log_group(logGroupName=name),
            ("LogGroupName", "RetentionInDays"),
            create_only=("LogGroupName",),
            primary_identifier="LogGroupName",
            find=log_group,
        ),
        "AWS::IAM::Role": ResourceType(
            create_role,
            update_role,
            delete_role,
            ("RoleName", "AssumeRolePolicyDocument", "ManagedPolicyArns", "Policies"),
            create_only=("RoleName",),
            attributes={"Arn": lambda client, name: client("iam").get_role(RoleName=name)["Role"]["Arn"]},
            iam=True,
            primary_identifier="RoleName",
            find=lambda client, name: client("iam").get_role(RoleName=name),
        ),
        "AWS::IAM::InstanceProfile": ResourceType(
            create_profile,
            update_profile,
            delete_profile,
            ("InstanceProfileName", "Roles"),
            create_only=("InstanceProfileName",),
            attributes={"Arn": lambda client, name: client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]},
            iam=True,
            tagged=False,
            primary_identifier="InstanceProfileName",
            find=lambda client, name: client("iam").get_instance_profile(InstanceProfileName=name),
        ),
        "AWS::IAM::OIDCProvider": ResourceType(
            create_provider,
            update_provider,
            lambda client, arn, properties: client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=arn),
            ("Url", "ClientIdList"),
            create_only=("Url",),
            iam=True,
        ),
        "AWS::EC2::SecurityGroup": ResourceType(
            create_group,
            update_group,
            lambda client, group, properties: client("ec2").delete_security_group(GroupId=group),
            ("GroupName", "GroupDescription", "VpcId", "SecurityGroupEgress", "SecurityGroupIngress", "Tags"),
            create_only=("GroupName", "GroupDescription", "VpcId"),
            attributes={"GroupId": lambda client, group: group},
        ),
        "AWS::EC2::LaunchTemplate": ResourceType(
            create_launch_template,
            update_launch_template,
            lambda client, template, properties: client("ec2").delete_launch_template(LaunchTemplateId=template),
            ("LaunchTemplateName", "LaunchTemplateData"),
            create_only=("LaunchTemplateName",),
            attributes={
                f"{which}VersionNumber": partial(template_version, name=f"{which}VersionNumber") for which in ("Latest", "Default")
            },
        ),
        "AWS::SSM::Parameter": ResourceType(
            lambda client, properties, default_name: put_parameter(client, {"Name": default_name} | properties, overwrite=False),
            lambda client, name, properties: put_parameter(client, {"Name": name} | properties, overwrite=True),
            lambda client, name, properties: client("ssm").delete_parameter(Name=name),
            ("Name", "Type", "Value", "Description"),
            create_only=("Name",),
            primary_identifier="Name",
            find=lambda client, name: client("ssm").get_parameters(Names=[name])["Parameters"],
        ),
        "AWS::SecretsManager::Secret": ResourceType(
            create_secret,
            update_secret,
            # CloudFormation gives no days to think it over (cloudformation-coverage-roadmap, issue 1999).
            lambda client, arn, properties: client("secretsmanager").delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True),
            ("Name", "Description", "SecretString"),
            create_only=("Name",),
        ),
        "AWS::Budgets::Budget": ResourceType(
            create_budget,
            update_budget,
            lambda client, name, properties: client("budgets").delete_budget(AccountId=wire.ACCOUNT, BudgetName=name),
            ("Budget", "NotificationsWithSubscribers"),
            create_only=("Budget.BudgetName", "NotificationsWithSubscribers"),
        ),
    }
)


def spare_name(stack: str, logical: str) -> str:
    return f"{stack}-{logical}-{secrets.token_hex(6).upper()}"
