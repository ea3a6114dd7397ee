"""One line in S3 for each verb that ran: what, whose, on which box, when, how long, how it ended."""

import json
import secrets
from datetime import UTC, datetime

from remote.aws.s3 import Store
from remote.runs import lock


def write(store: Store, verb: str, box: str, seconds: float, outcome: str) -> None:
    line = {
        "verb": verb,
        "who": lock.caller_id(),
        "box": box,
        "ended": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "seconds": round(seconds, 2),
        "outcome": outcome,
    }
    store.put(f"audit/{line['ended']}-{verb}-{secrets.token_hex(2)}.json", json.dumps(line).encode())
