"""The carrier and the box's supervisor leave the same objects in S3 of the same run folder, the one by boto3, the other by the AWS CLI."""

import json
import shutil

import loaded
import pytest
import scripts

from carrier.ship import NotOurs, Shipper
from carrier.store import Store
from remote.plan.script import body, settings_block
from tests.unit.remote.scripts.test_script_ends import RUN, Box

STATE = {"phase": "running", "since": "2026-12-01T00:00:00Z", "heartbeat": "2026-12-01T00:00:01Z"}


@pytest.fixture
def box(tmp_path, aws):
    """The run's folder on a volume, and the tools that `ship.sh` needs; `aws` is the real one."""
    made = Box(tmp_path)
    (made.root / "bin/aws").write_text(f'#!/bin/sh\nPATH="{loaded.programs()}" exec aws "$@"\n')
    made.going_on()
    made.bucket = aws.cloud.bucket
    for prefix in ("box", "carrier"):
        store = Store(made.bucket, prefix)
        if names := store.names(""):
            store.remove(list(names))
        store.put(f"runs/{RUN}/box.json", b'{"name": "me", "instance": "i-1"}')
    return made


def ship_sh(box, *words: str) -> None:
    """What the supervisor does in a round of its own, behind `||` as there: `set -e` does not hold."""
    settings = {"REGION": "us-east-1", "MOUNT_PATH": "/mnt/training", "BUCKET": box.bucket, "PREFIX": "box", "LOG_GROUP": "/g"}
    settings |= {"STREAM_PREFIX": "s", "HUB_SECRET": "none", "TOKEN_AGE": "600"}
    above = "".join(body(name) for name in ("lib", "container", "ship"))
    text = f"#!/bin/bash\n{settings_block(settings)}{above}\nmirror() {{ :; }}\nchoose\n" + "\n".join(f"{word} || exit 3" for word in words)
    done = scripts.run(text, box.root)
    assert done.code == 0, done.stderr


def objects(bucket: str, prefix: str) -> dict[str, bytes]:
    store = Store(bucket, prefix)
    return {name: store.get(name, 1 << 30) for name in store.names("")}


def test_both_leave_the_same_objects_of_a_run_that_goes_on_and_of_its_end(box):
    folder = box.mount / "runs" / RUN
    carrier = Shipper(Store(box.bucket, "carrier"), RUN, folder, lambda: True)
    (folder / "state.json").write_text(json.dumps(STATE))
    (folder / "log.txt").write_bytes(b"one\ntwo\nhalf a li")
    (folder / "events.jsonl").write_text('{"event": "step"}\n')
    (folder / "decided.json").write_text("{}")
    for step, whole in (("step-000001", True), ("step-000002", False), ("part", True), ("step-odd", True)):
        place = folder / "checkpoints" / step
        place.mkdir(parents=True)
        (place / "adapter.bin").write_text(step)
        if whole:
            (place / "COMPLETE").write_text("{}")
    ship_sh(box, "ship")
    carrier.ship()
    assert objects(box.bucket, "carrier") == objects(box.bucket, "box")

    (folder / "log.txt").write_bytes(b"one\ntwo\nhalf a line\nthe last without an end")
    shutil.rmtree(folder / "checkpoints/step-000001")
    (folder / "checkpoints/step-000002/COMPLETE").write_text("{}")
    (folder / "adapter").mkdir()
    for name in ("manifest.json", "adapter/weights.bin", "left.part", "metrics.json"):
        (folder / name).write_text(name)
    (folder / "state.json").write_text(json.dumps(STATE | {"phase": "uploading"}))
    done = json.dumps(STATE | {"phase": "done"})
    ship_sh(box, "ship", "deliver")
    (folder / "state.json").write_text(done + "\n")
    ship_sh(box, "ship end")
    (folder / "state.json").write_text(json.dumps(STATE | {"phase": "uploading"}))
    carrier.ship()
    assert carrier.deliver()
    (folder / "state.json").write_text(done + "\n")
    carrier.ship(end=True)
    by_box, by_carrier = objects(box.bucket, "box"), objects(box.bucket, "carrier")
    assert b"".join(text for name, text in sorted(by_carrier.items()) if "/log/" in name) == (folder / "log.txt").read_bytes()
    assert by_carrier == by_box
    assert {name.split("/", 2)[2] for name in by_box} >= {"manifest.json", "adapter/weights.bin", "checkpoints/step-000002/adapter.bin"}


class WhileTraining(Store):
    """The trainer completes a checkpoint while a piece of its log is on its way."""

    def put(self, name, body, **more):
        if "/log/" in name:
            place = self.folder / "checkpoints/step-000004"
            place.mkdir(parents=True, exist_ok=True)
            (place / "COMPLETE").write_text("{}")
        return super().put(name, body, **more)


def test_a_checkpoint_that_is_written_while_the_log_is_sent_waits_for_its_steps_in_the_log(box):
    """An instance that is lost then would have its run go on after steps that no log has."""
    store = WhileTraining(box.bucket, "carrier")
    store.folder = box.mount / "runs" / RUN
    carrier = Shipper(store, RUN, store.folder, lambda: True)
    carrier.ship()
    assert not [name for name in store.names("") if "checkpoints" in name]
    carrier.ship()
    assert f"runs/{RUN}/checkpoints/step-000004/COMPLETE" in store.names("")


class WhilePruning(Store):
    """The trainer removes a checkpoint that it no longer keeps while the first of its files is on its way."""

    def upload(self, name, file):
        shutil.rmtree(self.folder / "checkpoints/step-000004", ignore_errors=True)
        return super().upload(name, file)


def test_a_checkpoint_that_the_trainer_removes_while_it_is_sent_arrives_whole(box):
    """It may save faster than S3 takes what it saves."""
    store = WhilePruning(box.bucket, "carrier")
    store.folder = box.mount / "runs" / RUN
    place = store.folder / "checkpoints/step-000004"
    place.mkdir(parents=True)
    for name in ("adapter.bin", "progress.json", "COMPLETE"):
        (place / name).write_text(name)
    Shipper(store, RUN, store.folder, lambda: True).ship()
    under = f"runs/{RUN}/checkpoints/step-000004/"
    sent = {name.removeprefix(under): store.get(name, 1 << 20).decode() for name in store.names(under)}
    assert sent == {name: name for name in ("adapter.bin", "progress.json", "COMPLETE")}


def test_a_checkpoint_of_more_files_than_a_process_may_open_ends_no_run(box, capsys):
    place = box.mount / "runs" / RUN / "checkpoints/step-000004"
    place.mkdir(parents=True)
    for name in (*map(str, range(300)), "COMPLETE"):
        (place / name).write_text(name)
    carrier = Shipper(Store(box.bucket, "carrier"), RUN, box.mount / "runs" / RUN, lambda: True)
    carrier.ship()
    assert "step-000004 holds what is no file, more than 256 files" in capsys.readouterr().err
    assert not carrier.store.names(f"runs/{RUN}/checkpoints/")


@pytest.mark.parametrize("lost", ["adapter.bin", "COMPLETE"])
def test_of_a_checkpoint_that_is_being_removed_nothing_is_sent_and_the_one_before_it_stays(box, monkeypatch, lost):
    folder = box.mount / "runs" / RUN
    carrier = Shipper(Store(box.bucket, "carrier"), RUN, folder, lambda: True)
    for step in (4, 8):
        place = folder / f"checkpoints/step-{step:06d}"
        place.mkdir(parents=True)
        for name in ("adapter.bin", "COMPLETE"):
            (place / name).write_text(name)
        if step == 4:
            carrier.ship()
    shutil.rmtree(folder / "checkpoints/step-000004")
    sendable = carrier._sendable

    def removing(below: str):  # before it is listed, or right behind
        listed = sendable(below)
        (place / lost).unlink()
        return listed if lost == "adapter.bin" else sendable(below)

    monkeypatch.setattr(carrier, "_sendable", removing)
    carrier.ship()
    names = carrier.store.names(f"runs/{RUN}/checkpoints/")
    assert {name.split("/", 3)[3] for name in names} == {"step-000004/adapter.bin", "step-000004/COMPLETE"}


def test_a_run_that_is_not_ours_any_more_is_not_touched(box):
    before = objects(box.bucket, "carrier")
    carrier = Shipper(Store(box.bucket, "carrier"), RUN, box.mount / "runs" / RUN, lambda: False)
    for send in (carrier.ship, carrier.deliver):
        with pytest.raises(NotOurs):
            send()
    assert objects(box.bucket, "carrier") == before
