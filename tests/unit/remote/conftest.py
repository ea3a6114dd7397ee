"""An account for the tests of remote/: the emulated one, reached through the real protocols."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import botocore.endpoint
import botocore.waiter
import loaded
import pytest

from conf import load, paths
from conf.text.quoting import quoted
from remote.account import stack
from remote.aws.s3 import Store
from remote.aws.session import Aws


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    from twin import world

    loaded.worlds()
    state = tmp_path_factory.mktemp("world")
    run = load.load(["cloud=twin", f"cloud.state={quoted(state)}"], local=Path("none"))
    cloud = run.cloud
    world.start(state, {}, stack.account(run))
    with pytest.MonkeyPatch.context() as patch:
        loaded.enter(patch, state)
        yield Aws(cloud)
    world.stop(state)


@pytest.fixture
def store(aws):
    """The account's bucket, with no run in it."""
    made = Store(aws)
    for name in made.names(""):
        made.client.delete_object(Bucket=made.bucket, Key=made.key(name))
    return made


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings whose two data files exist, with the folder that they are relative to."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "{name}", "completion": "c"}}\n')

    def make(*words):
        return load.load(["cloud=twin", "data.train=train.jsonl", "data.validation=validation.jsonl", *words], local=Path("none"))

    make.root = tmp_path
    return make


@pytest.fixture(autouse=True)
def no_colour(monkeypatch):
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Between two tries boto3 waits a twentieth of its time: as often, and the emulator is as far."""
    hasty = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: time.sleep(seconds / 20)})
    for module in (botocore.endpoint, botocore.waiter):
        monkeypatch.setattr(module, "time", hasty)
