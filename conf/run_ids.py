"""What a run is called: by when it was made, its name and four random digits; in a sweep <sweep>.<number>."""

import re
import secrets
from datetime import UTC, datetime

GENERATED = re.compile(r"\d{8}-\d{6}-(?P<name>.+)-[0-9a-f]{4}(\.\d+)?")  # by `new`, or in a sweep that is called so
NUMBERED = re.compile(r"(?P<sweep>.+)\.(?P<number>\d+)")


def new(name: str) -> str:
    """The id of a run that begins now, or the name of a sweep."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}"


def sweep_of(run_id: str) -> str | None:
    """The sweep that the run belongs to; None where it belongs to none."""
    match = NUMBERED.fullmatch(run_id)
    return match["sweep"] if match else None


def number(run_id: str) -> int:
    """The run's number in its sweep."""
    return int(run_id.rpartition(".")[2])
