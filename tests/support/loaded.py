"""Programs that the tests start often, each loaded once and forked for every call (twin/forkserver.py): a process of its own, at once."""

import atexit
import copy
import fcntl
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import base

ROOT = Path(__file__).resolve().parents[2]
NO_CONFIGURATION = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


@functools.cache
def inv() -> tuple[str, ...]:
    """The words that run `inv` as `python -m invoke` does, in half the time."""
    return sys.executable, "-I", "-S", str(ROOT / "twin/forkserver.py"), served("tests/support/warm_inv.py")


@functools.cache
def worlds() -> None:
    """Every world that is started from now on is a fork of one process that has loaded it; so is each call of `aws` on a box."""
    from twin import world

    os.environ["TWIN_AWS"] = aws()[-1]
    os.environ["TWIN_WARM"] = served("-m", "twin", "--serve", environment=world.MOTO)


def descriptions() -> None:
    """Every session in this process shares what AWS's clients read about its services: a tenth of a second for each client."""
    import botocore.session

    loader = botocore.session.create_loader()
    botocore.session.create_loader = lambda path: loader


def settings() -> None:
    """What the same files compose to is composed once in this process, and copied then: that saves a tenth of a second.

    Hydra itself lays over the copy what chooses no file. What it refuses in parts is composed as a whole, for the words of its refusal.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override

    from conf import load

    compose, parser, known = load.compose, OverridesParser.create(), {}

    def chooses(word: Override) -> bool:
        key = word.key_or_group
        return word.package is not None or key.startswith("hydra") or (load.FOLDER / key.replace(".", "/")).is_dir()

    def in_parts(name: str, words: list[Override]):
        if any(word.is_sweep_override() for word in words):
            raise ValueError("no single value")
        files = tuple((path, path.stat().st_mtime_ns) for path in sorted(load.FOLDER.rglob("*.yaml")))
        choices = [word.input_line for word in words if chooses(word)]
        if (asked := (name, *choices, files)) not in known:
            known[asked] = compose(name, overrides=choices)
        made = copy.deepcopy(known[asked])
        ConfigLoaderImpl._apply_overrides_to_config([word for word in words if not chooses(word)], made)
        return made

    def composed(name: str, overrides: list[str]):
        try:
            return in_parts(name, parser.parse_overrides(overrides))
        except Exception:  # the real way tells what is wrong
            return compose(name, overrides=overrides)

    load.compose = composed
    base.parse = functools.cache(base.parse)  # the same `${...}` stand in all of them


def curves() -> None:
    """What the same events look like is drawn once in this process: that saves a third of a second for each run that is sealed."""
    from trainer.record import curves

    plot, known = curves._plot, {}

    @functools.wraps(plot)
    def drawn(*of):
        if (asked := repr(of)) not in known:
            known[asked] = plot(*of)
        return known[asked]

    curves._plot = drawn


def enter(patch, state: Path) -> None:
    """From now on this process is a laptop of this world: its environment names it, and nothing remembers the keys of another."""
    from twin import world

    for name, value in world.environment(state).items():
        patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
    patch.setattr("boto3.DEFAULT_SESSION", None)


@functools.cache
def aws() -> tuple[str, ...]:
    """The words that run the unmodified AWS CLI, as the boxes do."""
    return sys.executable, "-I", "-S", str(ROOT / "twin/box/aws.py"), served("tests/support/warm_aws.py", environment=NO_CONFIGURATION)


@functools.cache
def programs() -> str:
    """A PATH with this environment's AWS CLI first; its own script cannot start where the path of its Python holds a space."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "aws").write_text(f'#!/bin/sh\nexec {shlex.join(aws())} "$@"\n', encoding="utf-8")
    (place / "aws").chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


@functools.cache
def trainer() -> tuple[str, ...]:
    """The words that stand for `python -m` in an image: what follows begins with `trainer` or `carrier`."""
    return sys.executable, "-I", "-S", str(ROOT / "twin/forkserver.py"), served("tests/support/warm_trainer.py", name="trainer")


def worker() -> str:
    """How execnet starts a Python that has imported already what most tests need."""
    words = sys.executable, "-I", "-S", str(ROOT / "twin/forkserver.py"), served("tests/support/warm_worker.py")
    return f"popen//python={shlex.join(words)}"


@functools.cache
def folder() -> Path:
    """Where this process, and whatever it starts, finds what is kept loaded: one of each for all of xdist's workers.

    All of it ends with the process that has asked first, which alone holds the other end of its standard input.
    """
    if "TESTS_LOADED" not in os.environ:
        made = os.environ["TESTS_LOADED"] = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        os.mkfifo(Path(made, "alive"))
        os.open(Path(made, "alive"), os.O_RDWR)  # until this process ends
    return Path(os.environ["TESTS_LOADED"])


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of xdist's workers who wants it fills for all of them: to be read only."""
    place = folder() / "made" / name
    place.parent.mkdir(exist_ok=True)
    whole = place.with_name(f"{name} is whole")
    with place.with_name(f"{name} lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            whole.touch()
    return place


def served(*program: str, environment: dict[str, str] | None = None, name: str = "calls") -> str:
    """Where a program that is kept loaded takes calls."""
    place = folder() / Path(program[-1]).stem.strip("-") / name
    place.parent.mkdir(exist_ok=True)
    with (place.parent / "lock").open("w") as lock, (folder() / "alive").open() as alive:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return str(place)
        # Each call brings what it knows of AWS; none of it may be this process's.
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | (environment or {})
        server = subprocess.Popen([sys.executable, *program, str(place)], stdin=alive, cwd=ROOT, env=own, start_new_session=True)
        while not place.exists():
            assert server.poll() is None, f"{program} ended"
            time.sleep(0.01)
    return str(place)
