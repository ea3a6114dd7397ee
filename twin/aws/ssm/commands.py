"""Commands and their invocations: what Run Command knows of them, and the shapes in which it shows them."""

import time
import uuid
from dataclasses import dataclass, field

DOCUMENT = "AWS-RunShellScript"
DEFAULTS = {"workingDirectory": "", "executionTimeout": "3600"}  # of the document's parameters
OUTPUT_LIMIT, ERROR_LIMIT = 24_000, 8_000  # characters
ENDED = {"Success", "Failed", "TimedOut", "Cancelled"}


@dataclass
class Invocation:
    """One command on one instance."""

    instance: str
    status: str = "Pending"
    details: str = "Pending"
    code: int = -1
    output: str = ""
    error: str = ""
    started: str = ""
    ended: str = ""

    def end(self, status: str, details: str, code: int = -1) -> None:
        self.status, self.details, self.code = status, details, code


@dataclass
class Command:
    request: dict
    requested: float
    region: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    invocations: dict[str, Invocation] = field(default_factory=dict)

    @property
    def expires(self) -> float:
        """When an undelivered command is given up: both timeouts together, as the real service was observed to do."""
        execution = self.request["Parameters"].get("executionTimeout", [DEFAULTS["executionTimeout"]])[0]
        return self.requested + self.request.get("TimeoutSeconds", 3600) + int(execution)

    @property
    def status(self) -> str:
        """Of all invocations together; a command has no status Delayed, and none that found no instance has failed."""
        statuses = {"Pending" if one.status == "Delayed" else one.status for one in self.invocations.values()} or {"Success"}
        order = ("InProgress", "Cancelling", "Pending", "Failed", "TimedOut", "Cancelled", "Success")
        return next(status for status in order if status in statuses)

    @property
    def details(self) -> str:
        if not self.invocations:
            return "NoInstancesInTag"
        return next((one.details for one in self.invocations.values() if one.status == self.status), self.status)

    @property
    def log_group(self) -> str:
        """Where CloudWatch has its output; empty when it was not asked for."""
        wanted = self.request.get("CloudWatchOutputConfig", {})
        if not wanted.get("CloudWatchOutputEnabled"):
            return ""
        return wanted.get("CloudWatchLogGroupName") or f"/aws/ssm/{DOCUMENT}"

    def output_url(self, instance: str, name: str) -> str:
        bucket, prefix = self.request.get("OutputS3BucketName", ""), self.request.get("OutputS3KeyPrefix", "").strip("/")
        if not bucket:
            return ""
        place = f"{self.id}/{instance}/awsrunShellScript/0.awsrunShellScript/{name}"
        return f"https://s3.{self.region}.amazonaws.com/{bucket}/{prefix + '/' if prefix else ''}{place}"


def finish(invocation: Invocation, status: str, plugin: dict) -> None:
    details = "Execution Timed Out" if status == "TimedOut" else status
    invocation.end(status, details, plugin.get("code", -1))
    invocation.output = plugin.get("standardOutput", "")[:OUTPUT_LIMIT]
    invocation.error = plugin.get("standardError", "")[:ERROR_LIMIT]
    invocation.started = plugin.get("startDateTime", invocation.started)
    invocation.ended = plugin.get("endDateTime", "")


def payload(command: Command) -> dict:
    """What the agent gets: the document, which still has its placeholders, and the parameters that go into them."""
    parameters = {name: values[0] for name, values in command.request["Parameters"].items() if name != "commands"}
    inputs = {"runCommand": "{{ commands }}", "workingDirectory": "{{ workingDirectory }}", "timeoutSeconds": "{{ executionTimeout }}"}
    properties = [{"id": "0.aws:runShellScript"} | inputs]
    return {
        "CommandId": command.id,
        "DocumentName": DOCUMENT,
        "Parameters": DEFAULTS | parameters | {"commands": command.request["Parameters"]["commands"]},
        "DocumentContent": {"schemaVersion": "1.2", "runtimeConfig": {"aws:runShellScript": {"properties": properties}}},
        "OutputS3BucketName": command.request.get("OutputS3BucketName", ""),
        "OutputS3KeyPrefix": command.request.get("OutputS3KeyPrefix", ""),
        "CloudWatchLogGroupName": command.log_group,
        "CloudWatchOutputEnabled": "true" if command.log_group else "false",
    }


def described(command: Command) -> dict:
    """The command as SendCommand and ListCommands show it."""
    ended = [invocation for invocation in command.invocations.values() if invocation.status in ENDED]
    return {
        "CommandId": command.id,
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "Comment": command.request.get("Comment", ""),
        "ExpiresAfter": command.expires,
        "Parameters": command.request["Parameters"],
        "InstanceIds": command.request.get("InstanceIds", []),
        "Targets": command.request.get("Targets", []),
        "RequestedDateTime": command.requested,
        "Status": command.status,
        "StatusDetails": command.details,
        "MaxConcurrency": "50",
        "MaxErrors": "0",
        "TargetCount": len(command.invocations),
        "CompletedCount": len(ended),
        "ErrorCount": len([one for one in ended if one.status in ("Failed", "TimedOut")]),
        "DeliveryTimedOutCount": len([one for one in ended if one.details == "Delivery Timed Out"]),
        "TimeoutSeconds": command.request.get("TimeoutSeconds", 3600),
    }


def detailed(command: Command, invocation: Invocation) -> dict:
    """The invocation as GetCommandInvocation shows it."""
    return common(command, invocation) | {
        "PluginName": "aws:runShellScript",
        "ResponseCode": invocation.code,
        "ExecutionStartDateTime": invocation.started,
        "ExecutionElapsedTime": "",
        "ExecutionEndDateTime": invocation.ended,
        "StandardOutputContent": invocation.output,
        "StandardErrorContent": invocation.error,
    }


def listed(command: Command, invocation: Invocation, details: bool) -> dict:
    """The invocation as ListCommandInvocations shows it."""
    shown = common(command, invocation) | {"RequestedDateTime": command.requested, "CommandPlugins": []}
    if details:
        output = (invocation.output + ("\n----------ERROR-------\n" + invocation.error if invocation.error else ""))[:2500]
        plugin = {"Name": "aws:runShellScript", "Status": invocation.status, "StatusDetails": invocation.details}
        shown["CommandPlugins"] = [plugin | {"ResponseCode": invocation.code, "Output": output}]
    return shown


def common(command: Command, invocation: Invocation) -> dict:
    return {
        "CommandId": command.id,
        "InstanceId": invocation.instance,
        "Comment": command.request.get("Comment", ""),
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "Status": invocation.status,
        "StatusDetails": invocation.details,
        "StandardOutputUrl": command.output_url(invocation.instance, "stdout"),
        "StandardErrorUrl": command.output_url(invocation.instance, "stderr"),
        "CloudWatchOutputConfig": {"CloudWatchLogGroupName": command.log_group, "CloudWatchOutputEnabled": bool(command.log_group)},
    }


def stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))
