"""Each start of a box, as AWS knows it: since when, of which type, until when. `up` and `down` write it down, the ledger reads it.

What the box reports of itself begins with its supervisor and ends with it: it is paid for longer than that.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from remote.aws import describe, s3
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.aws.tags import BOX, OWNER

WHEN = "%Y-%m-%dT%H:%M:%S+00:00"


@dataclass(frozen=True)
class Uptime:
    instance: str
    instance_type: str
    launched: datetime
    stopped: datetime | None
    owner: str | None = None  # the ARN of whose box it is; None: it was written down before starts had owners


def write(aws: Aws, uptime: Uptime) -> None:
    """Write it down; what is known of the same start already is replaced."""
    stopped = uptime.stopped and uptime.stopped.strftime(WHEN)
    body = {
        "instance": uptime.instance,
        "instance_type": uptime.instance_type,
        "launched": uptime.launched.strftime(WHEN),
        "stopped": stopped,
        "owner": uptime.owner,
    }
    Store(aws).put(f"lives/{uptime.instance}/{uptime.launched:%Y%m%dT%H%M%SZ}.json", json.dumps(body).encode())


def read(known: dict) -> Uptime:
    stopped = known["stopped"] and s3.parse_time(known["stopped"])
    owner = s3.check_text(known["owner"]) if known.get("owner") else None
    return Uptime(s3.check_text(known["instance"]), s3.check_text(known["instance_type"]), s3.parse_time(known["launched"]), stopped, owner)


def last_start(aws: Aws, name: str) -> datetime | None:
    """When a box of this name was last started; AWS shows a terminated one for another hour. None where there was none."""
    boxes = describe.instances(aws, {f"tag:{BOX}": [name], f"tag:{OWNER}": [aws.owner, aws.caller]})
    return max((instance["LaunchTime"] for instance in boxes), default=None)
