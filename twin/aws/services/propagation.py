"""What AWS does not see at once: EC2 a new instance profile, the scheduler a new role, Parameter Store that a name has gone."""

from collections.abc import Callable

from twin.aws import wire
from twin.aws.iam.keys import OWNER  # may do everything at once: tests put an account into the state that they are about

UNSEEN = 1.0  # seconds; on AWS mostly some ten
GONE = 30  # seconds: "wait for at least 30 seconds to create a parameter with the same name" (API, DeleteParameter)
TAKEN = "The parameter already exists. To overwrite this value, set the overwrite option in the request to true."


class Propagation:
    def __init__(self, now: Callable[[], float]):
        self.now = now
        self.unseen = UNSEEN
        self.made: dict[tuple[str, str], float] = {}  # the kind and name of a role or profile to when it became what it is
        self.deleted: dict[str, float] = {}  # a parameter's name to when a client deleted it; stacks are taken to wait themselves
        self.operations: dict[str, wire.Handler] = {
            "ssm.DeleteParameter": self.delete,
            "ssm.DeleteParameters": self.delete,
            "ssm.PutParameter": self.put,
            "iam.CreateInstanceProfile": self.record,
            "iam.AddRoleToInstanceProfile": self.record,
            "iam.CreateRole": self.record,
            "ec2.RunInstances": self.run,
            "scheduler.POST": self.schedule,
        }

    def record(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response, kind = forward(request), "RoleName" if request.operation == "CreateRole" else "InstanceProfileName"
        if response.status_code == 200:
            self.made[kind, request.parameters[kind]] = self.now()
        return response

    def is_new(self, kind: str, arn: str) -> bool:
        return self.now() < self.made.get((kind, arn.rpartition("/")[2]), 0) + self.unseen

    def run(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The words are those of hashicorp/terraform issue 9474 and of aws-sdk-js-v3 issue 5253."""
        parameters = request.parameters
        kind = "name" if "IamInstanceProfile.Name" in parameters else "ARN"
        value = parameters.get("IamInstanceProfile.Name") or parameters.get("IamInstanceProfile.Arn", "")
        if self.is_new("InstanceProfileName", value):
            what = f"Value ({value}) for parameter iamInstanceProfile.{kind.lower()} is invalid."
            raise wire.Refusal("InvalidParameterValue", f"{what} Invalid IAM Instance Profile {kind}")
        return forward(request)

    def schedule(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The words are those for which terraform-provider-aws tries again."""
        if request.path.startswith("/schedules/") and self.is_new("RoleName", request.json["Target"]["RoleArn"]):
            message = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
            raise wire.Refusal("ValidationException", message)
        return forward(request)

    def delete(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        if response.status_code == 200 and request.by != OWNER and not request.via:
            parameters = request.parameters
            self.deleted |= dict.fromkeys(parameters.get("Names") or [parameters["Name"]], self.now())
        return response

    def put(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        parameters = request.parameters
        if not parameters.get("Overwrite") and self.now() < self.deleted.get(parameters["Name"], 0) + GONE:
            raise wire.Refusal("ParameterAlreadyExists", TAKEN)
        return forward(request)
