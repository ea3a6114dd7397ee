"""The sessions of Session Manager on this box: they come over the control channel, and each is a process (ssm-session-worker)."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import channels
import pace
from service import KEY, Service

from twin.channel import message


class Sessions:
    def __init__(self, instance: str, root: Path, service: Service, failures: tuple[type[Exception], ...]):
        self.instance, self.root, self.service, self.failures = instance, root, service, failures
        self.channel: channels.websocket.WebSocket | None = None
        self.processes: dict[str, subprocess.Popen] = {}

    def serve(self) -> None:
        """For ever: where the channel is refused or lost it is made anew (controlchannel.go)."""
        while True:
            try:
                self.listen()
            except channels.websocket.Closed:
                pace.pause(pace.CHANNEL)
            except self.failures as error:
                print(f"no control channel: {error}", file=sys.stderr, flush=True)
                pace.pause(pace.UNREGISTERED)

    def listen(self) -> None:
        self.channel = channels.open_channel(self.service, channels.CONTROL, self.instance)
        while True:
            received = message.unpack(self.channel.receive())
            if received.kind == message.INTERACTIVE_SHELL:
                self.begin(json.loads(received.json["Content"]))
            elif received.kind == message.CLOSED:
                self.end(received.json["SessionId"])

    def begin(self, content: dict) -> None:
        name = content["SessionId"]
        worker = [sys.executable, "-E", "-s", "-S", str(Path(__file__).parent), "--session", self.instance]
        with (self.root / "var/log/amazon-ssm-agent.log").open("ab") as log:
            self.processes[name] = process = subprocess.Popen(
                worker, env=os.environ | {"TWIN_AGENT_KEY": KEY}, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        process.stdin.write(json.dumps(content).encode())
        process.stdin.close()
        threading.Thread(target=self.complete, args=(name, process), daemon=True).start()

    def end(self, name: str) -> None:
        if process := self.processes.get(name):
            process.terminate()

    def complete(self, name: str, process: subprocess.Popen) -> None:
        """The service hears how a session ended, and tells its client."""
        code = process.wait()
        self.processes.pop(name, None)
        status = {"FinalTaskStatus": "Failed" if code else "Success", "IsRoutingFailure": False, "AwsAccountId": "", "Output": ""}
        about = {"SchemaVersion": 1, "TaskId": name, "Topic": message.TASK_COMPLETE, "InstanceId": self.instance, "RetryNumber": 0}
        empty = dict.fromkeys(("S3Bucket", "S3UrlSuffix", "CwlGroup", "CwlStream"), "")
        with suppress(OSError):
            self.channel.send(message.of_json(message.TASK_COMPLETE, about | status | empty, flags=0).pack())
