"""The figures of a run as plain rows, so that the terminal, the report and the model card show the same ones."""

from dataclasses import dataclass
from pathlib import Path

from conf import paths

MISSING = "not measured"
HEADLINES = {
    "extraction": {
        "macro_f1": "macro-F1 over fields",
        "row_exact": "row exact match",
        "json_valid": "valid JSON",
        "schema_valid": "follows the schema",
        "hallucination": "wrong values, share of all given (lower is better)",
        "unsupported": "values that the note does not mention (lower is better)",
        "distractor_hit": "traps walked into (lower is better)",
        "empty_f1": "F1 of leaving a field empty",
        "stopped": "stops by itself",
    },
    "text": {"exact": "exact match", "token_f1": "token F1", "stopped": "stops by itself"},
}
LOWER_IS_BETTER = {"hallucination", "unsupported", "distractor_hit", "completion_loss"}
WHERE_KNOWN = {"unsupported", "distractor_hit", "empty_f1"}  # shown only where they were measured: they need rows with evidence
BASELINES = {
    "majority": "always the usual value",
    "nearest": "the answer of the most similar training row",
    "dictionary": "a dictionary of the task, without reading",
}
# The ways to merge the adapter into its base; see `train/merge.py`.
FORMS = {
    "nf4": "merged with the base weights that training saw (NF4 and back)",
    "w16": "merged with the base model's own weights",
}
SLICED = {"extraction": ("macro_f1", "row_exact"), "text": ("token_f1", "exact")}  # what a slice shows: the bar, and the number beside it


@dataclass(frozen=True)
class Line:
    """One figure of the base model beside the same figure of the tuned one; None where it was not measured."""

    key: str
    what: str
    base: float | None
    tuned: float | None
    base_interval: list[float] | None = None
    tuned_interval: list[float] | None = None
    gain: dict | None = None  # the difference of the two on the same rows: its value and interval

    @property
    def better(self) -> bool | None:
        """Whether tuning helped; None where that is not known."""
        if self.base is None or self.tuned is None or self.base == self.tuned:
            return None
        return (self.tuned < self.base) == (self.key in LOWER_IS_BETTER)


@dataclass(frozen=True)
class Baseline:
    """What is scored on the same rows without a model."""

    what: str
    name: str  # of the score
    score: float
    interval: list[float] | None
    exact: float
    beaten: bool | None  # by the tuned model, as far as both intervals show; None where they overlap


@dataclass(frozen=True)
class Slice:
    """The figures of the rows that have something in common."""

    kind: str
    name: str
    rows: int
    base: float | None
    tuned: float | None
    exact: float | None  # of the tuned model


def summary(metrics: dict) -> list[Line]:
    """The headline figures of a run's `metrics.json`."""
    base, tuned, gains = metrics.get("base") or {}, metrics.get("tuned") or {}, metrics.get("difference") or {}
    lines = [
        Line(key, what, base.get(key), tuned.get(key), _interval(base, key), _interval(tuned, key), gains.get(key))
        for key, what in HEADLINES[metrics["task"]].items()
        if key not in WHERE_KNOWN or base.get(key) is not None or tuned.get(key) is not None
    ]
    if "completion_loss" not in metrics:  # with keys filled in there is none
        return lines
    loss = metrics["completion_loss"] or {}
    return [*lines, Line("completion_loss", "loss per answer token (lower is better)", loss.get("base"), loss.get("tuned"))]


def fields(metrics: dict) -> list[Line]:
    """F1 of every field of the answer, with its interval where it was drawn; none for a free-text task."""
    base, tuned = ((metrics.get(side) or {}).get("fields", {}) for side in ("base", "tuned"))
    gains = (metrics.get("difference") or {}).get("fields", {})
    return [_field(name, base.get(name, {}), tuned.get(name, {}), gains.get(name)) for name in tuned or base]


def baselines(metrics: dict) -> list[Baseline]:
    """What needs no model, the best first; none where it was not measured."""
    key, exact = SLICED[metrics["task"]]
    tuned = _interval(metrics["tuned"], key)
    made = [
        Baseline(
            BASELINES[name],
            HEADLINES[metrics["task"]][key],
            scores[key],
            _interval(scores, key),
            scores[exact],
            _beaten(tuned, _interval(scores, key)),
        )
        for name, scores in (metrics.get("baselines") or {}).items()
        if name in BASELINES
    ]
    return sorted(made, key=lambda baseline: -baseline.score)


def _beaten(tuned: list[float] | None, other: list[float] | None) -> bool | None:
    if not tuned or not other or (tuned[0] <= other[1] and other[0] <= tuned[1]):
        return None
    return tuned[0] > other[1]


def slices(metrics: dict) -> list[Slice]:
    """The tuned model's figures, and the base model's, for each slice of the rows."""
    base, tuned = ((metrics.get(side) or {}).get("slices", {}) for side in ("base", "tuned"))
    first, second = SLICED[metrics["task"]]
    return [
        Slice(kind, name, scores["rows"], base.get(kind, {}).get(name, {}).get(first), scores[first], scores[second])
        for kind, by_name in tuned.items()
        for name, scores in by_name.items()
    ]


def forms(metrics: dict) -> list[dict]:
    """The adapter and each merged form with its foremost figures; none where nothing was merged."""
    merged = metrics.get("merged")
    if not merged:
        return []
    scores_by_form = {"adapter on its base": metrics["tuned"]}
    scores_by_form |= {FORMS[form] + " (published)" * (form == merged["chosen"]): score for form, score in merged["forms"].items()}
    gguf = metrics.get("gguf") or {}
    scores_by_form |= {f"that as a GGUF file, {gguf['format']} (published)": gguf["scores"]} if gguf.get("file") else {}
    lines_by_form = {what: summary({"task": metrics["task"], "tuned": score}) for what, score in scores_by_form.items()}
    return [
        {"what": what, "lines": [line for line in lines if line.key in SLICED[metrics["task"]]]} for what, lines in lines_by_form.items()
    ]


def _field(name: str, base: dict, tuned: dict, gain: dict | None) -> Line:
    return Line(name, name, base.get("f1"), tuned.get("f1"), base.get("interval"), tuned.get("interval"), gain)


def _interval(side: dict, key: str) -> list[float] | None:
    return side.get("intervals", {}).get(key)


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
    return data if data.startswith(paths.HUB) else Path(data).name
