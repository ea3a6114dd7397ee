"""One attempt of a job: a container on a host, from its image and credentials to its last log line, by the box's own docker."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.aws import calls, wire
from twin.aws.batch import containers, credentials
from twin.aws.batch.hosts import Host, Hosts
from twin.aws.batch.jobs import Attempt, Job
from twin.aws.ec2 import instances
from twin.aws.iam import policy

PULLING = ("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
LOGIN = 'printf %s "$PASSWORD" | docker login --username AWS --password-stdin "$0"'
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"  # ECS developer guide, stopped-task-error-codes
EVENTS = 500  # lines in one PutLogEvents
AGENT = 120.0  # seconds for the ECS agent to come up
BEAT = 0.3  # seconds between two looks at a log


class CannotStart(Exception):
    """A container that was not started, in the words of the ECS agent."""


@dataclass
class Task:
    job: Job
    attempt: Attempt
    host: Host
    hosts: Hosts
    boxes: Any
    registry: Any
    credentials: credentials.Credentials
    started: Callable[["Task"], None]
    ended: Callable[["Task", int | None, str, str], None]  # exit code, the container's reason, the attempt's
    stopped: bool = False
    sent: int = 0

    @property
    def name(self) -> str:
        definition = self.job.definition
        return f"ecs-{definition.name}-{definition.revision}-{self.job.container['name']}-{self.attempt.task_id[:20]}"

    def run(self) -> None:
        """All of it, in a thread of its own."""
        try:
            self.start()
        except CannotStart as problem:
            self.ended(self, None, str(problem), "Task failed to start")
            return
        except OSError:  # the box went away meanwhile
            self.ended(self, None, "", "Task failed to start")
            return
        self.started(self)
        try:
            code, reason = self.follow()
        except OSError:
            code, reason = None, ""
        finally:
            self.credentials.close(self.attempt.task_id)
        self.ended(self, code, reason, "Essential container in task exited")

    def start(self) -> None:
        own, instance = self.job.container, self.host.instance
        role = own.get("jobRoleArn")
        if role and (problem := credentials.problem(role)):
            raise CannotStart(problem)
        self.open_log()
        self.wait_for_agent()
        self.pull(own["image"])
        of_box = self.boxes.box_environment(instance)
        number = len(self.job.attempts) + 1
        variables = containers.environment(self.job, number, self.host.environment, of_box, self.hosts.region)
        if role:
            name, start = ("RELATIVE", "") if self.boxes.IS_SYSTEM else ("FULL", of_box["AWS_ENDPOINT_URL"])
            variables[f"AWS_CONTAINER_CREDENTIALS_{name}_URI"] = start + self.credentials.open(role, self.attempt.task_id)
        words = containers.words(self.job, self.name, variables, of_box["BOX_ROOT"], self.host.stop_timeout(own))
        if self.stopped:
            raise CannotStart("Task was stopped before its container was started")
        code, output = self.docker("run", *words)
        if code:
            raise CannotStart(f"CannotStartContainerError: {output.strip().removeprefix('docker: ')}")

    def open_log(self) -> None:
        """The stream is there before the container is: docker's awslogs driver makes it as it starts."""
        group, stream, made = containers.log_place(self.job, self.attempt.task_id)
        if made:
            self.hosts.as_instance(self.host, "CreateLogGroup", {"logGroupName": group})
        status, body = self.hosts.as_instance(self.host, "CreateLogStream", {"logGroupName": group, "logStreamName": stream})
        if status != 200:
            why = "failed to initialize logging driver: failed to create Cloudwatch log stream"
            raise CannotStart(f"CannotStartContainerError: Error response from daemon: {why}: {': '.join(calls.error(body))}")
        self.attempt.stream = stream

    def wait_for_agent(self) -> None:
        """The ECS agent takes tasks once docker answers: on a box that is a whole system some seconds after its start, if at all."""
        deadline, is_system = time.monotonic() + AGENT, self.boxes.IS_SYSTEM
        while self.command(*(("test", "-e", "/run/ecs-agent") if is_system else ("docker", "info")))[0]:
            if self.stopped or not self.hosts.is_up(self.host):
                return
            if time.monotonic() > deadline:
                raise CannotStart(f"the ECS agent of {self.host.instance} does not answer")
            time.sleep(BEAT)

    def pull(self, image: str) -> None:
        host, slash, rest = image.partition("/")
        if slash and (":" in host or "." in host):
            self.log_in(host, rest.partition("@")[0].partition(":")[0])
        code, output = self.docker("pull", "--quiet", image)
        if code:
            raise CannotStart(f"CannotPullContainerError: {output.strip()}")

    def log_in(self, host: str, repository: str) -> None:
        """As the ECS agent does it, by the rights of the instance's role."""
        role = instances.role(self.hosts.region, self.host.instance)
        documents = instances.documents(role) if role else []
        itself = f"arn:aws:ecr:{self.hosts.region}:{wire.ACCOUNT}:repository/{repository}"
        for action in PULLING:
            resource = "*" if action == PULLING[0] else itself
            if policy.decide(documents, action, resource, {}) != policy.ALLOWED:
                raise CannotStart(f"CannotPullContainerError: {role.arn if role else 'no role'} is not authorized to perform: {action}")
        self.command("sh", "-c", LOGIN, host, PASSWORD=self.registry.token)

    def follow(self) -> tuple[int | None, str]:
        """Sends the log on until the container has ended; its exit code and reason, which nobody knows where the box went away."""
        log, log_file = self.spawn("log", "docker", "logs", "--follow", self.name)
        waiting, exit_file = self.spawn("exit", "docker", "wait", self.name)
        while waiting.poll() is None:
            self.ship(log_file)
            time.sleep(BEAT)
        log.wait()
        self.ship(log_file, last=True)
        text = exit_file.read_text(encoding="utf-8").strip()
        if waiting.returncode or not text.lstrip("-").isdigit():
            return None, ""
        _, state = self.docker("inspect", "--format", "{{json .State.OOMKilled}}", self.name)
        return int(text), OUT_OF_MEMORY if state.strip() == "true" else ""

    def ship(self, path: Path, last: bool = False) -> None:
        """The lines that are whole since the last time, one event each."""
        group, stream, _ = containers.log_place(self.job, self.attempt.task_id)
        with path.open("rb") as file:
            file.seek(self.sent)
            content = file.read()
        whole = content if last else content[: content.rfind(b"\n") + 1]
        self.sent += len(whole)
        lines = [line for line in whole.decode(errors="replace").splitlines() if line]
        now = int(self.hosts.now() * 1000)
        for start in range(0, len(lines), EVENTS):
            events = [{"timestamp": now, "message": line} for line in lines[start : start + EVENTS]]
            self.hosts.as_instance(self.host, "PutLogEvents", {"logGroupName": group, "logStreamName": stream, "logEvents": events})

    def stop(self) -> None:
        """SIGTERM, and SIGKILL once its time to stop is over."""
        if self.stopped:
            return
        self.stopped = True
        if self.attempt.started:
            seconds = self.host.stop_timeout(self.job.container)
            self.boxes.spawn(self.host.instance, "ecs-stop.log", "docker", "stop", "--time", str(seconds), self.name)

    def docker(self, *words: str) -> tuple[int, str]:
        return self.command("docker", *words)

    def command(self, *words: str, **variables: str) -> tuple[int, str]:
        process, path = self.spawn("command", *words, **variables)
        code = process.wait()
        text = path.read_text(encoding="utf-8", errors="replace")
        path.unlink()
        return code, text

    def spawn(self, kind: str, *words: str, **variables: str) -> tuple[subprocess.Popen, Path]:
        """A process of the box, and where its output goes."""
        log = f"ecs-{self.attempt.task_id}.{kind}"
        return self.boxes.spawn(self.host.instance, log, *words, **variables), self.boxes.root(self.host.instance) / "var/log" / log
