"""What an hour of a box costs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HourlyPrice:
    instance_type: str
    per_hour: float | None  # USD on demand; None where nobody says
    source: str | None  # who says so
