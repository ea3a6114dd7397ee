"""What `inv clean` removes: only what came to nothing; the box is asked first, and nobody waits for a human who thinks."""

import json

import pytest

from conf.problem import Problem
from remote.aws import instance, volume
from remote.plan import verbs
from remote.plan.perform import perform
from remote.runs import clean, lock, runs
from remote.transport.transport import Result

OLD = "2026-01-01T00:00:00Z"


def put(store, run_id: str, phase: str, beat: str = OLD, reason: str = "", holder: str = "ours") -> None:
    store.put(f"runs/{run_id}/config.yaml", b"x")
    state = {"phase": phase, "since": beat, "heartbeat": beat, "reason": reason}
    store.put(f"runs/{run_id}/state.json", json.dumps(state).encode())
    store.put(f"runs/{run_id}/box.json", json.dumps({"name": holder, "instance": "i-1"}).encode())


@pytest.fixture
def a_volume(monkeypatch):
    """The box has a volume, wherever that is."""
    monkeypatch.setattr(volume, "zone", lambda aws, name: "us-east-1a")


def chosen(aws, mounted: bool = True, going: str = "", whole: str = "") -> list[str]:
    return list(clean.choose(aws, "ours", None, True, mounted, tuple(going.split()), tuple(whole.split())).removed)


def test_a_run_that_the_box_has_is_kept_however_long_s3_has_not_heard_of_it(aws, store, a_volume, capsys):
    for run_id in ("going", "whole", "dead"):
        put(store, run_id, "running")
    assert chosen(aws, going="going", whole="whole") == ["dead"]
    printed = capsys.readouterr().err
    assert "going  goes on; it stays" in printed
    assert "whole  ended well, and S3 has not all of it; the volume of `ours` may: `inv up deploy train`" in printed
    assert "dead  running, never finished" in printed


def test_where_the_box_cannot_say_it_what_ended_well_is_kept(aws, store, a_volume, monkeypatch):
    put(store, "uploading", "uploading")
    put(store, "undelivered", "failed", reason="unreachable")
    put(store, "crashed", "failed", reason="crashed")
    assert chosen(aws, mounted=False) == ["crashed"]
    assert chosen(aws, mounted=True) == ["crashed", "undelivered", "uploading"]
    monkeypatch.setattr(volume, "zone", lambda aws, name: None)
    assert chosen(aws, mounted=False) == ["crashed", "undelivered", "uploading"], "there is no volume that could have it"


def test_a_run_of_another_box_is_left_to_that_one(aws, store, a_volume, capsys):
    put(store, "silent", "running", holder="theirs")
    put(store, "failed", "failed", holder="theirs")
    assert chosen(aws) == ["failed"]
    assert "`inv clean -- box.name=theirs`" in capsys.readouterr().err


class Scripts:
    """The box's end: what it has, each time it is asked."""

    def __init__(self, *held: str):
        self.held, self.texts = list(held), []

    def __call__(self, aws, instance_id):
        return self

    def run(self, script, timeout, title=""):
        self.texts.append(script)
        return Result(0, f"@@ mounted=yes\n@@ going={self.held.pop(0)}\n@@ whole=\n" if "held" in title else "@@ changed=yes\n")


@pytest.fixture
def running(monkeypatch, a_volume):
    """The box runs."""
    monkeypatch.setattr(instance, "find_optional", lambda aws, name: instance.Presence("i-1", True, True))


def test_nobody_holds_the_lock_while_a_human_thinks(aws, store, settings, running, monkeypatch):
    put(store, "dead", "failed")

    def think(yes: bool, what: str) -> None:
        assert lock.holder(aws, "ours") is None
        put(store, "new", "created", beat=runs.now())

    monkeypatch.setattr(clean.confirm, "ask", think)
    box_end = Scripts("", "new")
    perform(verbs.clean(settings("box.name=ours"), None, False), aws, box_end)
    assert list(runs.listing(store)) == ["new"]
    assert "KEPT=new\n" in box_end.texts[-1]


def test_a_run_that_the_box_has_begun_meanwhile_is_not_removed(aws, store, settings, running):
    put(store, "dead", "failed")
    with pytest.raises(Problem, match="`dead` has started again meanwhile"):
        perform(verbs.clean(settings("box.name=ours"), None, True), aws, Scripts("", "dead"))
    assert list(runs.listing(store)) == ["dead"]
