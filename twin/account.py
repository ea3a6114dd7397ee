"""Creates in an empty account what setting it up on AWS would create, by the same ordinary API calls."""

import json
from collections.abc import Callable
from functools import cache

import boto3

# What the scripts of a box do with its role: its own stop is among it.
BOX_ACTIONS = [
    *("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload"),
    *("secretsmanager:GetSecretValue", "ssm:GetParameter", "ssm:GetParameters"),
    *("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"),
    *("ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:DescribeImages"),
    *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams", "logs:DescribeLogGroups"),
    *("ec2:StopInstances", "ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeTags", "ec2:CreateTags"),
]
AGENT_POLICY = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"


def create(account: dict, hub_token: str, webhook: str = "") -> None:
    """Whichever of bucket, repository, instance profile, log group, stack, secrets and parameters are named; an empty account else.

    A secret without a value is the Hub token; `webhook` names the one that holds the address of this world's receiver.
    """
    client = cache(boto3.Session(region_name=account["region"]).client)  # each takes a fortieth of a second to make
    place = {} if account["region"] == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": account["region"]}}
    if "bucket" in account:
        client("s3").create_bucket(Bucket=account["bucket"], **place)
    if "repository" in account:
        client("ecr").create_repository(repositoryName=account["repository"])
    if "log_group" in account:
        client("logs").create_log_group(logGroupName=account["log_group"])
    if "instance_profile" in account:
        create_profile(client("iam"), account["instance_profile"])
        create_role(client("iam"), f"{account['instance_profile']}-scheduler", "scheduler.amazonaws.com", ["ec2:StopInstances"])
    connect(client("ec2"))
    if "stack" in account:
        create_stack(client, **account["stack"])
    for name, value in account.get("secret", {}).items():
        put_secret(client("secretsmanager"), name, hub_token if value is None else value)
    if account.get("webhook"):
        put_secret(client("secretsmanager"), account["webhook"], webhook)
    for name, value in account.get("parameters", {}).items():
        client("ssm").put_parameter(Name=name, Value=value, Type="String")


def connect(ec2) -> None:
    """The default network's way out, which AWS makes with it and moto does not."""
    network = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [network]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


def create_stack(client: Callable, name: str, template: str, parameters: dict[str, str], tags: list[dict]) -> None:
    """A stack as its owner would make it; a network that is not named is the default one."""
    formation = client("cloudformation")
    if "Vpc" not in parameters:
        networks = client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        parameters = parameters | {"Vpc": networks[0]["VpcId"]}
    stack_parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    where = {"StackName": name, "ChangeSetName": "first"}
    formation.create_change_set(
        **where,
        ChangeSetType="CREATE",
        TemplateBody=template,
        Parameters=stack_parameters,
        Tags=tags,
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    often = {"Delay": 0.2, "MaxAttempts": 300}
    formation.get_waiter("change_set_create_complete").wait(**where, WaiterConfig=often)
    formation.execute_change_set(**where)
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=often)


def put_secret(client, name: str, value: str) -> None:
    try:
        client.create_secret(Name=name, SecretString=value)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=name, SecretString=value)


def create_profile(iam, name: str) -> None:
    """The profile of a box: its agent may talk to SSM, its scripts may do what they do."""
    create_role(iam, name, "ec2.amazonaws.com", BOX_ACTIONS)
    iam.attach_role_policy(RoleName=name, PolicyArn=AGENT_POLICY)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def create_role(iam, name: str, service: str, actions: list[str]) -> None:
    """A role that one service may assume and that may do these actions."""
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))
    iam.put_role_policy(
        RoleName=name, PolicyName="actions", PolicyDocument=document({"Effect": "Allow", "Action": actions, "Resource": "*"})
    )


def document(statement: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
