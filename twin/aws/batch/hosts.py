"""The instances of compute environments, as ECS sees them: what is free on each, and what its user data tells the ECS agent."""

import base64
import email
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from twin.aws import calls, wire
from twin.aws.batch import launch
from twin.aws.batch.environments import Environment
from twin.aws.batch.jobs import Job
from twin.aws.ec2 import instances
from twin.aws.ec2.launch_templates import flat

KEY = wire.BATCH  # stands in the journal where a caller would
SETTING = re.compile(r"\b(ECS_[A-Z_]+)=([^\s\"'\\]+)")
REGISTERED = 0.96  # of an instance's memory, which ECS can give out; chosen: "not the full amount", user guide, memory-management
STOP_TIMEOUT = 30  # seconds: user guide, job_timeouts; ECS_CONTAINER_STOP_TIMEOUT of the ECS agent


@dataclass
class Host:
    instance: str
    arn: str
    environment: str
    vcpus: float
    memory: float
    gpus: int
    settings: dict[str, str]  # what its user data writes into /etc/ecs/ecs.config
    jobs: dict[str, Job] = field(default_factory=dict)
    idle_since: float = 0.0
    draining: bool = False
    alarm: float | None = None  # when it will have been idle for too long

    def has_room(self, job: Job) -> bool:
        free = [self.vcpus, self.memory, self.gpus]
        for other in self.jobs.values():
            free = [one - taken for one, taken in zip(free, other.needs, strict=True)]
        return all(one >= needed for one, needed in zip(free, job.needs, strict=True))

    @property
    def drains(self) -> bool:
        """Off by default: ECS developer guide, spot-instance-draining-linux-container."""
        return self.settings.get("ECS_ENABLE_SPOT_INSTANCE_DRAINING", "false").lower() == "true"

    def stop_timeout(self, own: dict) -> int:
        usual = self.settings.get("ECS_CONTAINER_STOP_TIMEOUT", f"{STOP_TIMEOUT}s")
        number, unit = re.fullmatch(r"(\d+)(s|m)?", usual).groups()
        return int(own.get("stopTimeout") or int(number) * (60 if unit == "m" else 1))


class Hosts:
    def __init__(self, region: str, gateway: Callable, now: Callable[[], float]):
        self.region, self.gateway, self.now = region, gateway, now
        self.all: dict[str, Host] = {}  # by instance
        self.turn = 0  # of the subnets

    def of(self, environment: Environment) -> list[Host]:
        return [one for one in self.all.values() if one.environment == environment.name]

    def vcpus(self, environment: Environment) -> int:
        return int(sum(one.vcpus for one in self.of(environment)))

    def launch(self, environment: Environment, kind: str) -> Host | str:
        """An instance of this type, or the code of the refusal."""
        subnets = environment.resources["subnets"]
        self.turn += 1
        subnet, agent = subnets[self.turn % len(subnets)], settings(user_data(environment, self.region))
        status, body = calls.ec2(self.gateway, self.region, "RunInstances", self.request(environment, kind, subnet), KEY)
        if status != 200:
            return calls.error(body)[0]
        (instance,) = re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", body)
        cluster = f"AWSBatch-{environment.name}-{environment.uuid}"
        arn = f"arn:aws:ecs:{self.region}:{wire.ACCOUNT}:container-instance/{cluster}/{secrets.token_hex(16)}"
        host = Host(instance, arn, environment.name, *size(kind), agent)
        host.idle_since = self.now()
        self.all[instance] = host
        return host

    def request(self, environment: Environment, kind: str, subnet: str) -> dict[str, str]:
        """RunInstances as Batch asks for it: the environment says most of it, the launch template the rest."""
        resources, named = environment.resources, environment.resources.get("launchTemplate")
        role = launch.profile(resources["instanceRole"])
        parameters = {"ImageId": image(resources), "InstanceType": kind, "MinCount": "1", "MaxCount": "1", "SubnetId": subnet}
        parameters |= {"IamInstanceProfile.Arn": role.arn} | tagged(resources, launch.data(named, self.region))
        parameters |= {f"SecurityGroupId.{number}": one for number, one in enumerate(resources.get("securityGroupIds", []), 1)}
        if environment.kind == "SPOT":
            parameters["InstanceMarketOptions.MarketType"] = "spot"
        if named:
            name = "LaunchTemplateId" if named.get("launchTemplateId") else "LaunchTemplateName"
            parameters[f"LaunchTemplate.{name}"] = named["launchTemplateId" if name.endswith("Id") else "launchTemplateName"]
            parameters["LaunchTemplate.Version"] = named.get("version") or "$Default"
        return parameters

    def end(self, host: Host) -> None:
        self.all.pop(host.instance, None)
        calls.ec2(self.gateway, self.region, "TerminateInstances", {"InstanceId.1": host.instance}, KEY)

    def is_up(self, host: Host) -> bool:
        record = instances.find(self.region, host.instance)
        return bool(record) and record._state.name in ("pending", "running")

    def as_instance(self, host: Host, operation: str, content: dict) -> tuple[int, str]:
        """A call to CloudWatch Logs with the rights of the instance's role, as docker's awslogs driver makes it."""
        return calls.logs(self.gateway, self.region, operation, content, host.instance)


def size(kind: str) -> tuple[float, float, int]:
    """vCPUs, MiB that can be given out, and GPUs of an instance type."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    about = INSTANCE_TYPES[kind]
    cards = about.get("GpuInfo", {}).get("Gpus", [])
    return about["VCpuInfo"]["DefaultVCpus"], about["MemoryInfo"]["SizeInMiB"] * REGISTERED, sum(one["Count"] for one in cards)


def image(resources: dict) -> str:
    from moto.ec2.models.amis import AMIS

    own = resources.get("imageId") or next(
        (one["imageIdOverride"] for one in resources.get("ec2Configuration", []) if "imageIdOverride" in one), ""
    )
    return own or next(one["ami_id"] for one in AMIS if "-ecs-" in one["name"])


def tagged(resources: dict, template: dict) -> dict[str, str]:
    """The launch template's tags with the environment's for its instances: user guide, launch-templates."""
    wanted = {one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in template.get("TagSpecifications", [])}
    wanted["instance"] = wanted.get("instance", {}) | {"AWSBatchServiceTag": "batch"} | resources.get("tags", {})
    lists = [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]} for kind, tags in wanted.items()]
    return flat({"TagSpecifications": lists})


def user_data(environment: Environment, region: str) -> bytes:
    return base64.b64decode(str(launch.data(environment.resources.get("launchTemplate"), region).get("UserData", "")))


def settings(content: bytes) -> dict[str, str]:
    """What the parts of a MIME archive tell the ECS agent. Nothing of them is run: they are written for another system's root folder."""
    parts = [one for one in email.message_from_bytes(content).walk() if not one.is_multipart()]
    text = "\n".join(one.get_payload(decode=True).decode(errors="replace") for one in parts)
    return dict(SETTING.findall(text))
