"""A finished run's model behind OpenAI's chat API on a port of this machine, until Ctrl-C: which run, and who answers."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import local_port
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import download, manifest, predictions, runs, trainer_here


@dataclass(frozen=True)
class Chosen:
    run_id: str
    manifest_sha256: str
    lines: list[str]  # the schema to which all answers are held, where there is one
    instance_id: str | None  # of the box that answers; None: this machine does
    on_box: bool
    here: bool


def choose(
    aws: Aws, run: schema.Run, run_id: str | None, port: int, answer_schema: str | None, hold: predictions.Hold, verb: str = "serve"
) -> Chosen:
    """Find the finished run and a free port, and choose who answers: the box where it is up and free, else this machine."""
    local_port.check(port, f"inv {verb} --port")
    store, run_id = Store(aws), runs.find_sealed(aws, run, run_id)
    box, where = predictions.choose_machine(aws, store, run.box.name)
    if box and answer_schema is not None:
        box, where = None, "on this machine's CPU: here alone all answers are held to a schema"
    screen.note(f"{run_id} answers {where}")
    lines = predictions.schema_lines(store, run_id, answer_schema, hold)
    return Chosen(run_id, manifest.sha256(store, run_id), lines, box.id if box else None, box is not None, box is None)


def serve(aws: Aws, run: schema.Run, run_id: str, port: int, lines: list[str], root: Path, verb: str = "serve") -> None:
    """Fetch the run, and answer with its model on this machine until Ctrl-C."""
    if find_spec("torch") is None:
        what = "serving a model needs the trainer's packages on this machine"
        raise Problem(what, "`pip install -r trainer/requirements.txt`", reason="refused")
    folder = download.download(aws, run, run_id, root / run.runs).folder
    try:
        words = ["trainer.evaluate.serve", str(folder), str(port)]
        again = f"`inv play --run {run_id} --port {port}`" if verb == "play" else f"`inv serve --run {run_id} --port {port}`"
        trainer_here.run(f"serve {run_id}", words, root, "\n".join(lines).encode(), instead=f"then {again}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{run_id} is no longer served") from None
