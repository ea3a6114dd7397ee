"""What EC2 has just made is not known everywhere at once: the first request that names it is refused, as AWS's guide says it may be.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html says nothing of how long; here it is a number of requests,
so that a busy machine changes nothing. It holds for the laptop alone: boxes come later, and AWS knows its own.
"""

import re
import threading

from twin.aws import wire
from twin.aws.iam.keys import LAPTOP

MADE = {
    "RunInstances": r"<instanceId>(i-[0-9a-f]+)</instanceId>",
    "CreateVolume": r"<volumeId>(vol-[0-9a-f]+)</volumeId>",
    "CreateSnapshot": r"<snapshotId>(snap-[0-9a-f]+)</snapshotId>",
}
NAMING = re.compile(r"(InstanceId|VolumeId|SnapshotId|ResourceId)(\.\d+)?")  # parameters; a filter that finds nothing is no error
REFUSALS = {
    "i": ("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist"),
    "vol": ("InvalidVolume.NotFound", "The volume '{}' does not exist."),
    "snap": ("InvalidSnapshot.NotFound", "The snapshot '{}' does not exist."),
}


class Consistency:
    def __init__(self):
        self.misses = 1  # requests by which a new thing is not seen
        self.unseen: dict[str, int] = {}  # id to how many are left
        self.lock = threading.Lock()

    def get(self, name: str) -> wire.Handler | None:
        """As a layer of the gateway: every operation of EC2 comes by."""
        return self.handle if name.startswith("ec2.") else None

    def handle(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if request.by == LAPTOP:
            self.refuse_unseen(request)
        response = forward(request)
        if request.operation.startswith("Describe") and any(self.unseen.values()):
            self.mark_seen(response.get_data(as_text=True))
        if request.operation in MADE and response.status_code == 200:
            ids = re.findall(MADE[request.operation], response.get_data(as_text=True))
            with self.lock:
                self.unseen |= {id: self.misses for id in ids if id not in self.unseen}  # a token asks twice for one thing
        return response

    def mark_seen(self, answer: str) -> None:
        """What an answer has shown is known from then on."""
        with self.lock:
            self.unseen |= dict.fromkeys((id for id, left in self.unseen.items() if left and id in answer), 0)

    def refuse_unseen(self, request: wire.Request) -> None:
        for id in [value for name, value in request.parameters.items() if NAMING.fullmatch(name)]:
            with self.lock:
                misses = self.unseen.get(id, 0)
                self.unseen[id] = max(0, misses - 1)
            if misses > 0:
                code, words = REFUSALS[id.partition("-")[0]]
                raise wire.Refusal(code, words.format(id))
