"""Where else a command's output goes: CloudWatch while it runs, S3 when it has ended."""

import http.client
import sys
import threading
import time

from command import STREAMS, Command
from service import Service

EVENT = 200_000  # bytes of one CloudWatch event


class Output:
    """Both ways; a failure is logged and changes nothing."""

    def __init__(self, content: dict, command: Command, service: Service):
        self.content, self.command, self.service = content, command, service
        self.sent = dict.fromkeys(STREAMS, 0)
        self.ended = threading.Event()

    def follow(self) -> None:
        """To CloudWatch, every second; without the right to make the group, streaming is silently off."""
        group = self.content["CloudWatchLogGroupName"]
        streams = {name: f"{self.command.id}/{self.command.instance}/aws-runShellScript/{name}" for name in STREAMS}
        try:
            self.make("CreateLogGroup", {"logGroupName": group})
            for stream in streams.values():
                self.make("CreateLogStream", {"logGroupName": group, "logStreamName": stream})
            last = False
            while not last:
                last = self.ended.wait(1)
                for name, stream in streams.items():
                    self.put(group, stream, name, last)
        except (OSError, http.client.HTTPException) as error:
            print(f"no output to CloudWatch: {error}", file=sys.stderr, flush=True)

    def make(self, operation: str, names: dict) -> None:
        try:
            self.service.call("logs", f"Logs_20140328.{operation}", names)
        except ConnectionError as error:
            if "ResourceAlreadyExists" not in str(error):
                raise

    def put(self, group: str, stream: str, name: str, last: bool) -> None:
        with (self.command.folder / name).open("rb") as file:
            file.seek(self.sent[name])
            content = file.read(EVENT)
        whole = content if last else content[: content.rfind(b"\n") + 1]  # a line that is still being written waits
        if not whole:
            return
        self.sent[name] += len(whole)
        event = {"timestamp": int(time.time() * 1000), "message": whole.decode(errors="replace")}
        about = {"logGroupName": group, "logStreamName": stream, "logEvents": [event]}
        self.service.call("logs", "Logs_20140328.PutLogEvents", about)

    def upload(self) -> None:
        """To S3, whole, under the key that the service's own documentation names."""
        bucket, prefix = self.content["OutputS3BucketName"], self.content["OutputS3KeyPrefix"].strip("/")
        place = f"{self.command.id}/{self.command.instance}/awsrunShellScript/0.awsrunShellScript"
        for name in STREAMS:
            body = (self.command.folder / name).read_bytes()
            if body:
                try:
                    self.service.put_object(f"/{bucket}/{prefix + '/' if prefix else ''}{place}/{name}", body)
                except (OSError, http.client.HTTPException) as error:
                    print(f"no output to S3: {error}", file=sys.stderr, flush=True)
