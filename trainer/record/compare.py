"""Two finished runs side by side: settings and figures that differ. Without torch."""

import json
from pathlib import Path

from conf import load
from conf.problem import Problem
from data import score
from data.rows import normalise
from trainer import files
from trainer.record import figures
from trainer.record.figures import Line

# These differ between any two runs and change no result.
IGNORED_SETTINGS = ("run_id", "runs", "provenance", "cloud", "notify", "fleet")


def tables(first: Path, second: Path) -> tuple[list[tuple], list[tuple], str]:
    """Both comparisons as rows for a terminal, and a note on them."""
    rows = [
        (line.what, figures.text(line.base, line.base_interval), figures.text(line.tuned, line.tuned_interval), _gain(line), _verdict(line))
        for line in scores(first, second)
    ]
    alike = same_rows(first, second)
    note = "both were scored on the same rows" if alike else "they were scored on different rows: a difference may come from the rows alone"
    return settings(first, second), rows, note


def settings(first: Path, second: Path) -> list[tuple[str, str, str]]:
    """The settings in which two runs differ: name, value of the first, value of the second."""
    one, other = (_flat(_values(folder)) for folder in (first, second))
    names = sorted(one.keys() | other.keys())
    return [(name, one.get(name, "–"), other.get(name, "–")) for name in names if one.get(name) != other.get(name)]


def scores(first: Path, second: Path) -> list[Line]:
    """The tuned models' figures: of the first run as `base`, of the second as `tuned`, with the difference on the same rows."""
    one, other = (json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (first, second))
    if one["task"] != other["task"]:
        what = f"{first.name} was scored as {one['task']} and {second.name} as {other['task']}: they have no figure in common"
        raise Problem(what, "compare runs of one task; `inv status` lists them", "refused")
    losses = [(metrics.get("completion_loss") or {}).get("tuned") for metrics in (one, other)]
    pair = {"task": one["task"], "base": one["tuned"], "tuned": other["tuned"], "difference": _difference(first, second)}
    pair["completion_loss"] = dict(zip(("base", "tuned"), losses, strict=True))
    return figures.summary(pair) + figures.fields(pair)


def same_rows(first: Path, second: Path) -> bool:
    """Whether both runs were scored on the same prompts and answers."""
    return _scored_rows(first) == _scored_rows(second)


def _gain(line: Line) -> str:
    if line.gain is None:
        return "" if line.base is None or line.tuned is None else f"{line.tuned - line.base:+.3f}"
    low, high = line.gain["interval"]
    return f"{line.gain['value']:+.3f} ({low:+.3f} to {high:+.3f})"


def _verdict(line: Line) -> str:
    """Which run is better, where that is known: with an interval only if 0 is not in it."""
    if line.better is None or (line.gain and line.gain["interval"][0] <= 0 <= line.gain["interval"][1]):
        return "may be chance" if line.gain and line.better is not None else ""
    return "B is better" if line.better else "A is better"


def _difference(first: Path, second: Path) -> dict | None:
    if not same_rows(first, second):
        return None
    predictions = files.read_json_lines(first / "predictions.jsonl")
    rows = [normalise({"messages": [*row["prompt"], {"role": "assistant", "content": row["expected"]}]}, row["id"]) for row in predictions]
    before, after = ([row["tuned"] for row in files.read_json_lines(folder / "predictions.jsonl")] for folder in (first, second))
    config = _values(second)
    return score.difference(before, after, rows, config["data"]["fields"], config["seed"])


def _scored_rows(folder: Path) -> list[tuple]:
    return [(row["id"], json.dumps(row["prompt"]), row["expected"]) for row in files.read_json_lines(folder / "predictions.jsonl")]


def _values(folder: Path) -> dict:
    return {key: value for key, value in load.values((folder / "config.yaml").read_bytes()).items() if key not in IGNORED_SETTINGS}


def _flat(values: dict, path: str = "") -> dict[str, str]:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": json.dumps(value)}
    return flat
