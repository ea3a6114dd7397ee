"""Job definitions: one revision after the other, and what of them a container is started with."""

from dataclasses import dataclass, field

from twin.aws import wire
from twin.aws.batch.environments import NAME
from twin.aws.batch.refusals import client_error

RESERVED = "AWS_BATCH"  # how no variable of the caller's own may begin: user guide, job_env_vars
RULES, ATTEMPTS, SHORTEST = 5, 10, 60  # API, RetryStrategy and JobTimeout
TASK = {"taskRoleArn": "jobRoleArn", "executionRoleArn": "executionRoleArn", "volumes": "volumes", "ipcMode": "ipcMode"}


@dataclass
class Definition:
    name: str
    arn: str
    revision: int
    content: dict  # as it was registered
    tags: dict = field(default_factory=dict)
    status: str = "ACTIVE"

    @property
    def container(self) -> dict:
        return container(self.content)


class Definitions:
    def __init__(self, region: str):
        self.region = region
        self.all: list[Definition] = []
        self.verbs = {
            "RegisterJobDefinition": self.register,
            "DescribeJobDefinitions": self.describe,
            "DeregisterJobDefinition": self.deregister,
        }

    def register(self, content: dict) -> dict:
        check(content)
        name = content["jobDefinitionName"]
        revision = 1 + max((one.revision for one in self.all if one.name == name), default=0)
        arn = f"arn:aws:batch:{self.region}:{wire.ACCOUNT}:job-definition/{name}:{revision}"
        self.all.append(Definition(name, arn, revision, content, content.get("tags", {})))
        return {"jobDefinitionName": name, "jobDefinitionArn": arn, "revision": revision}

    def describe(self, content: dict) -> dict:
        known = self.all
        if name := content.get("jobDefinitionName"):
            known = [one for one in known if one.name == name]
        if named := content.get("jobDefinitions"):
            known = [one for one in known if one.arn in named or f"{one.name}:{one.revision}" in named]
        if status := content.get("status"):
            known = [one for one in known if one.status == status]
        start, most = int(content.get("nextToken") or 0), content.get("maxResults") or 100
        more = {"nextToken": str(start + most)} if start + most < len(known) else {}
        return {"jobDefinitions": [shown(one) for one in known[start : start + most]]} | more

    def deregister(self, content: dict) -> dict:
        """Jobs of it run on, and an old definition can be described: API, DeregisterJobDefinition."""
        if definition := self.find(content["jobDefinition"]):
            definition.status = "INACTIVE"
        return {}

    def find(self, named: str) -> Definition | None:
        """By name, name and revision, or ARN; without a revision the latest that is active."""
        name, _, revision = named.rpartition("/")[2].partition(":")
        known = [one for one in self.all if one.name == name and (not revision or one.revision == int(revision))]
        known = known if revision else [one for one in known if one.status == "ACTIVE"]
        return known[-1] if known else None

    def active(self, named: str) -> Definition:
        definition = self.find(named)
        if definition and definition.status == "ACTIVE":
            return definition
        raise client_error(f"JobDefinition {named} does not exist or is not in ACTIVE state")


def check(content: dict) -> None:
    if not NAME.fullmatch(content["jobDefinitionName"]):
        raise client_error("jobDefinitionName should match valid pattern: [0-9a-zA-Z]+[0-9a-zA-Z_-]{0,127}")
    if content["type"] != "container" or "eksProperties" in content or "nodeProperties" in content:
        raise client_error("this emulation knows job definitions of type container, on ECS")
    if ("containerProperties" in content) == ("ecsProperties" in content):
        raise client_error("Either containerProperties or ecsProperties must be specified, and not both.")
    tasks = content.get("ecsProperties", {}).get("taskProperties", [])
    if "ecsProperties" in content and (len(tasks) != 1 or len(tasks[0]["containers"]) != 1):
        raise client_error("this emulation knows one task of one container")
    own = container(content)
    if not own.get("image"):
        raise client_error("Error executing request, Exception : Container image is required.")
    check_resources(own)
    check_variables(own.get("environment", []))
    check_strategy(content.get("retryStrategy", {}), content.get("timeout", {}))


def check_resources(own: dict) -> None:
    if missing := [kind for kind in ("VCPU", "MEMORY") if not amount(own, kind)]:
        raise client_error(f"Error executing request, Exception : Resource requirement {missing[0]} is required.")
    if amount(own, "MEMORY") < 4:
        raise client_error("Error executing request, Exception : Memory must be at least 4 MiB.")


def check_variables(variables: list[dict]) -> None:
    if strange := [one["name"] for one in variables if one["name"].startswith(RESERVED)]:
        raise client_error(f"Environment variable names cannot start with AWS_BATCH: {strange[0]}")


def check_strategy(strategy: dict, timeout: dict) -> None:
    rules, attempts = strategy.get("evaluateOnExit", []), strategy.get("attempts")
    if attempts is not None and not 1 <= attempts <= ATTEMPTS:
        raise client_error("retryStrategy.attempts must be between 1 and 10")
    if len(rules) > RULES or (rules and attempts is None):
        raise client_error("evaluateOnExit has five entries at most, and attempts must be specified with it")
    for rule in rules:
        if rule["action"].upper() not in ("RETRY", "EXIT") or not {"onStatusReason", "onReason", "onExitCode"} & set(rule):
            raise client_error("an entry of evaluateOnExit has an action, RETRY or EXIT, and a condition")
    if timeout.get("attemptDurationSeconds", SHORTEST) < SHORTEST:
        raise client_error("attemptDurationSeconds must be at least 60 seconds")


def container(content: dict) -> dict:
    """The container of either form, with what its task says of it."""
    if "containerProperties" in content:
        return {"name": "default"} | content["containerProperties"]
    (task,) = content["ecsProperties"]["taskProperties"]
    return {"name": "default"} | {own: task[name] for name, own in TASK.items() if name in task} | task["containers"][0]


def amount(own: dict, kind: str) -> float:
    """vCPUs, MiB or GPUs that a container asks for."""
    old = {"VCPU": "vcpus", "MEMORY": "memory"}.get(kind, "")
    return float(next((one["value"] for one in own.get("resourceRequirements", []) if one["type"] == kind), own.get(old, 0)))


def shown(definition: Definition) -> dict:
    about = {"jobDefinitionName": definition.name, "jobDefinitionArn": definition.arn, "revision": definition.revision}
    about |= {
        "status": definition.status,
        "type": "container",
        "tags": definition.tags,
        "parameters": definition.content.get("parameters", {}),
    }
    names = ("containerProperties", "ecsProperties", "retryStrategy", "timeout", "propagateTags", "platformCapabilities")
    about |= {name: definition.content[name] for name in names if name in definition.content}
    return about | {"containerOrchestrationType": "ECS"}
