"""Answers of a finished run's model to new texts: on the box where it is up and free, else on this machine's CPU."""

import json
import secrets
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from conf.text import visible
from remote.aws import instance
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import download, manifest, runs, trainer_here

# Of a JSON Schema's file or `auto`, the fields of a run and its predictions: the line that holds answers to it.
Hold = Callable[[str, list[str] | None, bytes], str]


@dataclass(frozen=True)
class Chosen:
    run_id: str
    manifest_sha256: str
    lines: list[str]
    instance_id: str | None  # of the box that answers; None: this machine does
    on_box: bool
    here: bool


@dataclass(frozen=True)
class Questions:
    name: str  # the questions' name in S3


def choose(
    aws: Aws, run: schema.Run, run_id: str | None, what: str, read: Callable[[str], list[str]], answer_schema: str | None, hold: Hold
) -> Chosen:
    """Find the finished run, read what is asked, and choose who answers: the box where it is up and free, else this machine."""
    lines, store = read(what), Store(aws)
    run_id, (box, where) = runs.find_sealed(aws, run, run_id), choose_machine(aws, store, run.box.name)
    lines = schema_lines(store, run_id, answer_schema, hold) + lines
    screen.note(f"answering with {run_id} {where}")
    return Chosen(run_id, manifest.sha256(store, run_id), lines, box.id if box else None, box is not None, box is None)


def schema_lines(store: Store, run_id: str, answer_schema: str | None, hold: Hold) -> list[str]:
    """The line that holds the run's answers to a JSON Schema, where one is named."""
    if answer_schema is None:
        return []
    fields = runs.configuration(store, run_id).data.fields
    return [hold(answer_schema, fields, store.get(f"runs/{run_id}/predictions.jsonl") or b"")]


def choose_machine(aws: Aws, store: Store, box_name: str) -> tuple[instance.Instance | None, str]:
    """The box where it is up and free, None for this machine; and where that is, in words."""
    box = instance.find(aws, box_name)
    unfinished = [name for name, files in runs.listing(store).items() if "manifest.json" not in files]
    busy = next((name for name in unfinished if runs.state(store, name).active and runs.holder(store, name) == box_name), None)
    if box and box.state == "running" and box.metadata_closed and busy is None:
        return box, f"on the box ({box.id}, {box.instance_type})"
    why = f"`{busy}` needs the box" if busy else "there is no box" if box is None else f"the box is {box.state}"
    if box and box.state == "running" and not box.metadata_closed:
        why = "a container on the box could act by its role (`inv up` closes its metadata service to it)"
    return None, f"on this machine's CPU: {why}"


def upload_questions(aws: Aws, box_name: str, lines: list[str]) -> Questions:
    """Put the texts into S3, for the box."""
    name = f"questions/{box_name}/{secrets.token_hex(16)}"
    Store(aws).put(name, "".join(f"{line}\n" for line in lines).encode())
    return Questions(name)


def collect(aws: Aws, asked: str) -> None:
    """Print the box's answers, and remove them from S3, with all that a command that was killed has left beside them."""
    store, name = Store(aws), f"{asked}.answers"
    body = store.get(name)
    store.remove_all(list(store.names(f"{asked.rpartition('/')[0]}/")))
    try:
        if body is None:
            raise FileNotFoundError(name)
        _print(body.decode())
    except (FileNotFoundError, *runs.BROKEN) as error:
        what = f"{store.url(name)} is not a box's answer ({type(error).__name__})"
        raise Problem(
            what, "run the same command again; if this comes back, somebody else writes into this bucket", "damaged_run"
        ) from error


def predict_locally(aws: Aws, run: schema.Run, run_id: str, lines: list[str], root: Path) -> None:
    """Fetch the run and answer on this machine's CPU."""
    if find_spec("torch") is None:
        hint = "start the box, which has them: `inv up deploy`; or `pip install -r trainer/requirements.txt`"
        raise Problem("answering on this machine needs the trainer's packages", hint, reason="refused")
    folder = download.download(aws, run, run_id, root / run.runs).folder
    with tempfile.TemporaryFile() as answers:
        given = "".join(f"{line}\n" for line in lines).encode()
        trainer_here.run(f"answer with {run_id}", ["trainer.evaluate.predict", str(folder)], root, given, answers)
        answers.seek(0)
        _print(answers.read().decode())


def _print(text: str) -> None:
    shown = visible.visible if sys.stdout.isatty() else str  # what is not for a terminal stays as the model wrote it
    with screen.paused():
        for line in text.split("\n"):  # not splitlines(): an answer may hold any character that it takes for a line's end
            if line:
                print(shown(json.loads(line)["output"]))
