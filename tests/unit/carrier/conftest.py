"""A job on an account of its own, reached through the real protocols; its trainer is a few lines of Python."""

import hashlib
import json
import sys
import threading
import time
from pathlib import Path

import pytest

from carrier import ending, instance, job, process
from carrier.ending import Words
from carrier.job import Job
from carrier.store import Store
from conf import load
from tests.unit.remote.conftest import aws  # noqa: F401

RUN = "20261122-000000-tiny-0000"
# What a trainer leaves: `{}` stands for what it does in between.
TRAINER = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[2])
def state(phase, **more): (folder / "state.json").write_text(json.dumps({{"phase": phase, "since": now(), "heartbeat": now(), **more}}))
def now(): return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
def checkpoint(step):
    place = folder / f"checkpoints/step-{{step:06d}}"
    place.mkdir(parents=True)
    (place / "adapter.bin").write_text(str(step))
    (place / "COMPLETE").write_text("{{}}")
def seal():
    (folder / "adapter").mkdir()
    (folder / "adapter/weights").write_text("w")
    (folder / "manifest.json").write_text("{{}}")
    state("uploading")
log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
state("running")
{}
"""


class Fleet:
    """A bucket with one run in it, and jobs that take it."""

    def __init__(self, store: Store, root: Path, monkeypatch):
        self.store, self.root, self.monkeypatch = store, root, monkeypatch
        run = load.load(["cloud=twin", "experiment=smoke", f"run_id={RUN}"], local=Path("none"))
        run.data.train_sha256, run.data.validation_sha256 = map(self.input, ("train", "validation"))
        body = load.dump(run).encode()
        self.config = hashlib.sha256(body).hexdigest()
        self.put("config.yaml", body)
        self.put("state.json", json.dumps({"phase": "created"}).encode())

    def input(self, text: str) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.store.put(f"inputs/{digest}", text.encode())
        return digest

    def put(self, name: str, body: bytes) -> None:
        self.store.put(f"runs/{RUN}/{name}", body)

    def get(self, name: str) -> bytes | None:
        return self.store.get(f"runs/{RUN}/{name}", 1 << 20)

    def json(self, name: str) -> dict:
        return json.loads(self.get(name) or b"{}")

    def names(self) -> set[str]:
        return {name.removeprefix(f"runs/{RUN}/") for name in self.store.names(f"runs/{RUN}/")}

    def log(self) -> bytes:
        return b"".join(self.get(name) for name in sorted(self.names()) if name.startswith("log/"))

    def job(self, trains: str, number: str = "job-1", attempt: int = 1, seconds: float = 3600, limit: str = "fleet.max_hours") -> Job:
        self.monkeypatch.setattr(process, "COMMAND", [sys.executable, "-S", "-c", TRAINER.format(trains)])
        self.monkeypatch.setenv("AWS_BATCH_JOB_ID", number)
        self.monkeypatch.setenv("AWS_BATCH_JOB_ATTEMPT", str(attempt))
        return Job(Words(RUN, self.config, seconds, limit, 3), self.store, self.root)

    def when(self, true, act) -> None:
        """Do something once it is true."""

        def watch():
            while not true():
                time.sleep(0.02)
            act()

        threading.Thread(target=watch, daemon=True).start()


@pytest.fixture
def fleet(aws, tmp_path, monkeypatch):  # noqa: F811
    store = Store(aws.cloud.bucket, "fleet")
    if names := store.names(""):
        store.remove(list(names))
    monkeypatch.setenv("HUB_SECRET", aws.cloud.hub_secret)
    monkeypatch.setattr(instance, "about", lambda: {"host": "i-1"})
    monkeypatch.setattr(instance, "_said", lambda path: None)
    monkeypatch.setattr(process, "owner", lambda: None)
    for module, name in ((job, "PERIOD"), (job, "WHOSE"), (ending, "NOTICE"), (ending, "HANGS")):
        monkeypatch.setattr(module, name, 0.05)
    return Fleet(store, tmp_path / "cache", monkeypatch)
