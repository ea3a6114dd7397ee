"""What is computed on this machine with a finished run: answers to new texts, and scores on other rows."""

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


def predict(aws: Aws, run: schema.Run, run_id: str | None, what: str, root: Path) -> None:
    """Print what a finished run's adapter answers: to a text, to a file's text, to each line of a .jsonl file, or to stdin."""
    lines = _asked(what)
    _packages()
    folder = runs.download(aws, run_id, run.kind.value, root / run.runs)["folder"]
    print(f"answering with {folder.name}", file=sys.stderr)
    command = [sys.executable, "-m", "trainer.predict", str(folder)]
    done = subprocess.run(command, input="".join(f"{line}\n" for line in lines), text=True, stdout=subprocess.PIPE, cwd=root)
    if done.returncode:
        raise Problem(f"the trainer could not answer with {folder.name}", "its own words are above", reason="crashed")
    for line in done.stdout.split("\n"):  # not splitlines(): an answer may hold any character that it takes for a line's end
        if line:
            print(json.loads(line)["output"])


def evaluate(aws: Aws, run: schema.Run, run_id: str | None, split: str, root: Path, summary: Callable) -> None:
    """Score a finished run on other rows, keep the result beside it in S3 as evaluations/<split>.json, and print it."""
    _packages()
    folder = runs.download(aws, run_id, run.kind.value, root / run.runs)["folder"]
    store, rows = Store(aws), find_rows(runs.configuration(Store(aws), folder.name), split, root)
    name = f"runs/{folder.name}/evaluations/{rows.stem}.json"
    _same_rows(store, name, rows)
    print(f"scoring {folder.name} on {rows}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / rows.stem
        done = subprocess.run([sys.executable, "-m", "trainer.examine", str(folder), str(rows), str(out)], stdout=sys.stderr, cwd=root)
        if done.returncode:
            raise Problem(f"the trainer could not score {folder.name}", "its own words are above", reason="crashed")
        found = out.with_name(f"{rows.stem}.json").read_bytes()
        store.put(
            f"runs/{folder.name}/evaluations/{rows.stem}.predictions.jsonl", out.with_name(f"{rows.stem}.predictions.jsonl").read_bytes()
        )
        store.put(name, found)
    scores = json.loads(found)
    Console(width=120, highlight=False).print(show.scores(summary(scores), f"{folder.name} on {rows.stem} ({scores['rows']} rows)"))
    if scores["trained_on"]:
        print("note       the run was trained on these very rows: this is no test")
    print(f"kept       {store.url(name)}")


def find_rows(run: schema.Run, split: str, root: Path) -> Path:
    """The file that a split means: a path, or <split>.jsonl beside the run's held-out rows."""
    if split.endswith(".jsonl"):
        path = Path(split)
        if not path.is_file():
            raise Problem(f"there is no file {split}", "name a .jsonl file, or a split", reason="bad_data")
        return path.resolve()
    place = (root / run.data.validation).parent
    path = place / f"{split}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in place.glob("*.jsonl"))) or "none"
        raise Problem(f"there is no split `{split}` in {place}", f"there are: {known}; or name a file: `--split FILE.jsonl`", "bad_data")
    return path


def _same_rows(store: Store, name: str, rows: Path) -> None:
    """A second evaluation under one name must be of the same rows: two results that cannot be told apart would be compared."""
    before = store.get(name)
    if before and json.loads(before)["rows_sha256"] != hashlib.sha256(rows.read_bytes()).hexdigest():
        hint = f"give these another name: `cp {rows} {rows.with_stem(rows.stem + '_2')}`, then `--split` that file"
        raise Problem(f"{store.url(name)} holds the scores on other rows than {rows} has now", hint, "refused")


def _asked(what: str) -> list[str]:
    """The lines that the trainer reads: one for a text, one for each row of a .jsonl file."""
    if what == "-":
        return [json.dumps({"input": sys.stdin.read()})]
    if what.endswith((".jsonl", ".txt", ".md")) and "\n" not in what:
        path = Path(what)
        if not path.is_file():
            raise Problem(f"there is no file {what}", "name a file, or give the text itself", reason="bad_data")
        body = path.read_text(encoding="utf-8")
        return [line for line in body.split("\n") if line.strip()] if path.suffix == ".jsonl" else [json.dumps({"input": body})]
    return [json.dumps({"input": what})]


def _packages() -> None:
    if find_spec("torch") is None:
        raise Problem("answering here needs the trainer's packages", "`pip install -r trainer/requirements.txt`", reason="refused")
