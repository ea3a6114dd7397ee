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
class Entry:
    """A run's place: its tuned model's figures."""

    run_id: str
    words: str  # the settings that set it apart
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


def ranked(runs: dict[Path, str]) -> list[Entry]:
    """The sealed runs in these folders, by their scores; `runs` tells the settings that set each one apart."""
    folders = {folder.name: folder for folder in runs}
    first, *others = sorted((_entry(folder, words) for folder, words in runs.items()), key=_order)
    return [first, *(_beside(folders[first.run_id], folders[entry.run_id], entry) for entry in others)]


def best(runs: dict[Path, str]) -> tuple[str, str]:
    """The leaderboard for a terminal, and the run that is first."""
    entries = ranked(runs)
    return text(entries), entries[0].run_id


def score(folder: Path) -> float:
    """By what a sealed run is ranked."""
    return _entry(folder, "").score


def text(entries: list[Entry]) -> str:
    """The leaderboard for a terminal."""
    rows = [COLUMNS, *(_row(place, entry) for place, entry in enumerate(entries, start=1))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"the score is {entries[0].what}; equal ones go by their loss")
    if len(entries) > 1:
        lines.append("who is first was chosen by these very rows: `inv evaluate --split FILE` scores it on others")
    return "\n".join(lines)


def spreadsheet(entries: list[Entry]) -> str:
    """The same as CSV, every figure as it was measured."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    named = ("place", "run", "settings", "score", "value", "low", "high", "difference", "difference_low", "difference_high", "loss")
    writer.writerow((*named, "train_seconds"))
    for place, entry in enumerate(entries, start=1):
        gain = [entry.gain["value"], *entry.gain["interval"]] if entry.gain else [None] * 3
        bounds = entry.interval or [None, None]
        row = (place, entry.run_id, entry.words, entry.what, entry.score, *bounds, *gain, entry.loss, entry.seconds)
        writer.writerow([visible.cell(value) for value in row])
    return page.getvalue()


def _entry(folder: Path, words: str) -> Entry:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    key = figures.SLICED[metrics["task"]][0]
    line = next(line for line in figures.summary(metrics) if line.key == key)
    loss = (metrics.get("completion_loss") or {}).get("tuned")
    return Entry(folder.name, words, line.what, line.tuned, line.tuned_interval, loss, metrics["seconds"]["train"])


def _order(entry: Entry) -> tuple:
    return -entry.score, math.inf if entry.loss is None else entry.loss, entry.run_id


def _beside(first: Path, folder: Path, entry: Entry) -> Entry:
    if not compare.same_rows(first, folder):
        return entry
    line = next(line for line in compare.scores(first, folder) if line.what == entry.what)
    return Entry(**vars(entry) | {"gain": line.gain})


def _row(place: int, entry: Entry) -> tuple[str, ...]:
    gain, verdict = "", ""
    if entry.gain:
        low, high = entry.gain["interval"]
        gain, verdict = f"{entry.gain['value']:+.3f} ({low:+.3f} to {high:+.3f})", "may be chance" * entry.chance
    elif place > 1:
        gain = "scored on other rows"
    loss = "–" if entry.loss is None else f"{entry.loss:.3f}"
    score = figures.text(entry.score, entry.interval)
    return str(place), entry.run_id, entry.words, score, gain, verdict, loss, figures.duration(entry.seconds)
