"""Training in a process of its own, in seconds: a fork of the tests' process, which has imported everything already.

It ends where scoring begins: the adapter is written by then.
"""

import importlib
import os
import time
import traceback
from pathlib import Path

from conf import load, schema
from trainer import __main__ as command
from trainer import evaluate
from trainer.team import Team

importlib.import_module("trainer.recipe")  # before the fork: a child starts to train at once
ADAPTER = "adapter/adapter_model.safetensors"


def make(settings: schema.Recipe, name: str) -> Path:
    """A run folder that holds its configuration only, as the box finds it."""
    settings.run_id = name
    folder = Path(settings.runs) / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    return folder


def start(settings: schema.Recipe, folder: Path, **environment: str) -> int:
    """The process id of a child that trains in `folder`, and dies as a process does."""
    child = os.fork()
    if child == 0:
        try:
            log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.update(environment)
            evaluate.compare = lambda *_: os._exit(0)
            command.train(settings, folder, Team())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def finish(child: int, folder: Path) -> None:
    """Wait until the child has trained to the end."""
    _, status = os.waitpid(child, 0)
    assert status == 0, (folder / "log.txt").read_text()


def whole(settings: schema.Recipe, folder: Path) -> float:
    """Train to the end; the seconds it took."""
    begun = time.monotonic()
    finish(start(settings, folder), folder)
    return time.monotonic() - begun
