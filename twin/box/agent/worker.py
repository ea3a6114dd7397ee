"""ssm-agent-worker: registers, fetches commands over the `ec2messages` protocol, has them carried out, and sends back what came out."""

import http.client
import json
import random
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pace
from document import AND_REBOOT, Document, write
from parameters import Invalid, resolved
from pool import Pool
from service import Service
from sessions import Sessions

VERSION = "3.3.4108.0"
PLATFORM = ("Ubuntu", "22.04")  # of the image that boxes start from
PLUGIN = "aws:runShellScript"
HEALTH = 300  # seconds between two reports that the agent lives
FAILURES = (OSError, http.client.HTTPException)


class Worker:
    """Fetches commands and delivers their results; each runs in a process of its own, which outlives this one."""

    def __init__(self, instance: str, root: Path, service: Service):
        self.instance, self.root, self.service = instance, root, service
        self.own = root / f"var/lib/amazon/ssm/{instance}"
        self.pending, self.current = self.own / "document/state/pending", self.own / "document/state/current"
        self.received, self.unsent = self.own / "idempotency", self.own / "replies"
        for folder in (self.pending, self.current, self.received, self.unsent):
            folder.mkdir(parents=True, exist_ok=True)
        self.pool = Pool(self.carry_out)

    def serve(self) -> None:
        """Registers, takes up what was left unfinished, then has done what comes in until the box is shut down."""
        while not self.register():
            pace.pause(pace.UNREGISTERED)
        sessions = Sessions(self.instance, self.root, self.service, FAILURES)
        for always in (self.report, self.send_again, sessions.serve):
            threading.Thread(target=always, daemon=True).start()
        for folder in (self.current, self.pending):
            self.resume_all(folder)
        while True:
            begun = time.monotonic()
            try:
                self.poll()
            except FAILURES as error:
                print(f"cannot reach the service: {error}", file=sys.stderr, flush=True)
                time.sleep(1)
            if time.monotonic() - begun < pace.QUICK:
                pace.pause(random.uniform(*pace.AFTER_QUICK))

    def register(self) -> bool:
        about = {"InstanceId": self.instance, "AgentVersion": VERSION, "AgentStatus": "Active", "AgentName": "amazon-ssm-agent"}
        platform = {"PlatformType": "Linux", "PlatformName": PLATFORM[0], "PlatformVersion": PLATFORM[1]}
        try:
            host = {"ComputerName": "box", "IPAddress": "127.0.0.1"}
            self.service.call("ssm", "AmazonSSM.UpdateInstanceInformation", about | platform | host)
        except FAILURES as error:
            print(f"not registered: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def report(self) -> None:
        while True:
            time.sleep(HEALTH)
            self.register()

    def resume_all(self, folder: Path) -> None:
        """What an earlier agent had taken: its scripts still run, or have run, or were cut off, or never had their turn."""
        for path in sorted(folder.glob("*.json")):
            document = Document(path, self.root)
            if document.resume():
                self.submit(document)
            else:
                path.rename(path.with_suffix(".corrupt"))

    def submit(self, document: Document) -> None:
        while self.pool.full():
            pace.pause(pace.FULL)
        self.pool.submit(document)

    # What comes in

    def poll(self) -> None:
        ask = {"Destination": self.instance, "MessagesRequestId": str(uuid.uuid4()), "VisibilityTimeoutInSeconds": 10}
        for message in self.service.message("GetMessages", ask)["Messages"]:
            self.receive(message["MessageId"], message["Topic"], json.loads(message["Payload"]))

    def receive(self, message: str, topic: str, content: dict) -> None:
        """A message is acknowledged when it has found its place; until then no other is fetched, not even one that cancels."""
        if topic.startswith("aws.ssm.cancelCommand"):
            self.pool.cancel(content["CancelMessageId"])
        elif not (self.received / content["CommandId"]).exists():
            try:
                content["Parameters"]["commands"] = resolved(content["Parameters"]["commands"], self.service)
            except Invalid as error:
                self.reply(message, "Failed", trace=str(error))  # and it is never acknowledged
                return
            while self.pool.full():
                pace.pause(pace.FULL)
            self.pool.submit(Document.create(self.pending, message, content, self.root))
            (self.received / content["CommandId"]).touch()
        self.reply(message, "InProgress")
        self.service.message("AcknowledgeMessage", {"MessageId": message})

    # What goes out

    def carry_out(self, document: Document) -> None:
        document.move(self.current)
        result = document.finish()
        if result["status"] == AND_REBOOT:
            document.asks_for_reboot()
            subprocess.run(["shutdown", "-r", "+1"], stdin=subprocess.DEVNULL, check=False)
            threading.Event().wait()  # for the end that is coming
        self.reply(document.message, result["status"], result)
        document.forget()

    def reply(self, message: str, status: str, plugin: dict | None = None, trace: str = "") -> None:
        """What does not get through is kept, and sent again until it does."""
        document = {"documentStatus": status, "documentTraceOutput": trace, "runtimeStatus": {PLUGIN: plugin} if plugin else None}
        content = {"MessageId": message, "ReplyId": str(uuid.uuid4()), "Payload": json.dumps(document)}
        try:
            self.service.message("SendReply", content)
        except FAILURES:
            write(self.unsent / f"{content['ReplyId']}.json", content)

    def send_again(self) -> None:
        while True:
            for path in sorted(self.unsent.glob("*.json"), key=lambda path: path.stat().st_mtime):
                try:
                    self.service.message("SendReply", json.loads(path.read_text(encoding="utf-8")))
                except FAILURES:
                    break
                path.unlink()
            pace.pause(pace.UNSENT)
