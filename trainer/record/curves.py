"""The curves of a run as SVG, coloured by the page that shows them: light or dark is the reader's choice, not the plot's."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

# Placeholders for matplotlib: the page's own colours replace them afterwards.
COLOURS = {"#010101": "var(--text)", "#020202": "var(--grid)", "#030303": "var(--tuned)", "#040404": "var(--base)"}
TEXT, GRID, TUNED, BASE = COLOURS


def draw(events: list[dict]) -> list[tuple[str, Markup]]:
    """A title and an SVG for each curve that the events can fill; none where they hold no step."""
    steps = [event for event in events if event["event"] == "step"]
    held_out = [event for event in events if event["event"] == "eval"]
    if not steps:
        return []
    losses = [("training", TUNED, _points(steps, "loss")), ("held-out", BASE, _points(held_out, "loss"))]
    looks = [{"step": event["step"]} | event["gpu"] for event in steps if event.get("gpu")]
    matches = [("whole fields", TUNED, _points(held_out, "field_match")), ("single tokens", BASE, _points(held_out, "token_match"))]
    curves = [
        ("Loss per answer token", "loss (nats)", losses),
        ("What the model puts first on held-out rows, given the right text before it", "share", matches),
        ("Learning rate", "learning rate", [("learning rate", TUNED, _points(steps, "lr"))]),
        ("Throughput", "tokens a second", [("tokens a second", TUNED, _points(steps, "tok_s"))]),
        ("GPU utilisation", "share", [("utilisation", TUNED, _points(looks, "utilization"))]),
        ("GPU power", "W", [("power", TUNED, _points(looks, "power"))]),
        ("GPU temperature", "°C", [("temperature", TUNED, _points(looks, "temperature"))]),
        ("Peak memory", "GB", [("peak memory", TUNED, [(step, size / 1e9) for step, size in _points(steps, "mem")])]),
    ]
    last = max(event["step"] for event in steps + held_out)
    return [(title, _plot(label, series, last)) for title, label, series in curves if any(points for _, _, points in series)]


def draw_scores(curve: Any) -> Markup | None:  # of learning_curve
    """The scores against the number of training rows, with their intervals, and the forecast; None where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return None
    with _style(curve.what) as pyplot:
        figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
        points, forecast = curve.points, curve.forecast
        counts, scores = [point.rows for point in points], [point.score for point in points]
        spread = [point.interval or [point.score, point.score] for point in points]
        bars = [
            [score - low for score, (low, _) in zip(scores, spread, strict=True)],
            [high - score for score, (_, high) in zip(scores, spread, strict=True)],
        ]
        axes.errorbar(counts, scores, yerr=bars, color=TUNED, linewidth=1.8, marker="o", markersize=4, capsize=3, label="tuned model")
        if forecast:
            end, (low, high) = scores[-1] + forecast.gain, spread[-1]
            # The last score may be off as well as the gain.
            span = [[end - low - forecast.low], [max(min(high + forecast.high, 1.0) - end, 0.0)]]
            axes.plot([counts[-1], forecast.rows], [scores[-1], end], color=TUNED, linestyle=":", linewidth=1.8)
            axes.errorbar(
                [forecast.rows],
                [end],
                yerr=span,
                color=TUNED,
                marker="o",
                markersize=4,
                capsize=3,
                markerfacecolor="none",
                linestyle=":",
                label="forecast",
            )
        for line, dash in zip(curve.baselines, ("--", "-.", ":"), strict=False):
            axes.axhline(line.score, color=BASE, linestyle=dash, linewidth=1.2, label=line.what)
        axes.set(xscale="log", xlabel="training rows", ylabel=curve.what, ylim=(0, 1.02))
        ticks = [*counts, *([forecast.rows] if forecast else [])]
        axes.set_xticks(ticks, labels=[f"{count:,}" for count in ticks])
        axes.minorticks_off()
        axes.grid(linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return Markup(_inline(_svg(figure, pyplot), f"{curve.what} by training rows"))


def _points(events: list[dict], key: str) -> list[tuple[int, float]]:
    """The values by step; of a step that was repeated after an interruption, the last."""
    return sorted({event["step"]: event[key] for event in events if event.get(key) is not None}.items())


@contextmanager
def _style(label: str) -> Iterator[Any]:
    """pyplot, drawing SVG in the page's colours."""
    import matplotlib  # 60 MB that the laptop may do without

    matplotlib.use("svg")
    from matplotlib import pyplot

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.size": 10, "text.color": TEXT, "axes.labelcolor": TEXT}
    with matplotlib.rc_context(style | {"xtick.color": TEXT, "ytick.color": TEXT, "axes.edgecolor": GRID, "grid.color": GRID}):
        yield pyplot


def _svg(figure: Any, pyplot: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    pyplot.close(figure)
    return text.getvalue()


def _plot(label: str, series: list[tuple[str, str, list[tuple[int, float]]]], last: int) -> Markup:
    with _style(label) as pyplot:
        from matplotlib.ticker import MaxNLocator

        figure, axes = pyplot.subplots(figsize=(4.6, 2.7), layout="constrained")
        nonempty = [curve for curve in series if curve[2]]
        for name, colour, points in nonempty:
            marker = "o" if len(points) <= 40 else None
            # Dashes distinguish the two where colours do not.
            line: dict[str, Any] = {"linestyle": "--" if colour == BASE else "-", "linewidth": 1.8, "marker": marker, "markersize": 3.5}
            axes.plot(*zip(*points, strict=True), color=colour, label=name, **line)
        axes.set(xlabel="step", ylabel=label)
        # The same steps under every curve, and whole numbers only.
        axes.set_xlim(0, last * 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        highest = max(value for _, _, points in nonempty for _, value in points)
        axes.set_ylim(0, highest * 1.08 or 1)
        axes.grid(linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(nonempty) > 1:
            axes.legend(frameon=False)
        return Markup(_inline(_svg(figure, pyplot), f"{label} by step"))


def _inline(svg: str, label: str) -> str:
    """The drawing without what only a file of its own needs, in the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{label}">', svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)  # the page's own is inherited
    for stand_in, colour in COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg
