"""The SSM agent of a box: fetches commands over the `ec2messages` protocol, runs them as root would, sends back what came out.

Behaves as amazon-ssm-agent 3.3 was seen to: a script in its own process group, pipes for its output, SIGKILL at the timeout.
Standard library only, so that a box is up in a moment; everything it knows of the world comes from its environment.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

VERSION = "3.3.4108.0"
WORKERS = 5  # CommandWorkersLimit of the agent's own configuration
LIMITS = {"stdout": 24_000, "stderr": 8_000}  # characters that go back
CUT = "--output truncated--"
PLUGIN = "aws:runShellScript"
HEALTH = 300  # seconds between two reports that the agent lives


class Service:
    """AWS services over plain HTTP; requests name their signer, the instance, and the emulated AWS checks no signatures."""

    def __init__(self, region: str, instance: str):
        self.region, self.instance = region, instance
        self.address = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc

    def call(self, service: str, target: str, content: dict) -> dict:
        day = time.strftime("%Y%m%d", time.gmtime())
        scope = f"{self.instance}/{day}/{self.region}/{service}/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": target,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-target, Signature=none",
        }
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("POST", "/", json.dumps(content), headers)
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise ConnectionError(f"{target}: {reply.status} {text.decode(errors='replace')}")
        return json.loads(text)

    def message(self, operation: str, content: dict) -> dict:
        return self.call("ec2messages", f"EC2WindowsMessageDeliveryService.{operation}", content)


class Agent:
    def __init__(self, instance: str, root: Path, service: Service):
        self.instance, self.root, self.service = instance, root, service
        self.workers = threading.Semaphore(WORKERS)
        self.commands: dict[str, Command] = {}

    def serve(self) -> None:
        """Registers, then runs what comes in until the box is shut down."""
        reported = 0.0
        while True:
            try:
                if time.monotonic() - reported > HEALTH or not reported:
                    self.register()
                    reported = time.monotonic()
                self.receive()
            except (OSError, http.client.HTTPException) as error:
                print(f"cannot reach the service: {error}", file=sys.stderr, flush=True)
                time.sleep(1)

    def register(self) -> None:
        about = {"InstanceId": self.instance, "AgentVersion": VERSION, "AgentStatus": "Active", "AgentName": "amazon-ssm-agent"}
        platform = {
            "PlatformType": "Linux",
            "PlatformName": "Ubuntu",
            "PlatformVersion": "22.04",
            "ComputerName": "box",
            "IPAddress": "127.0.0.1",
        }
        self.service.call("ssm", "AmazonSSM.UpdateInstanceInformation", about | platform)

    def receive(self) -> None:
        ask = {"Destination": self.instance, "MessagesRequestId": str(uuid.uuid4()), "VisibilityTimeoutInSeconds": 10}
        for message in self.service.message("GetMessages", ask)["Messages"]:
            self.service.message("AcknowledgeMessage", {"MessageId": message["MessageId"]})
            content = json.loads(message["Payload"])
            if message["Topic"].startswith("aws.ssm.cancelCommand"):
                if command := self.commands.get(content["CancelMessageId"]):
                    command.end_early("Cancelled")
                continue
            command = self.commands[message["MessageId"]] = Command(content, self.instance, self.root)
            threading.Thread(target=self.work, args=(message["MessageId"], command), daemon=True).start()

    def work(self, message: str, command: "Command") -> None:
        with self.workers:
            self.reply(message, "InProgress", {})
            result = command.run()
        self.reply(message, result["status"], result)
        del self.commands[message]

    def reply(self, message: str, status: str, plugin: dict) -> None:
        """The outcome is delivered, however long the service is away."""
        document = {"documentStatus": status, "documentTraceOutput": "", "runtimeStatus": {PLUGIN: plugin} if plugin else {}}
        while True:
            try:
                self.service.message("SendReply", {"MessageId": message, "ReplyId": str(uuid.uuid4()), "Payload": json.dumps(document)})
                return
            except (OSError, http.client.HTTPException):
                time.sleep(1)


class Command:
    """One script on its way through the box."""

    def __init__(self, content: dict, instance: str, root: Path):
        self.id = content["CommandId"]
        parameters = content["Parameters"]
        self.script = "\n".join(parameters["commands"])
        self.directory = parameters["workingDirectory"] or str(root / "usr/bin")  # the real unit's WorkingDirectory
        timeout = int(parameters["executionTimeout"])
        self.timeout = timeout if 5 <= timeout <= 172_800 else 3600  # the agent resets what it does not accept, silently
        self.folder = root / f"var/lib/amazon/ssm/{instance}/document/orchestration/{self.id}/awsrunShellScript/0.awsrunShellScript"
        self.instance = instance
        self.process: subprocess.Popen | None = None
        self.ended_early: str | None = None  # the status that a timeout or a cancel gives
        self.lock = threading.Lock()

    def run(self) -> dict:
        started = stamp()
        self.folder.mkdir(parents=True)
        path = self.folder / "_script.sh"
        path.write_text(self.script)
        path.chmod(0o700)
        try:
            with self.lock:
                if not self.ended_early:
                    self.process = self.start(path)
        except OSError as error:  # a working directory that does not exist, for one
            failed = {"status": "Failed", "code": 1, "standardOutput": "", "standardError": f"failed to run commands: {error}"}
            return failed | {"startDateTime": started, "endDateTime": stamp()}
        if self.process:
            self.wait()
        return self.result() | {"startDateTime": started, "endDateTime": stamp()}

    def start(self, path: Path) -> subprocess.Popen:
        names = {"SSM_COMMAND_ID": self.id, "AWS_SSM_INSTANCE_ID": self.instance, "AWS_SSM_REGION_NAME": os.environ["AWS_DEFAULT_REGION"]}
        pipe = subprocess.PIPE
        # `sh -c PATH` lets the kernel honour a first line such as #!/bin/bash
        return subprocess.Popen(
            ["sh", "-c", f"'{path}'" if " " in str(path) else str(path)],
            cwd=self.directory,
            env=os.environ | names,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            process_group=0,
        )

    def wait(self) -> None:
        """Until every process that holds the script's output has closed it: a background child holds the command."""
        timer = threading.Timer(self.timeout, self.end_early, ["TimedOut"])
        timer.start()
        pipes = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        readers = [threading.Thread(target=self.keep, args=item, daemon=True) for item in pipes.items()]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self.process.wait()
        timer.cancel()

    def keep(self, name: str, pipe) -> None:
        with (self.folder / name).open("wb") as file:
            shutil.copyfileobj(pipe, file)

    def end_early(self, status: str) -> None:
        """SIGKILL to the process group, with no SIGTERM before: traps never run, and what `setsid` moved away lives on."""
        with self.lock:
            self.ended_early = status
            if self.process:
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    return  # the group has ended by itself

    def result(self) -> dict:
        if not self.process:
            return {"status": self.ended_early, "code": -1, "standardOutput": "", "standardError": ""}
        code, error = self.process.returncode, self.output("stderr")
        if self.ended_early:
            status, code = self.ended_early, {"TimedOut": 137, "Cancelled": -1}[self.ended_early]
        else:
            status = "Failed" if code else "Success"
            if code:
                error += "failed to run commands: " + (f"exit status {code}" if code > 0 else f"signal: {signal.Signals(-code).name}")
            code = code if code >= 0 else 128 - code
        return {
            "status": status,
            "code": code,
            "standardOutput": shortened("stdout", self.output("stdout")),
            "standardError": shortened("stderr", error),
        }

    def output(self, name: str) -> str:
        with (self.folder / name).open("rb") as file:
            return file.read(4 * LIMITS[name]).decode(errors="replace")


def shortened(name: str, text: str) -> str:
    limit = LIMITS[name]
    return text if len(text) < limit else text[: limit - len(CUT)] + CUT


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # threads wait on pipes; the box's shutdown does not wait for them
    service = Service(os.environ["AWS_DEFAULT_REGION"], sys.argv[1])
    Agent(sys.argv[1], Path(os.environ["BOX_ROOT"]), service).serve()


if __name__ == "__main__":
    main()
