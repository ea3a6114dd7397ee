"""Training in a process of its own, in seconds: a fork of a server that has imported everything already, and computed nothing.

The tests' own process has computed; a fork of it has torch's locks and no threads, and torch dies there now and then of an
"Invalid thread pool!". A run here ends where scoring begins: the adapter is written by then.
"""

import importlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from conf import load, schema
from tests.unit.trainer import formats
from trainer import __main__ as command
from trainer.evaluate import evaluate
from trainer.model.distributed import RENDEZVOUS, ProcessGroup
from trainer.train import launch

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


def of_several(count: int) -> list[dict[str, str]]:
    """The environments that `launch` gives processes that train together."""
    meeting = {RENDEZVOUS: tempfile.mkdtemp(prefix="meeting-"), "WORLD_SIZE": str(count), "CUDA_VISIBLE_DEVICES": ""}
    meeting |= {"GLOO_SOCKET_IFNAME": launch.LOOPBACK}
    return [meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def start_several(settings: schema.Recipe, folder: Path, count: int) -> list[BaseProcess]:
    """Children that train together."""
    return [start(settings, folder, **environment) for environment in of_several(count)]


def call_together(function: Callable[..., None], folder: Path, count: int, *arguments) -> None:
    """Call a function in `count` processes that compute together; it gets their group, and may assert."""
    children = [SERVED.Process(target=_call, args=(function, folder, environment, arguments)) for environment in of_several(count)]
    for child in children:
        child.start()
    for child in children:
        finish(child, folder)


def _call(function: Callable[..., None], folder: Path, environment: dict[str, str], arguments: tuple) -> None:
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        with formats.computed_in("fp32"):
            function(ProcessGroup(), *arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def together(settings: schema.Recipe, folder: Path, count: int) -> None:
    """Train to the end by `count` processes."""
    for child in start_several(settings, folder, count):
        finish(child, folder)


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
