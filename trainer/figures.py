"""The figures of a run as plain rows, so that the terminal, the report and the model card show the same ones."""

from dataclasses import dataclass
from pathlib import Path

MISSING = "not measured"
HEADLINES = {
    "extraction": {
        "macro_f1": "macro-F1 over fields",
        "row_exact": "row exact match",
        "json_valid": "valid JSON",
        "schema_valid": "follows the schema",
        "hallucination": "made-up values (lower is better)",
        "stopped": "stops by itself",
    },
    "text": {"exact": "exact match", "token_f1": "token F1", "stopped": "stops by itself"},
}
LOWER_IS_BETTER = {"hallucination", "completion_loss"}


@dataclass(frozen=True)
class Line:
    """One figure of the base model beside the same figure of the tuned one; None where it was not measured."""

    key: str
    what: str
    base: float | None
    tuned: float | None
    base_interval: list[float] | None = None
    tuned_interval: list[float] | None = None

    @property
    def better(self) -> bool | None:
        """Whether tuning helped; None where that cannot be said."""
        if self.base is None or self.tuned is None or self.base == self.tuned:
            return None
        return (self.tuned < self.base) == (self.key in LOWER_IS_BETTER)


def summary(metrics: dict) -> list[Line]:
    """The headline figures of a run's `metrics.json`."""
    base, tuned = metrics.get("base") or {}, metrics.get("tuned") or {}
    lines = [
        Line(key, what, base.get(key), tuned.get(key), base.get("intervals", {}).get(key), tuned.get("intervals", {}).get(key))
        for key, what in HEADLINES[metrics["task"]].items()
    ]
    loss = metrics.get("completion_loss") or {}
    return [*lines, Line("completion_loss", "loss per answer token (lower is better)", loss.get("base"), loss.get("tuned"))]


def fields(metrics: dict) -> list[Line]:
    """F1 of every field of the answer; none for a free-text task."""
    base, tuned = ((metrics.get(side) or {}).get("fields", {}) for side in ("base", "tuned"))
    return [Line(name, name, base.get(name, {}).get("f1"), tuned.get(name, {}).get("f1")) for name in tuned or base]


def text(value: float | None, interval: list[float] | None = None) -> str:
    """A figure as people read it, with its interval where there is one."""
    if value is None:
        return MISSING
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def size(count: float | None) -> str:
    return MISSING if count is None else f"{count / 1e9:.2f} GB"


def money(dollars: float | None) -> str:
    """An amount, or "unknown": a price is never remembered or guessed."""
    return "unknown" if dollars is None else f"${dollars:.2f}" if dollars >= 0.1 else f"${dollars:.4f}"


def image(name: str | None) -> str:
    """An image without its registry, whose host name holds an AWS account number."""
    return "unknown" if name is None else name.rsplit("/", 1)[-1]


def source(data: str) -> str:
    """Where rows came from, without any folder of the machine that had them."""
    return data if data.startswith("hub:") else Path(data).name
