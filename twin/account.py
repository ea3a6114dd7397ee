"""Creates in an empty account what setting it up on AWS would create, by the same ordinary API calls."""

import json

import boto3

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
AGENT_POLICY = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"


def create(account: dict, hub_token: str) -> None:
    """Bucket, repository, instance profile, log group, secrets and parameters; a secret without a value is the Hub token."""
    session = boto3.Session(region_name=account["region"])
    place = {} if account["region"] == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": account["region"]}}
    session.client("s3").create_bucket(Bucket=account["bucket"], **place)
    session.client("ecr").create_repository(repositoryName=account["repository"])
    session.client("logs").create_log_group(logGroupName=account["log_group"])
    create_profile(session.client("iam"), account["instance_profile"])
    for name, value in account["secret"].items():
        session.client("secretsmanager").create_secret(Name=name, SecretString=hub_token if value is None else value)
    for name, value in account["parameters"].items():
        session.client("ssm").put_parameter(Name=name, Value=value, Type="String")


def create_profile(iam, name: str) -> None:
    """The profile of a box: its agent may talk to SSM."""
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.attach_role_policy(RoleName=name, PolicyArn=AGENT_POLICY)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
