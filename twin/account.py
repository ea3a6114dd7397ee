"""Creates in an empty account what setting it up on AWS would create, by the same ordinary API calls."""

import json

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


def create(account: dict, hub_token: str) -> None:
    """Bucket, repository, instance profile, log group, secrets and parameters; a secret without a value is the Hub token."""
    session = boto3.Session(region_name=account["region"])
    place = {} if account["region"] == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": account["region"]}}
    session.client("s3").create_bucket(Bucket=account["bucket"], **place)
    session.client("ecr").create_repository(repositoryName=account["repository"])
    session.client("logs").create_log_group(logGroupName=account["log_group"])
    policies = account.get("policies", {})
    create_profile(session.client("iam"), account["instance_profile"], policies.get("box"))
    scheduler = account.get("scheduler_role") or f"{account['instance_profile']}-scheduler"
    create_role(session.client("iam"), scheduler, "scheduler.amazonaws.com", policies.get("scheduler") or may(["ec2:StopInstances"]))
    connect(session.client("ec2"))
    for name, value in account["secret"].items():
        session.client("secretsmanager").create_secret(Name=name, SecretString=hub_token if value is None else value)
    for name, value in account["parameters"].items():
        session.client("ssm").put_parameter(Name=name, Value=value, Type="String")


def connect(ec2) -> None:
    """The default network's way out, which AWS makes with it and moto does not."""
    network = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [network]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


def create_profile(iam, name: str, policy: dict | None) -> None:
    """The profile of a box; without a policy of its own its agent may talk to SSM and its scripts may do what such scripts do."""
    create_role(iam, name, "ec2.amazonaws.com", policy or may(BOX_ACTIONS))
    if not policy:
        iam.attach_role_policy(RoleName=name, PolicyArn=AGENT_POLICY)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def create_role(iam, name: str, service: str, policy: dict) -> None:
    """A role that one service may assume, with this policy."""
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document(trust)))
    iam.put_role_policy(RoleName=name, PolicyName="actions", PolicyDocument=json.dumps(policy))


def may(actions: list[str]) -> dict:
    return document({"Effect": "Allow", "Action": actions, "Resource": "*"})


def document(statement: dict) -> dict:
    return {"Version": "2012-10-17", "Statement": [statement]}
