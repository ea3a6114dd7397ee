"""Finished runs of one sweep, the best first, each with the difference to it on the same rows. Without torch.

Ranked by the score of the task: macro-F1 over fields, or token F1 of free text; runs that are equal in it by their loss.
"""

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

from conf.text import visible
from trainer.record import compare, figures

COLUMNS = ("", "run", "settings", "score", "difference to the first", "", "loss", "training")


@dataclass(frozen=True)
class RankedRun:
    """A run's place: its tuned model's figures."""

    run_id: str
    overrides: str  # the settings that set it apart
    what: str  # the name of the score
    score: float
    interval: list[float] | None
    loss: float | None
    seconds: float
    gain: dict | None = None  # over the first on the same rows: value and interval; None where the rows differ, and of the first

    @property
    def chance(self) -> bool:
        """Whether the next rows might rank it first."""
        return self.gain is not None and self.gain["interval"][0] <= 0 <= self.gain["interval"][1]


def ranked(runs: dict[Path, str]) -> list[RankedRun]:
    """The sealed runs in these folders, by their scores; `runs` holds the settings in which each one differs."""
    folders = {folder.name: folder for folder in runs}
    first, *others = sorted((_unranked(folder, overrides) for folder, overrides in runs.items()), key=_rank_key)
    return [first, *(_with_gain(folders[first.run_id], folders[run.run_id], run) for run in others)]


def best(runs: dict[Path, str]) -> tuple[str, str]:
    """The leaderboard for a terminal, and the run that is first."""
    entries = ranked(runs)
    return text(entries), entries[0].run_id


def score(folder: Path) -> float:
    """By what a sealed run is ranked."""
    return _unranked(folder, "").score


def text(entries: list[RankedRun]) -> str:
    """The leaderboard for a terminal."""
    rows = [COLUMNS, *(_row(rank, run) for rank, run in enumerate(entries, start=1))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"the score is {entries[0].what}; equal ones go by their loss")
    if len(entries) > 1:
        lines.append("the first place was chosen by these rows: `inv evaluate --split FILE` scores it on others")
    return "\n".join(lines)


def spreadsheet(entries: list[RankedRun]) -> str:
    """The same as CSV, every figure as it was measured."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    columns = ("place", "run", "settings", "score", "value", "low", "high", "difference", "difference_low", "difference_high", "loss")
    writer.writerow((*columns, "train_seconds"))
    for rank, run in enumerate(entries, start=1):
        gain = [run.gain["value"], *run.gain["interval"]] if run.gain else [None] * 3
        bounds = run.interval or (None, None)
        row = (rank, run.run_id, run.overrides, run.what, run.score, *bounds, *gain, run.loss, run.seconds)
        writer.writerow([visible.cell(value) for value in row])
    return page.getvalue()


def _unranked(folder: Path, overrides: str) -> RankedRun:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    key = figures.SLICED[metrics["task"]][0]
    line = next(line for line in figures.summary(metrics) if line.key == key)
    loss = (metrics.get("completion_loss") or {}).get("tuned")
    seconds = metrics["seconds"]["train"]
    return RankedRun(folder.name, overrides, line.what, line.tuned, line.tuned_interval, loss, seconds)  # type: ignore[arg-type]  # a finished run is scored


def _rank_key(run: RankedRun) -> tuple:
    return -run.score, math.inf if run.loss is None else run.loss, run.run_id


def _with_gain(first: Path, folder: Path, run: RankedRun) -> RankedRun:
    if not compare.same_rows(first, folder):
        return run
    line = next(line for line in compare.scores(first, folder) if line.what == run.what)
    return RankedRun(**vars(run) | {"gain": line.gain})


def _row(rank: int, run: RankedRun) -> tuple[str, ...]:
    gain, verdict = "", ""
    if run.gain:
        low, high = run.gain["interval"]
        gain, verdict = f"{run.gain['value']:+.3f} ({low:+.3f} to {high:+.3f})", "may be chance" * run.chance
    elif rank > 1:
        gain = "scored on other rows"
    loss = "–" if run.loss is None else f"{run.loss:.3f}"
    score = figures.text(run.score, run.interval)
    return str(rank), run.run_id, run.overrides, score, gain, verdict, loss, figures.duration(run.seconds)
