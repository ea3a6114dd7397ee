"""CloudFormation: change sets, stacks that create, change, roll back and remove what their template says.

Moto's own answers CREATE_COMPLETE where it has made nothing (bucket policies, secrets, budgets ...), so none of it is used: a stack
here makes the ordinary API calls of each service, with the caller's key, and what they refuse fails the stack as it would on AWS.
"""

import contextlib
import functools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from twin.aws import wire
from twin.aws.cloudformation import handlers, templates
from twin.aws.cloudformation.resource_type import Client
from twin.aws.cloudformation.resources import NOT_FOUND, RESOURCE_TYPES, exists, needs_replacement, spare_name
from twin.aws.cloudformation.templates import invalid

SETTLED = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
NOT_READY = 0.05  # seconds that a change set is not ready, so that a client that does not wait fails here
NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
EXISTENCE = "AWS::EarlyValidation::ResourceExistenceCheck"
INVALID = (
    f"The following hook(s)/validation failed: [{EXISTENCE}]. To troubleshoot Early Validation errors, use the DescribeEvents API for "
)
INVALID += "detailed failure information."
PAGE = 100  # events, or resources, in one answer
PUTS = 5  # parameters that a stack may make at once: more of them have been seen to be throttled
THROTTLED = "Rate exceeded (Service: Ssm, Status Code: 400, Request ID: twin) (HandlerErrorCode: Throttling)"
FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass
class Resource:
    """A resource that a stack has made."""

    type: str
    physical_id: str
    properties: dict
    keep: bool = False  # when the stack goes
    keep_on_rollback: bool = False  # also where making it is taken back: `Retain` does, `RetainExceptOnCreate` does not


@dataclass
class Definition:
    """A template with its parameters: what a stack shall be."""

    text: str
    template: dict
    parameters: dict[str, str]

    def resources(self, scope: templates.Scope) -> dict[str, dict]:
        every = self.template["Resources"]
        return {
            name: every[name]
            for name in templates.ordered(every)
            if "Condition" not in every[name] or scope.evaluate(every[name]["Condition"])
        }


@dataclass
class Stack:
    name: str
    id: str
    status: str = "REVIEW_IN_PROGRESS"
    reason: str = ""
    created: float = 0
    definition: Definition | None = None
    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: list[dict] = field(default_factory=list)
    tags: list[dict] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    change_sets: dict[str, "ChangeSet"] = field(default_factory=dict)
    operation: dict[str, str] = field(default_factory=dict)  # at work, or the last: its id, its type, and the token that the caller gave it

    def begin(self, kind: str, token: str | None) -> None:
        """All events from now on belong to this operation; a roll-back is one of its own, with the token of what it takes back."""
        self.operation = {"OperationId": str(uuid.uuid4()), "OperationType": kind} | ({"ClientRequestToken": token} if token else {})

    def add_event(self, status: str, reason: str = "", logical: str = "", resource: Resource | None = None) -> None:
        if not logical:
            self.status, self.reason = status, reason
        event = {
            "StackId": self.id,
            "EventId": str(uuid.uuid4()),
            "StackName": self.name,
            "LogicalResourceId": logical or self.name,
            "PhysicalResourceId": (resource.physical_id if resource else "") if logical else self.id,
            "ResourceType": resource.type if resource else "AWS::CloudFormation::Stack",
            "Timestamp": datetime.now(UTC).strftime(FORMAT),
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
        }
        self.events.insert(0, event | self.operation)


@dataclass
class ChangeSet:
    name: str
    id: str
    kind: str
    definition: Definition
    changes: list[dict]
    ready: float
    tags: list[dict] = field(default_factory=list)
    execution: str = "AVAILABLE"
    conflicts: list[dict] = field(default_factory=list)  # what stands against it, as DescribeEvents tells


class ResourceFailed(Exception):
    """A resource could not be made as the template says."""


class Stacks:
    def __init__(self, region: str, handle: Callable[[str, Iterable], None], key_for: Callable[[str], str]):
        self.region = region
        self.key_for = key_for  # the key by which to act for a caller
        self.handle = handle  # refuses where the caller may not do what a resource's handler does
        self.stacks: list[Stack] = []
        self.clients: dict[tuple[str, str], Any] = {}
        self.lock = threading.RLock()
        self.operations: dict[str, wire.Handler] = {
            f"cloudformation.{name}": self.answering(name, handler)
            for name, handler in {
                "CreateChangeSet": self.create_change_set,
                "DescribeChangeSet": self.describe_change_set,
                "ExecuteChangeSet": self.execute_change_set,
                "DeleteChangeSet": self.delete_change_set,
                "DescribeStacks": self.describe_stacks,
                "ListStacks": self.list_stacks,
                "ListStackResources": self.list_resources,
                "DescribeStackResources": self.describe_resources,
                "DescribeStackEvents": self.describe_stack_events,
                "DescribeEvents": self.describe_events,
                "GetTemplate": self.get_template,
                "ValidateTemplate": self.validate,
                "DeleteStack": self.delete_stack,
                "ContinueUpdateRollback": self.continue_rollback,
                **dict.fromkeys(("CreateStack", "UpdateStack", "DetectStackDrift", "CreateStackSet"), unsupported),
            }.items()
        }

    def answering(self, name: str, handler: Callable[[wire.Request], dict]) -> wire.Handler:
        def answer(request: wire.Request, forward: wire.Forward) -> wire.Response:
            with self.lock:
                content = element(f"{name}Result", handler(request))
            metadata = "<ResponseMetadata><RequestId>twin</RequestId></ResponseMetadata>"
            space = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
            return wire.Response(f'<{name}Response xmlns="{space}">{content}{metadata}</{name}Response>', content_type="text/xml")

        return answer

    def create_change_set(self, request: wire.Request) -> dict:
        parameters = request.parameters
        stack = self.live(parameters["StackName"])
        kind = parameters.get("ChangeSetType", "UPDATE")
        if kind == "CREATE" and stack and stack.status != "REVIEW_IN_PROGRESS":
            words = f"already exists and cannot be created again with the changeSet [{parameters['ChangeSetName']}]."
            raise invalid(f"Stack [{stack.name}] {words}")
        if kind == "UPDATE" and not stack:
            raise invalid(f"Stack [{parameters['StackName']}] does not exist")
        if kind == "UPDATE" and stack.status not in SETTLED:
            raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")
        definition = self.read_definition(request, stack)
        if not stack:
            stack = Stack(
                parameters["StackName"],
                f"arn:aws:cloudformation:{self.region}:{wire.ACCOUNT}:stack/{parameters['StackName']}/{uuid.uuid4()}",
            )
            stack.created = time.time()
        tags = [{"Key": tag["Key"], "Value": tag["Value"]} for tag in members(parameters, "Tags")] or stack.tags
        client = self.client_of(request)
        changes = self.changes(stack, definition, tags, client)
        if stack not in self.stacks:
            self.stacks.append(stack)
            stack.add_event("REVIEW_IN_PROGRESS", "User Initiated")
        name = parameters["ChangeSetName"]
        change_set = ChangeSet(name, self.arn("changeSet", name), kind, definition, changes, time.monotonic() + NOT_READY, tags)
        if parameters.get("DisableValidation") != "true":
            change_set.conflicts = conflicts(changes, self.scope(stack, definition, client, unknown=True), definition, client, stack.id)
        same = not changes and stack.definition and stack.definition.template.get("Outputs") == definition.template.get("Outputs")
        if same or change_set.conflicts:
            change_set.execution = "UNAVAILABLE"
        stack.change_sets[change_set.name] = change_set
        return {"Id": change_set.id, "StackId": stack.id}

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:cloudformation:{self.region}:{wire.ACCOUNT}:{kind}/{name}/{uuid.uuid4()}"

    def read_definition(self, request: wire.Request, stack: Stack | None) -> Definition:
        parameters = request.parameters
        previous = stack.definition if stack else None
        if parameters.get("UsePreviousTemplate") == "true" and previous:
            text = previous.text
        elif "TemplateBody" in parameters:
            text = parameters["TemplateBody"]
        else:
            raise invalid("Either Template URL or Template Body must be specified.")
        template = templates.read(text)
        values = {}
        for parameter in members(parameters, "Parameters"):
            name = parameter["ParameterKey"]
            keeps = parameter.get("UsePreviousValue") == "true" and previous
            values[name] = previous.parameters[name] if keeps else parameter["ParameterValue"]
        definition = Definition(text, template, templates.parameters(template, values))
        self.check_template(definition, request.listed("Capabilities.member"))
        return definition

    def check_template(self, definition: Definition, capabilities: list[str]) -> None:
        types = {name: declared.get("Type", "") for name, declared in definition.template["Resources"].items()}
        if strange := sorted({kind for kind in types.values() if kind not in RESOURCE_TYPES}):
            raise invalid(f"Template format error: Unrecognized resource types: [{', '.join(strange)}]")
        for name, declared in definition.template["Resources"].items():
            if unknown := sorted(set(declared.get("Properties", {})) - set(RESOURCE_TYPES[types[name]].known_properties)):
                raise invalid(f"Resource {name}: this emulation does not know the properties {', '.join(unknown)} of {types[name]}")
        if any(RESOURCE_TYPES[kind].iam for kind in types.values()) and "CAPABILITY_NAMED_IAM" not in capabilities:
            raise wire.Refusal("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]")

    def changes(self, stack: Stack, definition: Definition, tags: list[dict], client: Client) -> list[dict]:
        """What carrying it out would do, one entry a resource. The stack's tags are handed on to every resource that can have some."""
        scope = self.scope(stack, definition, client, unknown=True)
        entries = definition.resources(scope)
        changes = [change("Remove", name, resource) for name, resource in stack.resources.items() if name not in entries]
        for name, declared in entries.items():
            properties, resource = scope.resolve(declared.get("Properties", {})), stack.resources.get(name)
            if resource is None:
                changes.append(change("Add", name, Resource(declared["Type"], "", properties)))
            elif changed := differing(resource.properties, properties):
                fixed = declared["Type"] != resource.type or needs_replacement(
                    RESOURCE_TYPES[resource.type], resource.properties, properties
                )
                changes.append(change("Modify", name, resource, changed, "True" if fixed else "False"))
            elif tags != stack.tags and RESOURCE_TYPES[resource.type].tagged:
                changes.append(change("Modify", name, resource, [], "False") | {"Scope": ["Tags"]})
        return changes

    def scope(self, stack: Stack, definition: Definition, client: Client, unknown: bool = False) -> templates.Scope:
        pseudo = {
            "AWS::AccountId": wire.ACCOUNT,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::StackName": stack.name,
            "AWS::StackId": stack.id,
            "AWS::URLSuffix": "amazonaws.com",
        }

        def physical(name: str) -> str:
            if name in stack.resources:
                return stack.resources[name].physical_id
            if unknown and name in definition.template["Resources"]:
                return templates.UNKNOWN
            raise invalid(f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template")

        def attribute(name: str, wish: str) -> str:
            id = physical(name)
            if id == templates.UNKNOWN:
                return id
            attributes = RESOURCE_TYPES[stack.resources[name].type].attributes
            if wish not in attributes:
                raise invalid(f"Template error: resource {name} does not support attribute type {wish} in Fn::GetAtt")
            return attributes[wish](client, id)

        values = templates.referred(definition.template, definition.parameters)
        return templates.Scope(values | pseudo, definition.template.get("Conditions", {}), physical, attribute)

    def describe_change_set(self, request: wire.Request) -> dict:
        stack, change_set = self.find_change_set(request)
        status = "CREATE_IN_PROGRESS" if time.monotonic() < change_set.ready else "CREATE_COMPLETE"
        if status == "CREATE_COMPLETE" and change_set.execution == "UNAVAILABLE":
            status = "FAILED"
        return {
            "ChangeSetName": change_set.name,
            "ChangeSetId": change_set.id,
            "StackId": stack.id,
            "StackName": stack.name,
            "Parameters": shown_parameters(change_set.definition),
            "Status": status,
            "StatusReason": "" if status != "FAILED" else INVALID if change_set.conflicts else NO_CHANGES,
            "ExecutionStatus": "UNAVAILABLE" if status == "CREATE_IN_PROGRESS" else change_set.execution,
            "Changes": [{"Type": "Resource", "ResourceChange": change} for change in change_set.changes if not change_set.conflicts],
        }

    def find_change_set(self, request: wire.Request) -> tuple[Stack, ChangeSet]:
        name, where = request.parameters["ChangeSetName"], request.parameters.get("StackName")
        for stack in self.stacks:
            for change_set in stack.change_sets.values():
                if name == change_set.id or (name == change_set.name and where in (stack.name, stack.id)):
                    return stack, change_set
        raise wire.Refusal("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)

    def delete_change_set(self, request: wire.Request) -> dict:
        with contextlib.suppress(wire.Refusal):  # gone already: no error on AWS either
            stack, change_set = self.find_change_set(request)
            del stack.change_sets[change_set.name]
        return {}

    def execute_change_set(self, request: wire.Request) -> dict:
        stack, change_set = self.find_change_set(request)
        if change_set.execution != "AVAILABLE" or time.monotonic() < change_set.ready:
            raise wire.Refusal("InvalidChangeSetStatus", f"ChangeSet [{change_set.id}] cannot be executed in its current status")
        stack.change_sets.clear()
        stack.begin(f"{change_set.kind}_STACK", request.parameters.get("ClientRequestToken"))
        stack.add_event(f"{change_set.kind}_IN_PROGRESS", "User Initiated")
        self.background(self.execute, stack, change_set, self.client_of(request))
        return {}

    def background(self, work: Callable, *words: Any) -> None:
        threading.Thread(target=work, args=words, daemon=True).start()

    def execute(self, stack: Stack, change_set: ChangeSet, client: Client) -> None:
        before, previous = stack.definition, {name: replace(resource) for name, resource in stack.resources.items()}
        try:
            self.apply(stack, change_set.definition, client)
            stack.definition, stack.tags = change_set.definition, change_set.tags
            stack.add_event(f"{change_set.kind}_COMPLETE")
        except ResourceFailed as failure:
            self.roll_back(stack, change_set.kind, before, previous, client, str(failure))

    def apply(self, stack: Stack, definition: Definition, client: Client) -> None:
        scope = self.scope(stack, definition, client)
        entries, old = definition.resources(scope), []
        throttled = templates.throttled(entries, "AWS::SSM::Parameter", PUTS)
        for name, declared in entries.items():
            try:
                properties = scope.resolve(declared.get("Properties", {}))
                if name in throttled and (name not in stack.resources or differing(stack.resources[name].properties, properties)):
                    raise ResourceFailed(THROTTLED)
                self.apply_resource(stack, name, declared, properties, old, client)
            except Exception as error:
                stack.add_event(
                    "CREATE_FAILED" if name not in stack.resources else "UPDATE_FAILED",
                    str(error),
                    name,
                    Resource(declared["Type"], "", {}),
                )
                raise ResourceFailed(f"The following resource(s) failed: [{name}]. {error}") from error
        gone = [name for name in reversed(stack.resources) if name not in entries]
        for name in gone:
            self.remove(stack, name, stack.resources.pop(name), client)
        for name, resource in old:
            self.remove(stack, name, resource, client)
        stack.outputs = [
            {"OutputKey": key, "OutputValue": str(scope.resolve(declared["Value"]))}
            for key, declared in definition.template.get("Outputs", {}).items()
            if "Condition" not in declared or scope.evaluate(declared["Condition"])
        ]

    def apply_resource(self, stack: Stack, name: str, declared: dict, properties: dict, old: list, client: Client) -> None:
        """One resource is as its properties say: made, changed, or another in its place."""
        resource, kind = stack.resources.get(name), RESOURCE_TYPES[declared["Type"]]
        changed = differing(resource.properties, properties) if resource else []
        deletion = declared.get("DeletionPolicy")
        keep, always = deletion in ("Retain", "RetainExceptOnCreate"), deletion == "Retain"
        if resource and not changed:
            resource.keep, resource.keep_on_rollback = keep, always
            return
        if resource and not needs_replacement(kind, resource.properties, properties):
            self.check_permissions(client, declared["Type"], properties, resource.physical_id, "update", "read")
            kind.update(client, resource.physical_id, properties)
            resource.properties, resource.keep, resource.keep_on_rollback = properties, keep, always
            stack.add_event("UPDATE_COMPLETE", "", name, resource)
            return
        if resource:
            old.append((name, replace(resource, keep=declared.get("UpdateReplacePolicy") == "Retain")))
        self.check_permissions(client, declared["Type"], properties, "", "create", "read")
        physical = kind.create(client, properties, spare_name(stack.name, name))
        stack.resources[name] = Resource(declared["Type"], physical, properties, keep, always)
        stack.add_event("CREATE_COMPLETE", "", name, stack.resources[name])

    def check_permissions(self, client: Client, type: str, properties: dict, physical: str, *names: str) -> None:
        """As CloudFormation says it of a handler that is refused."""
        for name in names:
            try:
                self.handle(client.by, handlers.required_access(type, name, properties, physical, self.region))
            except wire.Refusal as refusal:
                message = f'Resource handler returned message: "{refusal}" (RequestToken: twin, HandlerErrorCode: AccessDenied)'
                raise ResourceFailed(message) from refusal

    def remove(self, stack: Stack, name: str, resource: Resource, client: Client, retain: tuple[str, ...] = ()) -> str | None:
        """What stands against it, or None when it is gone."""
        if resource.keep or name in retain:
            stack.add_event("DELETE_SKIPPED", "", name, resource)
            return None
        try:
            self.check_permissions(client, resource.type, resource.properties, resource.physical_id, "delete")
            RESOURCE_TYPES[resource.type].delete(client, resource.physical_id, resource.properties)
        except Exception as error:
            if getattr(error, "response", {}).get("Error", {}).get("Code") not in NOT_FOUND:
                stack.add_event("DELETE_FAILED", str(error), name, resource)
                return f"{name}: {error}"
        stack.add_event("DELETE_COMPLETE", "", name, resource)
        return None

    def roll_back(
        self, stack: Stack, kind: str, before: Definition | None, previous: dict[str, Resource], client: Client, why: str
    ) -> None:
        prefix = "ROLLBACK" if kind == "CREATE" else "UPDATE_ROLLBACK"
        stack.begin("ROLLBACK", stack.operation.get("ClientRequestToken"))
        stack.add_event(f"{prefix}_IN_PROGRESS", why)
        try:
            self.remove_new_resources(stack, kind, previous, client)
            if before:
                self.apply(stack, before, client)
            stack.add_event(f"{prefix}_COMPLETE", why)
        except ResourceFailed as failure:
            stack.add_event(f"{prefix}_FAILED", str(failure))

    def remove_new_resources(self, stack: Stack, kind: str, previous: dict[str, Resource], client: Client) -> None:
        """What was made is gone again. Of a new stack all must go; of one that was changed CloudFormation leaves what will not."""
        problems = {}
        for name in [name for name in reversed(stack.resources) if name not in previous]:
            resource = stack.resources[name]
            problems[name] = self.remove(stack, name, replace(resource, keep=resource.keep_on_rollback), client)
            if not problems[name] or kind != "CREATE":
                del stack.resources[name]
        if kind == "CREATE" and (left := [name for name, problem in problems.items() if problem]):
            raise ResourceFailed(f"The following resource(s) failed to delete: [{', '.join(left)}].")

    def continue_rollback(self, request: wire.Request) -> dict:
        stack = self.required(request.parameters["StackName"])
        if stack.status != "UPDATE_ROLLBACK_FAILED":
            raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not continue to roll back.")
        stack.begin("CONTINUE_ROLLBACK", request.parameters.get("ClientRequestToken"))
        stack.add_event("UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated")
        self.background(self.finish_rollback, stack, self.client_of(request))
        return {}

    def finish_rollback(self, stack: Stack, client: Client) -> None:
        try:
            self.apply(stack, stack.definition, client)
            stack.add_event("UPDATE_ROLLBACK_COMPLETE")
        except ResourceFailed as failure:
            stack.add_event("UPDATE_ROLLBACK_FAILED", str(failure))

    def delete_stack(self, request: wire.Request) -> dict:
        stack = self.live(request.parameters["StackName"])
        if stack:
            retain = tuple(request.listed("RetainResources.member"))
            stack.begin("DELETE_STACK", request.parameters.get("ClientRequestToken"))
            stack.add_event("DELETE_IN_PROGRESS", "User Initiated")
            self.background(self.delete_resources, stack, retain, self.client_of(request))
        return {}

    def delete_resources(self, stack: Stack, retain: tuple[str, ...], client: Client) -> None:
        problems = []
        for name in reversed(list(stack.resources)):
            problem = self.remove(stack, name, stack.resources[name], client, retain)
            if problem:
                problems.append(problem)
            else:
                del stack.resources[name]
        if problems:
            stack.add_event("DELETE_FAILED", f"The following resource(s) failed to delete: [{'; '.join(problems)}]")
        else:
            stack.add_event("DELETE_COMPLETE")

    def describe_stacks(self, request: wire.Request) -> dict:
        name = request.parameters.get("StackName")
        stacks = [self.required(name)] if name else [one for one in self.stacks if one.status != "DELETE_COMPLETE"]
        return {"Stacks": [description(stack) | {"Parameters": shown_parameters(stack.definition)} for stack in stacks]}

    def list_stacks(self, request: wire.Request) -> dict:
        return {"StackSummaries": [description(stack) for stack in self.stacks]}

    def list_resources(self, request: wire.Request) -> dict:
        resources = self.resources(self.required(request.parameters["StackName"]), "LastUpdatedTimestamp")
        return paged(request, "StackResourceSummaries", resources)

    def describe_resources(self, request: wire.Request) -> dict:
        return {"StackResources": self.resources(self.required(request.parameters["StackName"]), "Timestamp")}

    def resources(self, stack: Stack, stamp: str) -> list[dict]:
        return [
            {
                "LogicalResourceId": name,
                "PhysicalResourceId": resource.physical_id,
                "ResourceType": resource.type,
                stamp: moment(stack.created),
                "ResourceStatus": "CREATE_COMPLETE",
            }
            for name, resource in stack.resources.items()
        ]

    def describe_stack_events(self, request: wire.Request) -> dict:
        hidden = ("OperationType",)
        events = self.required(request.parameters["StackName"]).events
        return paged(request, "StackEvents", [{key: value for key, value in one.items() if key not in hidden} for one in events])

    def describe_events(self, request: wire.Request) -> dict:
        """Events of a change set, of one operation, or of a stack: newest first."""
        parameters = request.parameters
        if "ChangeSetName" in parameters:
            events = self.find_change_set(request)[1].conflicts
        elif "OperationId" in parameters or "StackName" in parameters:
            stacks = [self.required(parameters["StackName"])] if "StackName" in parameters else self.stacks
            every = [operation_event(event) for stack in stacks for event in stack.events]
            every += [event for stack in stacks for one in stack.change_sets.values() for event in one.conflicts]
            events = [event for event in every if parameters.get("OperationId") in (None, event.get("OperationId"))]
        else:
            raise invalid("One of ChangeSetName, OperationId or StackName must be specified")
        failed = parameters.get("Filters.FailedEvents") == "true"
        return paged(request, "OperationEvents", [event for event in events if not failed or event["EventType"].endswith("_ERROR")])

    def get_template(self, request: wire.Request) -> dict:
        stack = self.required(request.parameters["StackName"])
        return {"TemplateBody": stack.definition.text if stack.definition else ""}

    def validate(self, request: wire.Request) -> dict:
        template = templates.read(request.parameters["TemplateBody"])
        return {"Parameters": [{"ParameterKey": name} for name in template.get("Parameters", {})]}

    def live(self, name: str) -> Stack | None:
        return next((one for one in self.stacks if name in (one.name, one.id) and one.status != "DELETE_COMPLETE"), None)

    def required(self, name: str) -> Stack:
        stack = self.live(name) or next((one for one in self.stacks if name == one.id), None)
        if not stack:
            raise invalid(f"Stack with id {name} does not exist")
        return stack

    def client_of(self, request: wire.Request) -> Client:
        return Caller(f"http://{request.environ['HTTP_HOST']}", request.by, self.key_for(request.by), self.region, self.clients)


@dataclass
class Caller:
    """Clients that act as the caller does."""

    address: str
    by: str
    key: str
    region: str
    clients: dict[tuple[str, str], Any]

    def __call__(self, service: str) -> Any:
        from botocore.config import Config

        if (self.key, service) not in self.clients:
            client = session(self.key, self.region).client(service, endpoint_url=self.address, config=Config(proxies={}))
            self.clients[self.key, service] = client
        return self.clients[self.key, service]


@functools.cache
def session(key: str, region: str) -> Any:
    """One a caller: each reads the list of all endpoints, which takes a quarter of a second."""
    import boto3
    import botocore.session

    fixed = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
    deaf = botocore.session.Session(session_vars={name: (None, None, value, None) for name, value in fixed.items()})
    return boto3.Session(key, "twin", region_name=region, botocore_session=deaf)


def unsupported(request: wire.Request) -> dict:
    raise invalid(f"This emulation does not know {request.operation}; it knows change sets.")


def paged(request: wire.Request, name: str, items: list[dict]) -> dict:
    start = int(request.parameters.get("NextToken", 0))
    rest = {"NextToken": str(start + PAGE)} if len(items) > start + PAGE else {}
    return {name: items[start : start + PAGE]} | rest


def operation_event(event: dict) -> dict:
    """A stack's event as DescribeEvents shows it."""
    failed = event["ResourceStatus"].endswith("_FAILED") and event["ResourceType"] != "AWS::CloudFormation::Stack"
    return {"EventType": "PROVISIONING_ERROR" if failed else "STACK_EVENT"} | {key: event[key] for key in event if key != "StackName"}


def conflicts(changes: list[dict], scope: templates.Scope, definition: Definition, client: Client, stack: str) -> list[dict]:
    """What a change set would make although it exists, one event each; what the caller may not look at is not looked at."""
    events, operation = [], {"OperationId": str(uuid.uuid4()), "OperationType": "CREATE_CHANGESET", "StackId": stack}
    for change in changes:
        name, kind = change["LogicalResourceId"], RESOURCE_TYPES[change["ResourceType"]]
        properties = scope.resolve(definition.template["Resources"].get(name, {}).get("Properties", {}))
        id = properties.get(kind.primary_identifier)
        if change["Action"] != "Add" or not id or templates.UNKNOWN in id or not exists(kind, client, id):
            continue
        reason = f"Resource of type '{change['ResourceType']}' with identifier '{id}' already exists."
        event = {"EventId": str(uuid.uuid4()), "EventType": "VALIDATION_ERROR", "Timestamp": moment(time.time()), "LogicalResourceId": name}
        event |= {"PhysicalResourceId": id, "ResourceType": change["ResourceType"], "ValidationFailureMode": "FAIL"}
        event |= {"ValidationName": "NAME_CONFLICT_VALIDATION", "ValidationStatus": "FAILED", "ValidationStatusReason": reason}
        events.append(operation | event | {"ValidationPath": f"/Resources/{name}"})
    return events


def differing(old: dict, new: dict) -> list[str]:
    return sorted(name for name in {*old, *new} if not templates.same(old.get(name), new.get(name)))


def change(action: str, name: str, resource: Resource, changed: list[str] | None = None, replacement: str | None = None) -> dict:
    description = {"Action": action, "LogicalResourceId": name, "ResourceType": resource.type}
    if resource.physical_id:
        description["PhysicalResourceId"] = resource.physical_id
    if replacement:
        details = [{"Target": {"Attribute": "Properties", "Name": one}, "Evaluation": "Static"} for one in changed]
        description |= {"Replacement": replacement, "Scope": ["Properties"], "Details": details}
    if action == "Remove" and resource.keep:
        description["PolicyAction"] = "Retain"
    return description


def shown_parameters(definition: Definition | None) -> list[dict]:
    if not definition:
        return []
    secret = {name for name, rules in definition.template.get("Parameters", {}).items() if rules.get("NoEcho")}
    return [
        {"ParameterKey": name, "ParameterValue": "****" if name in secret else value}
        for name, value in sorted(definition.parameters.items())
    ]


def description(stack: Stack) -> dict:
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "CreationTime": moment(stack.created),
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason,
        "Outputs": stack.outputs,
        "Tags": stack.tags,
    }


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(FORMAT)


def members(form: dict, name: str) -> list[dict[str, str]]:
    """A list of structures in a form: Parameters.member.1.ParameterKey, ..."""
    structures: dict[int, dict[str, str]] = {}
    for key, value in form.items():
        parts = key.split(".")
        if parts[0] == name and len(parts) == 4:
            structures.setdefault(int(parts[2]), {})[parts[3]] = value
    return [structures[number] for number in sorted(structures)]


def element(name: str, value: Any) -> str:
    """A value as the query protocol writes it."""
    if isinstance(value, dict):
        inner = "".join(element(key, one) for key, one in value.items())
    elif isinstance(value, list):
        inner = "".join(element("member", one) for one in value)
    else:
        inner = escape(str(value))
    return f"<{name}>{inner}</{name}>"
