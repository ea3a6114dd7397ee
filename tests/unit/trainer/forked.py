"""Training in a process of its own, in seconds: a fork of a server that has imported everything already, and computed nothing.

The tests' own process has computed; a fork of it has torch's locks and no threads, and torch dies there now and then of an
"Invalid thread pool!". A run here ends where scoring begins: the adapter is written by then.
"""

import importlib
import multiprocessing
import os
import time
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path

from conf import load, schema
from tests.unit.trainer import formats
from trainer import __main__ as command
from trainer.evaluate import evaluate
from trainer.train.distributed import ProcessGroup

importlib.import_module("trainer.train.recipe")  # in the server: a child starts to train at once
ADAPTER = "adapter/adapter_model.safetensors"
SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload([__name__])


def make(settings: schema.Recipe, name: str) -> Path:
    """A run folder that holds its configuration only, as the box finds it."""
    settings.run_id = name
    folder = Path(settings.runs) / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(load.dump(settings))
    return folder


def start(settings: schema.Recipe, folder: Path, **environment: str) -> BaseProcess:
    """A child that trains in `folder`, in the number format of this moment, and dies as a process does."""
    child = SERVED.Process(target=train, args=(settings, folder, formats.current(), os.environ | environment))
    child.start()
    return child


def train(settings: schema.Recipe, folder: Path, number_format: str, environment: dict[str, str]) -> None:
    """The whole life of the child."""
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        evaluate.compare = lambda *_: os._exit(0)
        with formats.computed_in(number_format):
            command.train(settings, folder, ProcessGroup())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def finish(child: BaseProcess, folder: Path) -> None:
    """Wait until the child has trained to the end."""
    child.join()
    assert child.exitcode == 0, (folder / "log.txt").read_text()


def whole(settings: schema.Recipe, folder: Path) -> float:
    """Train to the end; the seconds it took."""
    started = time.monotonic()
    finish(start(settings, folder), folder)
    return time.monotonic() - started
