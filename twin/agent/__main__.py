"""The SSM agent of a box: fetches commands over the `ec2messages` protocol, runs them as root would, sends back what came out.

Behaves as amazon-ssm-agent 3.3 was seen to: a script in its own process group, pipes for its output, SIGKILL at the timeout.
Standard library only, so that a box is up in a moment; everything it knows of the world comes from its environment. The box
runs this folder by its path; its modules therefore import each other by plain names.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from command import LIMITS, Command
from document import Document, wants_reboot, write
from output import Output
from service import Service

VERSION = "3.3.4108.0"
WORKERS = 5  # CommandWorkersLimit of the agent's own configuration
PLUGIN = "aws:runShellScript"
HEALTH = 300  # seconds between two reports that the agent lives


class Agent:
    """Fetches commands and delivers their results; each runs in a worker process of its own, which outlives this one."""

    def __init__(self, instance: str, root: Path, service: Service):
        self.instance, self.root, self.service = instance, root, service
        self.workers = threading.Semaphore(WORKERS)
        self.documents: dict[str, Document] = {}  # by message

    def serve(self) -> None:
        """Registers, takes up what was left unfinished, then runs what comes in until the box is shut down."""
        reported = 0.0
        while True:
            try:
                if time.monotonic() - reported > HEALTH or not reported:
                    self.register()
                    if not reported:
                        self.take_up()
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

    def take_up(self) -> None:
        """Documents whose end was not delivered: their workers still run, or have run, or died with the box and start again."""
        for path in sorted(self.current.glob("*.json")):
            self.begin(Document(path, self.root))

    @property
    def current(self) -> Path:
        return self.root / f"var/lib/amazon/ssm/{self.instance}/document/state/current"

    def receive(self) -> None:
        ask = {"Destination": self.instance, "MessagesRequestId": str(uuid.uuid4()), "VisibilityTimeoutInSeconds": 10}
        for message in self.service.message("GetMessages", ask)["Messages"]:
            content = json.loads(message["Payload"])
            cancel = message["Topic"].startswith("aws.ssm.cancelCommand")
            if not cancel and message["MessageId"] not in self.documents:
                self.begin(Document.kept(self.current, message["MessageId"], content, self.root))
            self.service.message("AcknowledgeMessage", {"MessageId": message["MessageId"]})  # it is on the disk now
            if cancel and (document := self.documents.get(content["CancelMessageId"])):
                document.cancel()

    def begin(self, document: "Document") -> None:
        self.documents[document.message] = document
        threading.Thread(target=self.work, args=(document,), daemon=True).start()

    def work(self, document: "Document") -> None:
        with self.workers:
            if not document.cancelled:
                self.reply(document.message, "InProgress", {})
            result = document.finish()
        if wants_reboot(result):
            reboot()  # what is left of the document makes its script run again
            return
        self.reply(document.message, result["status"], result)
        document.forget()
        del self.documents[document.message]

    def reply(self, message: str, status: str, plugin: dict) -> None:
        """The outcome is delivered, however long the service is away."""
        document = {"documentStatus": status, "documentTraceOutput": "", "runtimeStatus": {PLUGIN: plugin} if plugin else {}}
        while True:
            try:
                self.service.message("SendReply", {"MessageId": message, "ReplyId": str(uuid.uuid4()), "Payload": json.dumps(document)})
                return
            except (OSError, http.client.HTTPException):
                time.sleep(1)


def reboot() -> None:
    subprocess.run(["shutdown", "-r", "+1"], stdin=subprocess.DEVNULL, check=False)
    threading.Event().wait()  # for the end that is coming


def work(path: Path, root: Path) -> None:
    """The worker's whole life: one document, and its result beside it."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    content, instance = kept["content"], kept["message"].rpartition(".")[2]
    command = Command(content, instance, root)
    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=command.end_early, args=("Cancelled",)).start())
    output = Output(content, command, Service(os.environ["AWS_DEFAULT_REGION"], instance))
    command.folder.mkdir(parents=True, exist_ok=True)
    for name in LIMITS:
        (command.folder / name).touch()
    follower = threading.Thread(target=output.follow) if content["CloudWatchOutputEnabled"] == "true" else None
    if follower:
        follower.start()
    result = command.run()
    output.ended.set()
    if follower:
        follower.join()
    if content["OutputS3BucketName"]:
        output.upload()
    write(path.with_suffix(".result"), result)


def main() -> None:
    root = Path(os.environ["BOX_ROOT"] or "/")
    if sys.argv[1] == "--worker":
        work(Path(sys.argv[2]), root)
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # threads wait on pipes; the box's shutdown does not wait for them
    Agent(sys.argv[1], root, Service(os.environ["AWS_DEFAULT_REGION"], sys.argv[1])).serve()


if __name__ == "__main__":
    main()
