"""CloudFormation on the twin: what a template says is made by ordinary calls, changed, rolled back and removed."""

import json
import time

import pytest
from botocore.exceptions import ClientError

from twin import world

TEMPLATE = """
Parameters:
  Days: {Type: String, Default: "7"}
  Size: {Type: String, AllowedPattern: "[a-z]+"}
  WithSecret: {Type: String, AllowedValues: ["yes", "no"], Default: "yes"}
Conditions:
  Secretive: !And [!Equals [!Ref WithSecret, "yes"], !Not [!Equals [!Ref Size, none]]]
Resources:
  Shown:
    Type: AWS::SSM::Parameter
    Properties: {Type: String, Name: !Sub "/${AWS::StackName}/shown", Value: !If [Secretive, !Sub "${Role.Arn} of ${Group}", plain]}
  Group:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: !Sub "/stack/${AWS::StackName}", RetentionInDays: !Ref Days}
  Store:
    Type: AWS::S3::Bucket
    DeletionPolicy: Retain
    Properties:
      BucketName: !Sub "${AWS::StackName}-store"
      VersioningConfiguration: {Status: Enabled}
      PublicAccessBlockConfiguration: {BlockPublicAcls: true, BlockPublicPolicy: true, IgnorePublicAcls: true, RestrictPublicBuckets: true}
  StorePolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Store
      PolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Deny, Principal: "*", Action: "s3:DeleteBucket", Resource: !Sub "arn:aws:s3:::${Store}"}]
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: !Sub "${AWS::StackName}-role"
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: ec2.amazonaws.com}, Action: "sts:AssumeRole"}]
      Policies: [{PolicyName: own, PolicyDocument: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "s3:Get*", Resource: "*"}]}}]
  Profile:
    Type: AWS::IAM::InstanceProfile
    Properties: {InstanceProfileName: !Sub "${AWS::StackName}-profile", Roles: [!Ref Role]}
  Token:
    Type: AWS::SecretsManager::Secret
    Condition: Secretive
    Properties: {Name: !Sub "${AWS::StackName}/token"}
  Money:
    Type: AWS::Budgets::Budget
    Properties: {Budget: {BudgetName: !Ref AWS::StackName, BudgetType: COST, TimeUnit: MONTHLY, BudgetLimit: {Amount: 50, Unit: USD}}}
  Provider:
    Type: AWS::IAM::OIDCProvider
    Properties: {Url: !Sub "https://${AWS::StackName}.example.com", ClientIdList: [sts.amazonaws.com]}
Outputs:
  Store: {Value: !Ref Store}
"""


class Stack:
    """What a user does with a stack: ask for a change set, wait, read it, execute it, wait."""

    def __init__(self, cloud, name: str):
        self.cloud, self.name, self.cfn = cloud, name, cloud.cloudformation

    def ask(self, kind: str, template: str = TEMPLATE, capabilities=("CAPABILITY_NAMED_IAM",), tags=(), **parameters: str) -> dict:
        stack_parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in ({"Size": "big"} | parameters).items()]
        where = {"StackName": self.name, "ChangeSetName": "change"}
        request = {"ChangeSetType": kind, "TemplateBody": template, "Parameters": stack_parameters, "Tags": list(tags)}
        self.cfn.create_change_set(**where, **request, Capabilities=list(capabilities))
        return self.settled(lambda: self.cfn.describe_change_set(**where), "Status")

    def execute(self) -> str:
        self.cfn.execute_change_set(StackName=self.name, ChangeSetName="change")
        return self.settled(self.describe, "StackStatus")["StackStatus"]

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

    def events(self) -> dict[str, str]:
        return {
            event["ResourceStatusReason"]: event["ResourceStatus"]
            for event in self.cfn.describe_stack_events(StackName=self.name)["StackEvents"]
        }


def actions(change_set: dict) -> dict[str, tuple]:
    changes = [change["ResourceChange"] for change in change_set["Changes"]]
    return {change["LogicalResourceId"]: (change["Action"], change.get("Replacement")) for change in changes}


@pytest.fixture(scope="module")
def stack(cloud):
    made = Stack(cloud, "first")
    made.change_set = made.ask("CREATE")
    assert made.describe()["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert made.execute() == "CREATE_COMPLETE"
    return made


def test_a_change_set_says_what_it_would_do_and_does_nothing(cloud):
    asked = Stack(cloud, "asked").ask("CREATE")
    assert set(actions(asked).values()) == {("Add", None)} and len(asked["Changes"]) == 9
    assert "asked-store" not in [bucket["Name"] for bucket in cloud.s3.list_buckets()["Buckets"]]


def test_every_resource_is_made_with_what_the_template_says(cloud, stack):
    assert cloud.ssm.get_parameter(Name="/first/shown")["Parameter"]["Value"] == "arn:aws:iam::123456789012:role/first-role of /stack/first"
    assert cloud.logs.describe_log_groups(logGroupNamePrefix="/stack/first")["logGroups"][0]["retentionInDays"] == 7
    assert cloud.s3.get_bucket_versioning(Bucket="first-store")["Status"] == "Enabled"
    assert cloud.s3.get_public_access_block(Bucket="first-store")["PublicAccessBlockConfiguration"]["RestrictPublicBuckets"] is True
    assert json.loads(cloud.s3.get_bucket_policy(Bucket="first-store")["Policy"])["Statement"][0]["Resource"] == "arn:aws:s3:::first-store"
    assert cloud.iam.get_instance_profile(InstanceProfileName="first-profile")["InstanceProfile"]["Roles"][0]["RoleName"] == "first-role"
    assert cloud.iam.get_role_policy(RoleName="first-role", PolicyName="own")["PolicyDocument"]["Statement"][0]["Action"] == "s3:Get*"
    budget = cloud.budgets.describe_budget(AccountId="123456789012", BudgetName="first")["Budget"]
    assert float(budget["BudgetLimit"]["Amount"]) == 50
    assert cloud.iam.get_open_id_connect_provider(OpenIDConnectProviderArn="arn:aws:iam::123456789012:oidc-provider/first.example.com")
    with pytest.raises(cloud.secretsmanager.exceptions.ResourceNotFoundException):
        cloud.secretsmanager.get_secret_value(SecretId="first/token")  # there, and without a value
    assert cloud.secretsmanager.describe_secret(SecretId="first/token")["Name"] == "first/token"
    assert stack.describe()["Outputs"] == [{"OutputKey": "Store", "OutputValue": "first-store"}]


def test_the_same_again_is_no_change(stack):
    again = stack.ask("UPDATE")
    assert (again["Status"], again["ExecutionStatus"], again["Changes"]) == ("FAILED", "UNAVAILABLE", [])
    assert "didn't contain changes" in again["StatusReason"]


def test_a_changed_parameter_changes_what_depends_on_it_and_nothing_else(cloud, stack):
    assert actions(stack.ask("UPDATE", Days="14")) == {"Group": ("Modify", "False")}
    assert stack.execute() == "UPDATE_COMPLETE"
    assert cloud.logs.describe_log_groups(logGroupNamePrefix="/stack/first")["logGroups"][0]["retentionInDays"] == 14
    assert actions(stack.ask("UPDATE", Days="14", WithSecret="no")) == {"Token": ("Remove", None), "Shown": ("Modify", "False")}
    assert stack.execute() == "UPDATE_COMPLETE"
    assert cloud.ssm.get_parameter(Name="/first/shown")["Parameter"]["Value"] == "plain"
    assert "first/token" not in [secret["Name"] for secret in cloud.secretsmanager.list_secrets()["SecretList"]]


def test_who_hears_of_a_budget_cannot_be_changed_under_its_name(cloud):
    fourth = Stack(cloud, "fourth")
    fourth.ask("CREATE")
    assert fourth.execute() == "CREATE_COMPLETE"
    notice = "NotificationsWithSubscribers: [{Notification: {NotificationType: ACTUAL, ComparisonOperator: GREATER_THAN, Threshold: 80}"
    template = TEMPLATE.replace("{Budget: {", notice + ", Subscribers: [{SubscriptionType: EMAIL, Address: me@example.com}]}], Budget: {")
    template = template.replace("Properties: NotificationsWith", "Properties: {NotificationsWith")
    assert actions(fourth.ask("UPDATE", template)) == {"Money": ("Modify", "True")}
    assert fourth.execute() == "UPDATE_ROLLBACK_COMPLETE"
    assert any("Money" in reason for reason in fourth.events())
    fourth.ask("UPDATE", template.replace("BudgetName: !Ref AWS::StackName", "BudgetName: another"))
    assert fourth.execute() == "UPDATE_COMPLETE"
    assert cloud.budgets.describe_budgets(AccountId="123456789012")["Budgets"][-1]["BudgetName"] == "another"


def test_a_tag_that_changes_is_a_change_of_all_that_can_have_one(stack):
    tagged = stack.ask("UPDATE", tags=[{"Key": "made-by", "Value": "me"}], Days="14", WithSecret="no")
    assert {change["ResourceChange"]["Scope"][0] for change in tagged["Changes"]} == {"Tags"}
    assert "Group" in actions(tagged) and "StorePolicy" not in actions(tagged)
    assert stack.execute() == "UPDATE_COMPLETE"
    assert stack.describe()["Tags"] == [{"Key": "made-by", "Value": "me"}]
    assert stack.ask("UPDATE", Days="14", WithSecret="no")["Status"] == "FAILED"  # no tags are said: they stay


def test_a_name_that_changes_means_another_resource(cloud, stack):
    renamed = TEMPLATE.replace("/stack/${AWS::StackName}", "/other/${AWS::StackName}")
    assert actions(stack.ask("UPDATE", renamed, Days="14", WithSecret="no")) == {"Group": ("Modify", "True")}
    assert stack.execute() == "UPDATE_COMPLETE"
    groups = [group["logGroupName"] for group in cloud.logs.describe_log_groups()["logGroups"]]
    assert "/other/first" in groups and "/stack/first" not in groups


@pytest.mark.parametrize(("deletion", "stays"), [("RetainExceptOnCreate", False), ("Retain", True)])
def test_a_stack_that_cannot_be_made_takes_back_what_it_made(cloud, deletion, stays):
    if not stays:  # the last that the template makes is there already
        cloud.iam.create_open_id_connect_provider(Url="https://second.example.com", ClientIDList=["theirs"])
    second = Stack(cloud, "second")
    second.ask("CREATE", TEMPLATE.replace("DeletionPolicy: Retain", f"DeletionPolicy: {deletion}"))
    assert second.execute() == "ROLLBACK_COMPLETE"
    assert any("failed: [Provider]" in reason for reason in second.events())
    assert ("second-store" in [bucket["Name"] for bucket in cloud.s3.list_buckets()["Buckets"]]) is stays
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        second.ask("UPDATE")
    assert second.delete() == "DELETE_COMPLETE"


def test_a_change_that_fails_leaves_the_stack_as_it_was(cloud):
    third = Stack(cloud, "third")
    third.ask("CREATE")
    assert third.execute() == "CREATE_COMPLETE"
    cloud.logs.create_log_group(logGroupName="/taken/third")
    third.ask("UPDATE", TEMPLATE.replace("/stack/${AWS::StackName}", "/taken/${AWS::StackName}"), WithSecret="no")
    assert third.execute() == "UPDATE_ROLLBACK_COMPLETE"
    assert cloud.ssm.get_parameter(Name="/third/shown")["Parameter"]["Value"].endswith("/stack/third")
    assert third.ask("UPDATE")["Status"] == "FAILED"  # nothing to change
    cloud.logs.delete_log_group(logGroupName="/taken/third")


def test_a_roll_back_that_fails_too_may_be_continued(cloud):
    """https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-continueupdaterollback.html"""
    seventh = Stack(cloud, "seventh")
    seventh.ask("CREATE")
    assert seventh.execute() == "CREATE_COMPLETE"
    notice = "NotificationsWithSubscribers: [{Notification: {NotificationType: ACTUAL, ComparisonOperator: GREATER_THAN, Threshold: 80}"
    template = TEMPLATE.replace("{Budget: {", notice + ", Subscribers: [{SubscriptionType: EMAIL, Address: me@example.com}]}], Budget: {")
    seventh.ask("UPDATE", template.replace("Properties: NotificationsWith", "Properties: {NotificationsWith"), Days="14")
    world.fault(cloud.state, "access-denied", only="logs.PutRetentionPolicy", after=1)  # the change passes, what takes it back does not
    assert seventh.execute() == "UPDATE_ROLLBACK_FAILED"
    with pytest.raises(ClientError, match="UPDATE_ROLLBACK_FAILED state and can not be updated"):
        seventh.ask("UPDATE")
    cloud.cloudformation.continue_update_rollback(StackName="seventh")
    assert seventh.settled(seventh.describe, "StackStatus")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert cloud.logs.describe_log_groups(logGroupNamePrefix="/stack/seventh")["logGroups"][0]["retentionInDays"] == 7
    assert seventh.ask("UPDATE")["Status"] == "FAILED"  # nothing to change


def test_a_new_stack_whose_roll_back_fails_can_only_be_deleted(cloud):
    """https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events-status-codes.html"""
    cloud.iam.create_open_id_connect_provider(Url="https://eighth.example.com", ClientIDList=["theirs"])
    eighth = Stack(cloud, "eighth")
    eighth.ask("CREATE")
    world.fault(cloud.state, "access-denied", only="logs.DeleteLogGroup")
    assert eighth.execute() == "ROLLBACK_FAILED"
    left = cloud.cloudformation.list_stack_resources(StackName="eighth")["StackResourceSummaries"]
    assert [one["LogicalResourceId"] for one in left] == ["Group"]
    with pytest.raises(ClientError, match="ROLLBACK_FAILED state and can not be updated"):
        eighth.ask("UPDATE")
    assert eighth.delete() == "DELETE_COMPLETE"
    assert cloud.logs.describe_log_groups(logGroupNamePrefix="/stack/eighth")["logGroups"] == []


def test_a_deleted_stack_leaves_only_what_it_retains(cloud, stack):
    assert stack.delete() == "DELETE_COMPLETE"
    assert "first-store" in [bucket["Name"] for bucket in cloud.s3.list_buckets()["Buckets"]]
    assert "first-role" not in [role["RoleName"] for role in cloud.iam.list_roles()["Roles"]]
    with pytest.raises(cloud.ssm.exceptions.ParameterNotFound):
        cloud.ssm.get_parameter(Name="/first/shown")
    with pytest.raises(ClientError, match="Stack with id first does not exist"):
        stack.describe()
    again = Stack(cloud, "first")
    assert again.ask("CREATE")["Status"] == "FAILED"  # the bucket is there, and no stack made it


def test_a_change_set_that_would_make_what_exists_fails_and_only_its_events_name_it(cloud):
    """https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html; the words are of rain, pull 744."""
    cloud.iam.create_role(RoleName="fifth-role", AssumeRolePolicyDocument="{}")
    cloud.ssm.put_parameter(Name="/fifth/shown", Value="mine", Type="String")
    fifth = Stack(cloud, "fifth")
    asked = fifth.ask("CREATE")
    assert (asked["Status"], asked["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "AWS::EarlyValidation::ResourceExistenceCheck" in asked["StatusReason"] and "fifth" not in asked["StatusReason"]
    where = {"StackName": "fifth", "ChangeSetName": "change"}
    events = cloud.cloudformation.describe_events(**where, Filters={"FailedEvents": True})["OperationEvents"]
    reasons = {event["LogicalResourceId"]: event["ValidationStatusReason"] for event in events}
    assert reasons == {
        "Role": "Resource of type 'AWS::IAM::Role' with identifier 'fifth-role' already exists.",
        "Shown": "Resource of type 'AWS::SSM::Parameter' with identifier '/fifth/shown' already exists.",
    }
    about = {(event["EventType"], event["ValidationName"], event["ValidationFailureMode"]) for event in events}
    assert about == {("VALIDATION_ERROR", "NAME_CONFLICT_VALIDATION", "FAIL")}
    with pytest.raises(ClientError, match="cannot be executed in its current status"):
        cloud.cloudformation.execute_change_set(**where)
    assert cloud.cloudformation.describe_stack_events(StackName="fifth")["StackEvents"][0]["ResourceStatus"] == "REVIEW_IN_PROGRESS"
    cloud.cloudformation.create_change_set(
        StackName="fifth",
        ChangeSetName="unvalidated",
        ChangeSetType="CREATE",
        TemplateBody=TEMPLATE,
        Parameters=[{"ParameterKey": "Size", "ParameterValue": "big"}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
        DisableValidation=True,
    )
    which = {"StackName": "fifth", "ChangeSetName": "unvalidated"}
    shown = fifth.settled(lambda: cloud.cloudformation.describe_change_set(**which), "Status")
    assert shown["Status"] == "CREATE_COMPLETE" and len(shown["Changes"]) == 9


def test_names_are_looked_for_where_the_registrys_schema_has_a_primary_identifier_that_one_may_set():
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    from twin.aws.cloudformation.resources import RESOURCE_TYPES

    for type, kind in RESOURCE_TYPES.items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", type).schema
        settable = [path for path in schema["primaryIdentifier"] if path not in schema.get("readOnlyProperties", [])]
        assert settable == ([f"/properties/{kind.primary_identifier}"] if kind.primary_identifier else []), type


def many(count: int, ahead: int = 0) -> str:
    """A template of so many parameters, each of which waits for the one so many before it."""
    lines = ["Resources:"]
    for n in range(count):
        after = f", DependsOn: P{n - ahead}" if ahead and n >= ahead else ""
        lines.append(f"  P{n}: {{Type: AWS::SSM::Parameter{after}, Properties: {{Type: String, Name: /many/{count}/{n}, Value: x}}}}")
    return "\n".join(lines)


def test_parameters_that_are_made_all_at_once_are_throttled_and_chained_ones_are_not(cloud):
    """PutParameter takes 3 a second (terraform-aws-github-runner 2944); groups of five pass (cfn-cross-region-export, pull 8)."""

    def made(name: str, template: str) -> tuple[str, list[str]]:
        where = {"StackName": name, "ChangeSetName": "change"}
        cloud.cloudformation.create_change_set(**where, ChangeSetType="CREATE", TemplateBody=template)
        made_stack = Stack(cloud, name)
        made_stack.settled(lambda: cloud.cloudformation.describe_change_set(**where), "Status")
        return made_stack.execute(), list(made_stack.events())

    status, reasons = made("at-once", many(12))
    assert status == "ROLLBACK_COMPLETE" and any("Rate exceeded" in reason for reason in reasons)
    assert made("in-threes", many(12, ahead=3))[0] == "CREATE_COMPLETE"
    assert made("in-fives", many(15, ahead=5))[0] == "CREATE_COMPLETE"


def test_events_say_which_operation_they_are_of(cloud):
    sixth = Stack(cloud, "sixth")
    sixth.ask("CREATE")
    cloud.cloudformation.execute_change_set(StackName="sixth", ChangeSetName="change", ClientRequestToken="first-try")
    sixth.settled(sixth.describe, "StackStatus")
    id = sixth.describe()["StackId"]
    cloud.cloudformation.delete_stack(StackName="sixth", ClientRequestToken="away")
    sixth.settled(lambda: cloud.cloudformation.describe_stacks(StackName=id)["Stacks"][0], "StackStatus")
    events = cloud.cloudformation.describe_stack_events(StackName=id)["StackEvents"]
    tokens = [event.get("ClientRequestToken") for event in events]
    assert set(tokens) == {None, "first-try", "away"} and tokens == sorted(tokens, key=["away", "first-try", None].index)
    (operation,) = {event["OperationId"] for event in events if event.get("ClientRequestToken") == "away"}
    of_operation = cloud.cloudformation.describe_events(OperationId=operation)["OperationEvents"]
    assert {(event["OperationType"], event["EventType"]) for event in of_operation} == {("DELETE_STACK", "STACK_EVENT")}


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        (("AWS::Logs::LogGroup", "AWS::Lambda::Function"), {}, "Unrecognized resource types: \\[AWS::Lambda::Function\\]"),
        (("RetentionInDays:", "KmsKeyId: x, RetentionInDays:"), {}, "does not know the properties KmsKeyId"),
        (("!Ref Days", "!Ref Hours"), {}, "Hours"),
        ((" ", " "), {"Size": "BIG"}, "Size.*must match pattern"),
        ((" ", " "), {"WithSecret": "perhaps"}, "AllowedValues"),
        ((" ", " "), {"Colour": "red"}, "Parameters: \\[Colour\\] do not exist"),
        ((" ", " "), {"capabilities": ()}, "CAPABILITY_NAMED_IAM"),
    ],
)
def test_a_template_that_aws_would_refuse_is_refused(cloud, change, parameters, message):
    with pytest.raises(ClientError, match=message):
        Stack(cloud, "refused").ask("CREATE", TEMPLATE.replace(*change), **parameters)


def test_a_launch_takes_from_its_template_what_it_does_not_say_itself(cloud):
    group = cloud.ec2.create_security_group(GroupName="closed", Description="nothing comes in")["GroupId"]
    data = {
        "IamInstanceProfile": {"Name": "box"},
        "SecurityGroupIds": [group],
        "InstanceType": "g6.2xlarge",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    cloud.ec2.create_launch_template(LaunchTemplateName="usual", LaunchTemplateData=data)
    named = {"LaunchTemplateName": "usual", "Version": "$Latest"}
    made = cloud.ec2.run_instances(
        ImageId=cloud.image(), MinCount=1, MaxCount=1, LaunchTemplate=named, InstanceInitiatedShutdownBehavior="stop"
    )
    instance = made["Instances"][0]["InstanceId"]
    launched = cloud.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert launched["InstanceType"] == "g6.2xlarge" and launched["IamInstanceProfile"]["Arn"].endswith("/box")
    assert [one["GroupId"] for one in launched["SecurityGroups"]] == [group]
    assert launched["MetadataOptions"]["HttpTokens"] == "required" and launched["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    behaviour = cloud.ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "stop"
    with pytest.raises(ClientError, match="does not exist"):
        cloud.ec2.run_instances(ImageId=cloud.image(), MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateName": "unusual"})
    cloud.ec2.terminate_instances(InstanceIds=[instance])
