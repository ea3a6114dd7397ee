"""One line in S3 for each verb that ran: what, whose, on which box, when, how long, how it ended."""

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from remote.aws.s3 import Store
from remote.runs import lock


def write(store: Store, verb: str, box: str, seconds: float, outcome: str, parts: Sequence[tuple[str, float]] = ()) -> None:
    """`parts` are those of its plan, with the seconds that each took; the last one is where it failed."""
    line = {
        "verb": verb,
        "who": lock.caller_id(),
        "box": box,
        "ended": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "seconds": round(seconds, 2),
        "outcome": outcome,
        "parts": [[part, round(each, 2)] for part, each in parts],
    }
    store.put(f"audit/{line['ended']}-{verb}-{secrets.token_hex(2)}.json", json.dumps(line).encode())
