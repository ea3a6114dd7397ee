"""How many rows do I need: the score of runs against their number of training rows, and what twice as many would bring. Without torch.

The forecast is a power law: what is lacking to a score of 1 falls by the same share each time the rows double. It is fitted to the
logarithms by least squares. Its range has two sources, and the wider counts at either end: which held-out rows were drawn (each of 1,000
resamples of them, the same for all runs, is fitted on its own), and which part of the curve goes on (the last step alone, or the
whole). What another seed would change is not in it, for each number of rows is trained once.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from conf import load, run_ids
from data import score as scorer
from data.rows import normalise
from trainer import files
from trainer.record import compare, curves, figures, leaderboard

score = leaderboard.score  # by what a run is ranked
FEWEST = 3  # numbers of rows that a curve needs to be one
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Point:
    """One run: what so many training rows came to."""

    run_id: str
    rows: int
    score: float
    interval: list[float] | None
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What twice the rows would bring."""

    rows: int
    gain: float
    low: float
    high: float
    share: float  # by which what is lacking fell at each doubling

    def __str__(self) -> str:
        sure = "" if self.low > 0 or self.high < 0 else ", so perhaps nothing"
        pace = f"took {self.share:.0%} of what is lacking to 1" if self.share > 0 else "did not help"
        about = f"about {self.gain:+.3f} ({self.low:+.3f} to {self.high:+.3f}{sure})"
        return (
            f"twice the rows ({self.rows:,}) would bring {about} if it goes on as so far, where each doubling {pace}; "
            "what another seed would change is not counted"
        )


@dataclass(frozen=True)
class Curve:
    what: str  # the score's name
    points: list[Point]
    base: float | None
    baselines: list[figures.Baseline]
    forecast: Forecast | None
    why: str  # there is none

    @property
    def outlook(self) -> str:
        return str(self.forecast) if self.forecast else self.why


def best(runs: dict[Path, str]) -> tuple[str, str]:
    """The curve of these sealed runs for a terminal, and the run of the highest score; its page is written beside them."""
    folders = list(runs)
    curve = measure(folders)
    name = run_ids.sweep_of(folders[0].name) or folders[0].name
    page = folders[0].parent / f"{name}.html"
    files.write(page, render(curve, name))
    first = max(curve.points, key=lambda point: point.score)
    return f"{text(curve)}\npage       {page}", first.run_id


def measure(folders: list[Path]) -> Curve:
    """The curve of the runs in these folders, the fewest rows first."""
    folders = sorted(folders, key=_rows)
    metrics = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
    key = figures.SLICED[metrics[-1]["task"]][0]
    lines = [next(line for line in figures.summary(each) if line.key == key) for each in metrics]
    points = [
        Point(folder.name, _rows(folder), line.tuned or 0.0, line.tuned_interval, each["seconds"]["train"])
        for folder, line, each in zip(folders, lines, metrics, strict=True)
    ]
    forecast, why = _forecast(folders, points)
    return Curve(lines[-1].what, points, lines[-1].base, figures.baselines(metrics[-1]), forecast, why)


def _rows(folder: Path) -> int:
    return int(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["training"]["rows"])


def _forecast(folders: list[Path], points: list[Point]) -> tuple[Forecast | None, str]:
    """The forecast, or why there is none."""
    counts = [point.rows for point in points]
    if len(set(counts)) < FEWEST:
        return None, f"what more rows would bring shows from {FEWEST} numbers of rows on: give more, such as `data.train_rows=128,512,2048`"
    if not all(compare.same_rows(folders[0], other) for other in folders[1:]):
        return None, "the runs were scored on different rows, so their scores are no curve"
    samples, held_out = _samples(folders)
    slope = _slope(counts, [point.score for point in points], held_out)
    gains = sorted(_gain(_slope(counts, sample, held_out), sample[-1], held_out) for sample in samples)
    last = _gain(_slope(counts[-2:], [point.score for point in points[-2:]], held_out), points[-1].score, held_out)
    whole = _gain(slope, points[-1].score, held_out)
    low, high = gains[round(0.025 * len(gains))], gains[round(0.975 * len(gains)) - 1]
    return Forecast(2 * counts[-1], whole, min(low, last, whole), max(high, last, whole), 1 - 2**slope), ""


def _samples(folders: list[Path]) -> tuple[list[list[float]], int]:
    """Each run's score in each resample of the held-out rows, and how many of those there are."""
    answers = [files.read_json_lines(folder / "predictions.jsonl") for folder in folders]
    config = load.values((folders[-1] / "config.yaml").read_bytes())
    rows = [normalise({"messages": [*row["prompt"], {"role": "assistant", "content": row["expected"]}]}, row["id"]) for row in answers[-1]]
    tuned = [[row["tuned"] for row in each] for each in answers]
    return scorer.resamples(tuned, rows, config["data"]["fields"], config["seed"]), len(rows)


def _slope(counts: list[int], scores: list[float], held_out: int) -> float:
    """By which power of the number of rows the error falls: the least squares of the logarithms."""
    x, y = [math.log2(count) for count in counts], [math.log2(_error(score, held_out)) for score in scores]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def _gain(slope: float, last: float, held_out: int) -> float:
    error = _error(last, held_out)
    return min(error - error * 2**slope, 1 - last)


def _error(score: float, held_out: int) -> float:
    """What is lacking to 1; so many rows cannot tell less than half of one."""
    return max(1 - score, 0.5 / held_out)


def text(curve: Curve) -> str:
    """The curve for a terminal."""
    cells = [("rows", curve.what, "", "training", "run")]
    for before, point in zip([None, *curve.points], curve.points, strict=False):
        gain = f"{point.score - before.score:+.3f}" if before else ""
        cells.append((f"{point.rows:,}", figures.text(point.score, point.interval), gain, figures.duration(point.seconds), point.run_id))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    beside = [f"{line.what} {figures.text(line.score)}" for line in curve.baselines]
    lines.append(" · ".join([f"base model {figures.text(curve.base)}", *beside]))
    return "\n".join([*lines, curve.outlook])


def render(curve: Curve, name: str) -> str:
    """The curve as one self-contained page."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"text": figures.text, "duration": figures.duration}
    return environment.get_template("curve.html.j2").render(curve=curve, name=name, picture=curves.draw_scores(curve))
