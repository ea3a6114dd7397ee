"""What a check came to: the one shape for everything that `inv doctor` says."""

from dataclasses import dataclass

# Whether the chain can work: it can; it can, but look; it cannot; nobody could look.
OK, NOTE, BROKEN, UNKNOWN = "ok", "note", "broken", "unknown"


@dataclass(frozen=True)
class Finding:
    check: str
    verdict: str
    what: str
    why: str = ""  # it matters
    command: str = ""  # that mends it
