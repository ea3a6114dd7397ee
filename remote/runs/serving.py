"""A finished run's model behind OpenAI's chat API on this machine, until Ctrl-C."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from conf import schema
from conf.problem import Problem
from conf.process.screen import screen
from remote import local_port
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import download, predictions, runs, trainer_here


@dataclass(frozen=True)
class Chosen:
    run_id: str
    lines: list[str]  # the schema to which all answers are held, where there is one


def choose(aws: Aws, run: schema.Run, run_id: str | None, port: int, answer_schema: str | None, hold: predictions.Hold) -> Chosen:
    """Find the finished run and a free port."""
    local_port.check(port, "inv serve --port")
    store, run_id = Store(aws), runs.find_sealed(aws, run, run_id)
    screen.note(f"serving {run_id} on this machine")
    return Chosen(run_id, predictions.schema_lines(store, run_id, answer_schema, hold))


def serve(aws: Aws, run: schema.Run, run_id: str, port: int, lines: list[str], root: Path) -> None:
    """Fetch the run, and answer with its model on this machine until Ctrl-C."""
    if find_spec("torch") is None:
        what = "serving a model needs the trainer's packages on this machine"
        raise Problem(what, "`pip install -r trainer/requirements.txt`", reason="refused")
    folder = download.download(aws, run, run_id, root / run.runs).folder
    try:
        words = ["trainer.evaluate.serve", str(folder), str(port)]
        again = f"then `inv serve --run {run_id} --port {port}`"
        trainer_here.run(f"serve {run_id}", words, root, "\n".join(lines).encode(), instead=again)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{run_id} is no longer served") from None
