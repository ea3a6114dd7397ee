"""What AWS has just made for us and may deny for some seconds: its "eventual consistency".

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html. Of botocore's own waiters only those for a running or an
existing instance know that; this holds for every call to EC2, a waiter's too.
"""

import re
import threading
import time

SECONDS = 120  # after which a thing that is not there is not there
PAUSE = 1  # between two tries
MAKES = ("RunInstances", "CreateVolume", "CreateSnapshot")
ID = re.compile(r"\b(?:i|vol|snap)-[0-9a-f]{8,17}\b")
UNKNOWN = re.compile(r"Invalid(InstanceID|Volume|Snapshot)\.NotFound")


class RecentIds:
    """The ids that were made lately; a call that names one of them is tried again while AWS says that there is no such thing."""

    def __init__(self):
        self.made: dict[str, float] = {}
        self.lock = threading.Lock()

    def watch(self, ec2) -> None:
        """From now on, for all calls of this client."""
        ec2.meta.events.register("after-call.ec2", self.note)
        ec2.meta.events.register("needs-retry.ec2", self.pause)

    def note(self, parsed: dict, model, **_) -> None:
        if model.name in MAKES:
            with self.lock:
                self.made |= dict.fromkeys(ID.findall(str(parsed)), time.monotonic())

    def pause(self, response, request_dict: dict, **_) -> int | None:
        """Seconds until the request is sent again; None: its answer stands."""
        code = response[1].get("Error", {}).get("Code", "") if response else ""
        if not UNKNOWN.fullmatch(code):
            return None
        soonest = time.monotonic() - SECONDS
        with self.lock:
            fresh = {id for id, moment in self.made.items() if moment > soonest}
        return PAUSE if fresh & set(ID.findall(str(request_dict["body"]))) else None
