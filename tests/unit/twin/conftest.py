"""An emulated world of these tests' own, and a box in it; a test that stops or breaks something makes another."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import loaded
import pytest

from twin import world

IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
ACCOUNT = {
    "region": "us-east-1",
    "bucket": "things",
    "repository": "trainer",
    "instance_profile": "box",
    "log_group": "/things",
    "secret": {"hub/token": None, "other/secret": "planted-secret"},
    "parameters": {"/things/size": "big"},
}


def until(condition, seconds=900):
    """The first true value of `condition`: the real agent waits for minutes where the twin's own waits for seconds, and so may machines."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.03)
    return value


class Cloud:
    """What a test does with a world."""

    def __init__(self, state: Path):
        self.state = state
        self.clients = {}

    def __getattr__(self, service: str):
        if service not in self.clients:
            self.clients[service] = world.client(self.state, service)
        return self.clients[service]

    def environment(self) -> dict[str, str]:
        changed = world.environment(self.state)
        return {
            **{name: value for name, value in os.environ.items() if name not in changed},
            **{k: v for k, v in changed.items() if v is not None},
        }

    def image(self) -> str:
        return self.ssm.get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"]

    def launch(self, **more) -> str:
        """An instance, without waiting for its agent."""
        more = {"IamInstanceProfile": {"Name": "box"}, "InstanceType": "g6.2xlarge"} | more
        return self.ec2.run_instances(ImageId=self.image(), MinCount=1, MaxCount=1, **more)["Instances"][0]["InstanceId"]

    def instance_state(self, instance: str) -> str:
        return self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"]

    def agents(self) -> dict[str, dict]:
        return {agent["InstanceId"]: agent for agent in self.ssm.describe_instance_information()["InstanceInformationList"]}

    def box(self, **more) -> "Box":
        instance = self.launch(**more)
        until(lambda: instance in self.agents())
        return Box(self, instance)

    role = "arn:aws:iam::123456789012:role/box-scheduler"

    def schedule(self, name: str, expression: str, instance: str, **more) -> None:
        """A schedule that stops the instance."""
        target = {"Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances", "RoleArn": self.role}
        target["Input"] = json.dumps({"InstanceIds": [instance]})
        request = {"Name": name, "ScheduleExpression": expression, "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": target} | more
        self.scheduler.create_schedule(**request)

    def at(self, seconds: float) -> str:
        """The expression for so many seconds from now on the real clock, which is its author's."""
        return f"at({datetime.fromtimestamp(time.time() + seconds, UTC):%Y-%m-%dT%H:%M:%S})"

    def journal(self) -> str:
        return (self.state / "journal.jsonl").read_text()


class Box:
    def __init__(self, cloud: Cloud, instance: str):
        self.cloud, self.instance = cloud, instance
        self.root = cloud.state / "boxes" / instance / "root"

    def send(self, *commands: str, **parameters: str) -> str:
        content = {"commands": list(commands)} | {name: [value] for name, value in parameters.items()}
        sent = self.cloud.ssm.send_command(InstanceIds=[self.instance], DocumentName="AWS-RunShellScript", Parameters=content)
        return sent["Command"]["CommandId"]

    def until_released(self, name: str) -> str:
        """What a script waits by, however slow the machine is: for `release`."""
        return f'until [ -e "$BOX_ROOT/root/{name}" ]; do sleep 0.1; done'

    def release(self, name: str) -> None:
        (self.root / "root" / name).touch()

    def invocation(self, command: str) -> dict | None:
        try:
            return self.cloud.ssm.get_command_invocation(CommandId=command, InstanceId=self.instance)
        except self.cloud.ssm.exceptions.InvocationDoesNotExist:
            return None

    def status(self, command: str) -> str | None:
        return (self.invocation(command) or {}).get("Status")

    def ended(self, command: str) -> dict:
        until(lambda: self.status(command) in ("Success", "Failed", "Cancelled", "TimedOut"))
        return self.invocation(command)

    def run(self, *commands: str, **parameters: str) -> dict:
        return self.ended(self.send(*commands, **parameters))

    def shell(self, script: str) -> subprocess.CompletedProcess:
        """The script as a process of the box, without the way through the agent."""
        path = f"{self.root}/usr/bin:/usr/bin:/bin"
        environment = self.cloud.environment() | {"BOX_ROOT": str(self.root), "PATH": path}
        return subprocess.run(["bash", "-c", script], env=environment, cwd=self.root, capture_output=True, text=True, timeout=900)

    def attach_volume(self) -> tuple[str, Path]:
        """A blank volume's id and where the box sees it."""
        volume = self.cloud.ec2.create_volume(AvailabilityZone="us-east-1a", Size=10, VolumeType="gp3")["VolumeId"]
        self.cloud.ec2.attach_volume(VolumeId=volume, InstanceId=self.instance, Device="/dev/sdf")
        return volume, self.root / f"dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


@pytest.fixture(scope="session", autouse=True)
def loaded_once():
    loaded.worlds()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    state = tmp_path_factory.mktemp("a world")
    world.start(state, {}, ACCOUNT)
    yield Cloud(state)
    world.stop(state)


@pytest.fixture(scope="session")
def box(cloud):
    return cloud.box()


@pytest.fixture(scope="session", name="until")
def until_fixture():
    return until


@pytest.fixture(scope="session")
def account():
    return ACCOUNT


@pytest.fixture(scope="session")
def another():
    """A second handle on a world that the test started itself."""
    return Cloud
