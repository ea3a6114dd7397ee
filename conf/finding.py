"""The result of a check: the one form of all that `inv doctor` says."""

from dataclasses import dataclass

# Whether the chain can work: yes; yes, with a note; no; not known.
OK, NOTE, BROKEN, UNKNOWN = "ok", "note", "broken", "unknown"


@dataclass(frozen=True)
class Finding:
    check: str
    verdict: str
    what: str
    why: str = ""  # it matters
    command: str = ""  # that fixes it
