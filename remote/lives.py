"""Each start of a box, as AWS knows it: since when, of which type, until when. `up` and `down` write it down, the ledger reads it.

What the box reports of itself begins with its supervisor and ends with it: it is paid for longer than that.
"""

import json
from dataclasses import dataclass
from datetime import datetime

from remote.aws import Aws
from remote.store import Store

WHEN = "%Y-%m-%dT%H:%M:%S+00:00"


@dataclass(frozen=True)
class Life:
    instance: str
    instance_type: str
    launched: datetime
    stopped: datetime | None


def keep(aws: Aws, life: Life) -> None:
    """Write it down; what is known of the same start already is replaced."""
    body = {"instance": life.instance, "instance_type": life.instance_type, "launched": life.launched.strftime(WHEN)}
    body["stopped"] = life.stopped and life.stopped.strftime(WHEN)
    Store(aws).put(f"lives/{life.instance}/{life.launched:%Y%m%dT%H%M%SZ}.json", json.dumps(body).encode())


def read(known: dict) -> Life:
    moments = (known[key] and datetime.fromisoformat(known[key]) for key in ("launched", "stopped"))
    return Life(known["instance"], known["instance_type"], *moments)
