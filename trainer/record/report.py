"""A run as one self-contained page, and as rows for a terminal.

The page asks nothing of any network: its style, curves and rows are in it. It shows rows of the user's data, so it stays with
the run and is never published. Everything that comes from outside (rows, answers, names) is escaped.
"""

import json
from functools import partial
from pathlib import Path

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined

from data import score
from trainer import files
from trainer.record import coach, curves, figures, gpu

TEMPLATES = Path(__file__).parent / "templates"
LONG = 300  # characters of a value in an example of what is wrong
EXAMPLES = 4  # examples of each sort


def render(folder: Path, manifest: dict | None = None) -> str:
    """The page of the run in `folder`. `manifest` is given while the file is not written yet."""
    manifest = manifest or json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    events = files.read_json_lines(folder / "events.jsonl")
    wrong, right = _examples(files.read_json_lines(folder / "predictions.jsonl"), metrics)
    return _template().render(
        run=manifest,
        metrics=metrics,
        lines=figures.summary(metrics),
        fields=figures.fields(metrics),
        slices=_with_a_difference(figures.slices(metrics)),
        forms=figures.forms(metrics),
        plots=curves.draw(events),
        gpu_use=gpu.sentence(gpu.usage(events)),
        baselines=figures.baselines(metrics),
        tuned_score=next(line for line in figures.summary(metrics) if line.key == figures.SLICED[metrics["task"]][0]),
        score_name=figures.HEADLINES[metrics["task"]][figures.SLICED[metrics["task"]][0]],
        coach=coach.of_folder(folder, metrics),
        groups=coach.SHOWN,
        wrong=wrong[:EXAMPLES],
        right=right[:EXAMPLES],
        count={"wrong": len(wrong), "right": len(right)},
        config=(folder / "config.yaml").read_text(encoding="utf-8"),
        longest=max(manifest["seconds"].values(), default=0),
    )


def _with_a_difference(slices: list[figures.Slice]) -> list[figures.Slice]:
    """Those of kinds that tell rows apart: one group of all rows says what the headline says."""
    kinds = [part.kind for part in slices]
    return [part for part in slices if kinds.count(part.kind) > 1 or part.kind not in ("length", "split")]


def summary(metrics: dict) -> list[tuple[str, str, str, str]]:
    """Rows for a table: what, base, tuned, and whether tuning made it better or worse."""
    verdicts = {True: "better", False: "worse", None: ""}
    lines = [(line.what, line) for line in figures.summary(metrics)] + [(f"F1 of {line.what}", line) for line in figures.fields(metrics)]
    return [
        (what, figures.text(line.base, line.base_interval), figures.text(line.tuned, line.tuned_interval), verdicts[line.better])
        for what, line in lines
    ]


def advice(folder: Path, metrics: dict) -> list[str]:
    """Lines for a terminal: what needs no model beside the tuned one, what is wrong with its answers, and what to do."""
    lines = (
        [f"without a model: {' · '.join(f'{each.what} {figures.text(each.score)}' for each in beside)}"]
        if (beside := figures.baselines(metrics))
        else []
    )
    used = gpu.sentence(gpu.usage(files.read_json_lines(folder / "events.jsonl")))
    return lines + coach.lines(coach.of_folder(folder, metrics)) + [used] * bool(used)


def table(metrics: dict) -> list[dict]:
    """Every figure of a run as a row for a spreadsheet."""
    lines = [("score", line.key, line) for line in figures.summary(metrics)] + [("f1", line.key, line) for line in figures.fields(metrics)]
    rows = [
        {"kind": kind, "name": name, "rows": metrics["rows"]}
        | _side("base", line.base, line.base_interval)
        | _side("tuned", line.tuned, line.tuned_interval)
        for kind, name, line in lines
    ]
    return rows + [
        {"kind": part.kind, "name": part.name, "rows": part.rows} | _side("base", part.base, None) | _side("tuned", part.tuned, None)
        for part in figures.slices(metrics)
    ]


def _side(side: str, value: float | None, interval: list[float] | None) -> dict:
    low, high = interval or (None, None)
    return {side: value, f"{side}_low": low, f"{side}_high": high}


def _examples(predictions: list[dict], metrics: dict) -> tuple[list[dict], list[dict]]:
    """The scored rows that the tuned model answered wrong, and those that it answered right."""
    scored = list(metrics["tuned"].get("fields", {}))
    compare = partial(_objects, scored=scored) if metrics["task"] == "extraction" else _texts
    examples = [compare(row) | {"id": row["id"], "prompt": _words(row["prompt"])} for row in predictions]
    return [example for example in examples if not example["right"]], [example for example in examples if example["right"]]


def _objects(row: dict, scored: list[str]) -> dict:
    """An example whose answers are objects: a line for each field that is scored, with each side's answer and whether it is right."""
    expected = score.parse(row["expected"]) or {}
    answers = {side: score.parse(row[side]) for side in ("base", "tuned") if isinstance(row.get(side), str)}
    whole = {side: answer for side, answer in answers.items() if answer is not None}
    table = {name: [_cell(name, answer.get(name), expected.get(name)) for answer in whole.values()] for name in scored}
    right = "tuned" in whole and all(cells[-1]["right"] for cells in table.values())
    lines = [{"name": name, "expected": _value(expected.get(name)), "cells": cells} for name, cells in table.items()]
    return {"fields": lines, "sides": list(whole), "broken": {side: row[side] for side in answers if side not in whole}, "right": right}


def _cell(name: str, answer: object, expected: object) -> dict:
    predicted, right = score.compared(answer, expected, name)
    return {"text": _value(answer), "right": predicted == right}


def _texts(row: dict) -> dict:
    """An example of free text: the answers as they are."""
    sides = {side: row[side] for side in ("base", "tuned") if isinstance(row.get(side), str)}
    right = {side: score.normalise(text) == score.normalise(row["expected"]) for side, text in sides.items()}
    return {"expected": row["expected"], "texts": sides, "right": right["tuned"], "each": right}


def _value(value: object) -> str:
    if value in (None, "", []):
        return "–"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "; ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(prompt: str | list[dict]) -> str:
    return prompt if isinstance(prompt, str) else "\n\n".join(turn["content"] for turn in prompt)


def _template():
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=lambda value: figures.MISSING if value is None or isinstance(value, Undefined) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "text": figures.text,
        "bounds": lambda interval: f"{interval[0]:.3f} – {interval[1]:.3f}",
        "signed": lambda value: f"{value:+.3f}",
        "share": lambda value: f"{100 * (value or 0):.1f}%",
        "duration": figures.duration,
        "size": figures.size,
        "money": figures.money,
        "shorten": lambda text: text if len(text) <= LONG else f"{text[:LONG]}…",
        "image": figures.image,
    }
    return environment.get_template("report.html.j2")
