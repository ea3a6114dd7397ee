"""Each start of a box, as AWS knows it: since when, of which type, until when. `up` and `down` write it down, the ledger reads it.

What the box reports of itself begins with its supervisor and ends with it: it is paid for longer than that.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from remote.aws import s3
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.aws.tags import BOX, OWNER

WHEN = "%Y-%m-%dT%H:%M:%S+00:00"


@dataclass(frozen=True)
class Life:
    instance: str
    instance_type: str
    launched: datetime
    stopped: datetime | None


def keep(aws: Aws, life: Life) -> None:
    """Write it down; what is known of the same start already is replaced."""
    stopped = life.stopped and life.stopped.strftime(WHEN)
    body = {"instance": life.instance, "instance_type": life.instance_type, "launched": life.launched.strftime(WHEN), "stopped": stopped}
    Store(aws).put(f"lives/{life.instance}/{life.launched:%Y%m%dT%H%M%SZ}.json", json.dumps(body).encode())


def read(known: dict) -> Life:
    stopped = known["stopped"] and s3.moment(known["stopped"])
    return Life(s3.text(known["instance"]), s3.text(known["instance_type"]), s3.moment(known["launched"]), stopped)


def last_start(aws: Aws, name: str) -> datetime | None:
    """When a box of this name was started last, be it gone by now: AWS shows it for another hour. None where there was none."""
    filters = [{"Name": f"tag:{BOX}", "Values": [name]}, {"Name": f"tag:{OWNER}", "Values": [aws.caller]}]
    pages = aws.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    starts = [entry["LaunchTime"] for page in pages for reservation in page["Reservations"] for entry in reservation["Instances"]]
    return max(starts, default=None)
