"""The resource types of a fleet: made, changed and removed with their stack, and the ends of instances told to its log group."""

import json
import time

import pytest

from twin import world

TEMPLATE = """
Parameters:
  Most: {Type: Number, Default: "16"}
  Types: {Type: CommaDelimitedList, Default: "g6.2xlarge, g6.xlarge"}
  Subnet: {Type: String}
  Wait: {Type: Number, Default: "600"}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: !Sub "${AWS::StackName}-fleet"
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: ec2.amazonaws.com}, Action: "sts:AssumeRole"}]
  Profile:
    Type: AWS::IAM::InstanceProfile
    Properties: {InstanceProfileName: !Sub "${AWS::StackName}-fleet", Roles: [!Ref Role]}
  Launch:
    Type: AWS::EC2::LaunchTemplate
    Properties: {LaunchTemplateName: !Sub "${AWS::StackName}-fleet", LaunchTemplateData: {MetadataOptions: {HttpTokens: required}}}
  Spot:
    Type: AWS::Batch::ComputeEnvironment
    Properties:
      ComputeEnvironmentName: !Sub "${AWS::StackName}-spot"
      Type: MANAGED
      ReplaceComputeEnvironment: false
      ComputeResources:
        Type: SPOT
        AllocationStrategy: SPOT_PRICE_CAPACITY_OPTIMIZED
        MinvCpus: 0
        MaxvCpus: !Ref Most
        InstanceTypes: !Ref Types
        InstanceRole: !GetAtt Profile.Arn
        Subnets: [!Ref Subnet]
        LaunchTemplate: {LaunchTemplateId: !Ref Launch, Version: $Default}
        Tags: {"my:fleet": !Ref AWS::StackName}
  Queue:
    Type: AWS::Batch::JobQueue
    Properties:
      JobQueueName: !Sub "${AWS::StackName}-spot"
      Priority: 1
      ComputeEnvironmentOrder: [{Order: 1, ComputeEnvironment: !Ref Spot}]
      JobStateTimeLimitActions:
        - {Action: CANCEL, State: RUNNABLE, Reason: "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", MaxTimeSeconds: !Ref Wait}
  Ends:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: !Sub "/${AWS::StackName}/ends"}
  EndsPolicy:
    Type: AWS::Logs::ResourcePolicy
    Properties:
      PolicyName: !Sub "${AWS::StackName}-ends"
      PolicyDocument: !Sub >-
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"},
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": "arn:aws:logs:${AWS::Region}:${AWS::AccountId}:log-group:${Ends}:*"}]}
  EndsRule:
    Type: AWS::Events::Rule
    Properties:
      Name: !Sub "${AWS::StackName}-ends"
      EventPattern:
        source: [aws.ec2]
        detail-type: [EC2 Instance State-change Notification]
        detail: {state: [shutting-down, terminated]}
      Targets: [{Id: log, Arn: !Sub "arn:aws:logs:${AWS::Region}:${AWS::AccountId}:log-group:${Ends}"}]
Outputs:
  Queue: {Value: !Ref Queue}
"""


class Stack:
    def __init__(self, cloud, name: str, template: str = TEMPLATE):
        self.cloud, self.name, self.template, self.cfn = cloud, name, template, cloud.cloudformation
        self.subnet = cloud.ec2.describe_subnets()["Subnets"][0]["SubnetId"]

    def change(self, kind: str, **parameters: str) -> tuple[str, dict]:
        """How it ended, and what the change set said of each resource."""
        values = [{"ParameterKey": key, "ParameterValue": value} for key, value in ({"Subnet": self.subnet} | parameters).items()]
        where = {"StackName": self.name, "ChangeSetName": "change"}
        request = {"ChangeSetType": kind, "TemplateBody": self.template, "Parameters": values}
        self.cfn.create_change_set(**where, **request, Capabilities=["CAPABILITY_NAMED_IAM"])
        changes = self.settled(lambda: self.cfn.describe_change_set(**where), "Status")["Changes"]
        said = {one["ResourceChange"]["LogicalResourceId"]: one["ResourceChange"].get("Replacement") for one in changes}
        self.cfn.execute_change_set(**where)
        return self.settled(self.describe, "StackStatus")["StackStatus"], said

    def describe(self) -> dict:
        return self.cfn.describe_stacks(StackName=self.name)["Stacks"][0]

    def delete(self) -> str:
        id = self.describe()["StackId"]
        self.cfn.delete_stack(StackName=self.name)
        return self.settled(lambda: self.cfn.describe_stacks(StackName=id)["Stacks"][0], "StackStatus")["StackStatus"]

    def settled(self, describe, key: str) -> dict:
        deadline = time.monotonic() + 900
        while (description := describe())[key].endswith("IN_PROGRESS"):
            assert time.monotonic() < deadline, description
            time.sleep(0.03)
        return description

    def reasons(self) -> list[str]:
        return [one["ResourceStatusReason"] for one in self.cfn.describe_stack_events(StackName=self.name)["StackEvents"]]

    def environment(self) -> dict:
        (found,) = self.cloud.batch.describe_compute_environments(computeEnvironments=[f"{self.name}-spot"])["computeEnvironments"]
        return found

    def queue(self) -> dict:
        (found,) = self.cloud.batch.describe_job_queues(jobQueues=[f"{self.name}-spot"])["jobQueues"]
        return found


@pytest.fixture(scope="module")
def stack(cloud):
    made = Stack(cloud, "fleet-one")
    assert made.change("CREATE")[0] == "CREATE_COMPLETE", made.reasons()
    return made


def test_environment_and_queue_are_as_the_template_says(stack):
    environment, queue = stack.environment(), stack.queue()
    resources = environment["computeResources"]
    assert (environment["status"], environment["state"], environment["type"]) == ("VALID", "ENABLED", "MANAGED")
    assert (resources["maxvCpus"], resources["instanceTypes"], resources["minvCpus"]) == (16, ["g6.2xlarge", "g6.xlarge"], 0)
    assert resources["tags"] == {"my:fleet": "fleet-one"}
    assert queue["computeEnvironmentOrder"] == [{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}]
    assert queue["jobStateTimeLimitActions"][0]["maxTimeSeconds"] == 600
    assert stack.describe()["Outputs"] == [{"OutputKey": "Queue", "OutputValue": queue["jobQueueArn"]}]


def test_a_ceiling_changes_in_place_and_other_types_too_where_the_template_asks_for_that(stack):
    status, changes = stack.change("UPDATE", Most="8", Types="g6.4xlarge", Wait="1200")
    assert status == "UPDATE_COMPLETE" and changes == {"Spot": "False", "Queue": "False"}
    assert stack.environment()["computeResources"]["maxvCpus"] == 8
    assert stack.environment()["computeResources"]["instanceTypes"] == ["g6.4xlarge"]
    assert stack.queue()["jobStateTimeLimitActions"][0]["maxTimeSeconds"] == 1200


def test_by_default_other_instance_types_mean_another_environment(cloud):
    made = Stack(cloud, "fleet-two", TEMPLATE.replace("      ReplaceComputeEnvironment: false\n", ""))
    assert made.change("CREATE")[0] == "CREATE_COMPLETE", made.reasons()
    status, changes = made.change("UPDATE", Types="g6.4xlarge")
    assert changes["Spot"] == "True"
    assert status == "UPDATE_ROLLBACK_COMPLETE"  # its name is taken by the one that it would replace
    assert made.environment()["computeResources"]["instanceTypes"] == ["g6.2xlarge", "g6.xlarge"]
    assert made.delete() == "DELETE_COMPLETE"


def test_an_environment_that_could_launch_nothing_fails_the_stack(cloud):
    made = Stack(cloud, "fleet-three")
    assert made.change("CREATE", Subnet="subnet-00000000")[0] == "ROLLBACK_COMPLETE"
    assert any("CLIENT_ERROR - The subnet ID 'subnet-00000000' does not exist" in reason for reason in made.reasons())
    assert cloud.batch.describe_compute_environments(computeEnvironments=["fleet-three-spot"])["computeEnvironments"] == []


def ends(cloud, group: str) -> list[dict]:
    return [json.loads(one["message"]) for one in cloud.logs.filter_log_events(logGroupName=group)["events"]]


def test_the_end_of_an_instance_is_told_to_the_log_group_and_to_no_group_that_allows_nothing(cloud, stack, until):
    instance = cloud.launch()
    cloud.logs.create_log_group(logGroupName="/closed")
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:/closed"
    cloud.events.put_rule(Name="closed", EventPattern=json.dumps({"source": ["aws.ec2"]}))
    cloud.events.put_targets(Rule="closed", Targets=[{"Id": "log", "Arn": arn}])
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    events = until(
        lambda: len(found := [one for one in ends(cloud, "/fleet-one/ends") if one["detail"]["instance-id"] == instance]) == 2 and found
    )
    assert [one["detail"]["state"] for one in events] == ["shutting-down", "terminated"]
    assert events[0]["detail-type"] == "EC2 Instance State-change Notification" and events[0]["time"].endswith("Z")
    assert ends(cloud, "/closed") == []


def test_no_rule_delivers_to_a_log_group_by_a_role(cloud):
    cloud.events.put_rule(Name="by-role", EventPattern=json.dumps({"source": ["aws.ec2"]}))
    target = {"Id": "log", "Arn": "arn:aws:logs:us-east-1:123456789012:log-group:/closed", "RoleArn": cloud.role}
    with pytest.raises(cloud.events.exceptions.ClientError, match="RoleArn is not supported for target"):
        cloud.events.put_targets(Rule="by-role", Targets=[target])


def test_the_stack_takes_all_of_it_away(cloud, stack):
    assert stack.delete() == "DELETE_COMPLETE"
    assert cloud.batch.describe_job_queues(jobQueues=["fleet-one-spot"])["jobQueues"] == []
    assert cloud.batch.describe_compute_environments(computeEnvironments=["fleet-one-spot"])["computeEnvironments"] == []
    assert not [one for one in cloud.events.list_rules()["Rules"] if one["Name"].startswith("fleet-one")]
    assert not [one for one in cloud.logs.describe_resource_policies()["resourcePolicies"] if one["policyName"] == "fleet-one-ends"]


def test_the_world_is_still_there(cloud):
    assert world.status(cloud.state)
