"""What is computed on this machine with a finished run: scores on other rows."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from conf import schema
from conf.problem import Problem
from remote import runs, show
from remote.aws import Aws
from remote.store import Store


def evaluate(
    aws: Aws, run: schema.Run, run_id: str | None, split: str, root: Path, find: Callable, summary: Callable, scaffold: bool = False
) -> None:
    """Score a finished run on other rows, keep the result beside it in S3 as evaluations/<split>.json, and print it.

    `find` tells which file a split of the run's data is. With `scaffold` both models answer once more with the keys filled in;
    those scores are a table of their own.
    """
    _packages()
    folder = runs.download(aws, run_id, run.kind.value, root / run.runs)["folder"]
    store = Store(aws)
    rows = find(runs.configuration(store, folder.name).data, split).resolve()
    name = f"runs/{folder.name}/evaluations/{rows.stem}.json"
    _same_rows(store, name, rows)
    print(f"scoring {folder.name} on {rows}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / rows.stem
        words = [sys.executable, "-m", "trainer.examine", str(folder), str(rows), str(out), *["scaffold"] * scaffold]
        done = subprocess.run(words, stdout=sys.stderr, cwd=root)
        if done.returncode:
            raise Problem(f"the trainer could not score {folder.name}", "its own words are above", reason="crashed")
        found = out.with_name(f"{rows.stem}.json").read_bytes()
        store.put(
            f"runs/{folder.name}/evaluations/{rows.stem}.predictions.jsonl", out.with_name(f"{rows.stem}.predictions.jsonl").read_bytes()
        )
        store.put(name, found)
    scores = json.loads(found)
    screen, title = Console(width=120, highlight=False), f"{folder.name} on {rows.stem} ({scores['rows']} rows)"
    screen.print(show.scores(summary(scores), title))
    if filled := scores.get("scaffold"):
        screen.print(show.scores(summary({"task": scores["task"]} | filled), f"{title}, keys filled in: no score of the run's"))
    if scores["trained_on"]:
        print("note       the run was trained on these very rows: this is no test")
    print(f"kept       {store.url(name)}")


def _same_rows(store: Store, name: str, rows: Path) -> None:
    """A second evaluation under one name must be of the same rows: two results that cannot be told apart would be compared."""
    before = store.get(name)
    if before and json.loads(before)["rows_sha256"] != hashlib.sha256(rows.read_bytes()).hexdigest():
        hint = f"give these another name: `cp {rows} {rows.with_stem(rows.stem + '_2')}`, then `--split` that file"
        raise Problem(f"{store.url(name)} holds the scores on other rows than {rows} has now", hint, "refused")


def _packages() -> None:
    if find_spec("torch") is None:
        raise Problem("scoring here needs the trainer's packages", "`pip install -r trainer/requirements.txt`", reason="refused")
