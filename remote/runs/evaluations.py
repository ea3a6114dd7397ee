"""Scores of a finished run on other rows: computed on the box where it is up and free, else on this machine."""

import hashlib
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import download, manifest, predictions, runs, trainer_here

OTHER_WAYS = {"scaffold": "keys filled in", "schema": "held to a JSON Schema"}  # to answer than the run was scored, in words
Summary = Callable[[dict], list[tuple[str, str, str, str]]]  # of scores: rows of a table


@dataclass(frozen=True)
class Chosen:
    run_id: str
    manifest_sha256: str
    rows: Path
    file: str  # its name
    split: str  # that without its ending
    instance_id: str | None  # of the box that scores; None: this machine does
    on_box: bool
    here: bool


@dataclass(frozen=True)
class Sent:
    rows_sha256: str


def choose(aws: Aws, run: schema.Run, run_id: str | None, split: str, find: Callable[[schema.Data, str], Path]) -> Chosen:
    """Find the finished run and the rows, and choose who scores: the box where it is up and free, else this machine."""
    store = Store(aws)
    run_id = runs.find_sealed(aws, run, run_id)
    rows = find(runs.configuration(store, run_id).data, split).resolve()
    _check_same_rows(store, f"runs/{run_id}/evaluations/{rows.stem}.json", rows)
    box, place = predictions.choose_machine(aws, store, run.box.name)
    screen.note(f"scoring {run_id} on {rows}, {place}")
    return Chosen(run_id, manifest.sha256(store, run_id), rows, rows.name, rows.stem, box.id if box else None, box is not None, box is None)


def upload_rows(aws: Aws, rows: Path) -> Sent:
    """Put the rows into S3 by their hash, for the box."""
    sha256, _ = Store(aws).put_input(rows)
    return Sent(sha256)


def score(aws: Aws, run: schema.Run, run_id: str, rows: Path, scaffold: bool, answer_schema: bool, root: Path) -> None:
    """Fetch the run, score it on this machine, and keep the result beside it in S3."""
    if find_spec("torch") is None:
        hint = "start the box, which has them: `inv up deploy`; or `pip install -r trainer/requirements.txt`"
        raise Problem("scoring on this machine needs the trainer's packages", hint, reason="refused")
    folder, store = download.download(aws, run, run_id, root / run.runs).folder, Store(aws)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / rows.stem
        words = ["trainer.evaluate.evaluate_run", str(folder), str(rows), str(out), *["scaffold"] * scaffold, *["schema"] * answer_schema]
        trainer_here.run(f"score {run_id}", words, root)
        for ending in ("predictions.jsonl", "json"):
            name = f"{rows.stem}.{ending}"
            store.put(f"runs/{run_id}/evaluations/{name}", out.with_name(name).read_bytes())


def show_scores(aws: Aws, run_id: str, split: str, summary: Summary) -> None:
    """Print what is kept of the scores."""
    store, name = Store(aws), f"runs/{run_id}/evaluations/{split}.json"
    with runs.reading_record(run_id):
        _print(store.json(name) or {}, f"{run_id} on {split}", summary)
    screen.print(f"kept       {store.url(name)}")


def _print(scores: dict, what: str, summary: Summary) -> None:
    title = f"{what} ({scores['rows']} rows)"
    screen.print(scores_table(summary(scores), title))
    for way, words in OTHER_WAYS.items():
        if own := scores.get(way):
            screen.print(scores_table(summary({"task": scores["task"]} | own), f"{title}, {words}: no score of the run's"))
    if scores["trained_on"]:
        screen.print("note       the run was trained on these very rows: this is no test")


def _check_same_rows(store: Store, name: str, rows: Path) -> None:
    """A second evaluation under one name must be of the same rows: two results that cannot be told apart would be compared."""
    before = store.json(name)
    if before and before.get("rows_sha256") != hashlib.sha256(rows.read_bytes()).hexdigest():
        copy = shlex.join(["cp", str(rows), str(rows.with_stem(rows.stem + "_2"))])
        hint = f"give these another name: `{copy}`, then `--split` that file"
        raise Problem(f"{store.url(name)} holds the scores on other rows than {rows} has now", hint, "refused")


def scores_table(rows: Sequence[tuple[str, ...]], title: str | None = None) -> Table:
    table = Table("score", "base", "tuned", "", title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table
