"""A run's folder is readable at any moment, true when sealed, and never written again."""

import json
import os
import subprocess
import sys

import pytest

from conf.problem import Problem
from tests.unit.trainer.finished_run import FACTS, finished, sealed, settings, unsealed
from trainer import files
from trainer.record import record
from trainer.record.record import Record


def state(folder):
    return json.loads((folder / "state.json").read_text())


def test_says_what_the_run_is_doing(tmp_path):
    Record(tmp_path).phase("failed", "bad_data", "train.jsonl:17: no", "mend it")
    first_state = state(tmp_path)
    assert (first_state["phase"], first_state["reason"], first_state["evidence"], first_state["hint"]) == (
        "failed",
        "bad_data",
        "train.jsonl:17: no",
        "mend it",
    )
    assert first_state["since"].endswith("Z") and first_state["heartbeat"].endswith("Z")


def test_a_resumed_run_keeps_its_events_and_since_when_its_phase_holds(tmp_path):
    Record(tmp_path).phase("running")
    (tmp_path / "state.json").write_text(json.dumps({**state(tmp_path), "since": "2026-01-01T00:00:00Z"}))
    again = Record(tmp_path)
    again.phase("running")
    assert state(tmp_path)["since"] == "2026-01-01T00:00:00Z"
    again.phase("evaluating")
    assert state(tmp_path)["since"] != "2026-01-01T00:00:00Z"
    assert [event["phase"] for event in files.read_json_lines(tmp_path / "events.jsonl")] == ["running", "running", "evaluating"]


def test_a_line_torn_by_a_kill_is_dropped_and_the_events_go_on(tmp_path):
    Record(tmp_path).event("step", step=1, steps=2)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event":"st')
    Record(tmp_path).event("step", step=2, steps=2)
    assert [event["step"] for event in files.read_json_lines(tmp_path / "events.jsonl")] == [1, 2]


AT = b'{"time":"2026-11-22T06:00:00Z","event":'


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"not json",
        b"\xff",
        b'{"event":"step","step":1,"steps":2}',
        b'{"time":"2026-11-22T06:00:00","event":"step","step":1,"steps":2}',
        AT + b'"step","step":"1","steps":2}',
        AT + b'"step","step":1}',
        AT + b'"step","step":1,"steps":2,"loss":"low"}',
        AT + b'"step","step":1,"steps":2,"loss":1' + b"0" * 400 + b"}",
        AT + b'"eval","step":1}',
        AT + b'{"a":1}}',
    ],
)
def test_a_line_that_is_no_event_is_left_out_before_the_training_and_ends_no_seal(tmp_path, line, capsys):
    """It came with the run from the bucket, and the trainer ended when it drew the curves: all had been paid for."""
    run, run_record = settings(), unsealed(tmp_path, settings())
    before = run_record.events.read_bytes()
    run_record.events.write_bytes(line + b"\n" + before)
    again = Record(tmp_path)
    assert again.events.read_bytes() == before
    assert "events.jsonl: 1 lines that are no events are left out" in capsys.readouterr().err
    again.seal(run, FACTS)
    Record(tmp_path)
    assert capsys.readouterr().err == ""


def test_events_stay_valid_json_when_a_number_is_not_finite(tmp_path):
    Record(tmp_path).event("step", step=1, loss=float("nan"), more={"a": [float("inf"), 1.5]})

    def refuse(constant):
        raise AssertionError(constant)

    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line, parse_constant=refuse)
    assert event["loss"] is None and event["more"] == {"a": [None, 1.5]} and event["time"].endswith("Z")


def test_a_heartbeat_reaches_the_disk_at_most_once_a_second(tmp_path, monkeypatch):
    run = Record(tmp_path)
    run.phase("running")
    written = []
    monkeypatch.setattr(record, "write", lambda path, text: written.append(path.name))
    clock = iter([run.beaten + 0.5, run.beaten + 0.9, run.beaten + 1.1, run.beaten + 1.1])
    monkeypatch.setattr(record.time, "monotonic", lambda: next(clock))
    for _ in range(3):
        run.heartbeat()
    assert written == ["state.json"]


def test_a_kill_between_writing_and_renaming_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    files.write(path, "old")
    code = """if True:
        import os, pathlib, signal, sys
        from trainer import files
        pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        files.write(pathlib.Path(sys.argv[1]), "new")"""
    assert subprocess.run([sys.executable, "-c", code, path], env=os.environ | {"PYTHONPATH": "."}).returncode == -9
    assert path.read_text() == "old"


def test_the_manifest_comes_last_and_lists_every_file_but_those_that_change_later(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(record, "write", lambda path, text: (order.append(path.name), files.write(path, text)))
    folder = sealed(tmp_path / "run", settings())
    assert order[-1] == "manifest.json"
    listed = record.manifest(folder)["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - set(listed) == {"manifest.json", "state.json", "log.txt", "checkpoints/step-000016/optimizer.pt"}
    assert listed["metrics.json"] == {"size": (folder / "metrics.json").stat().st_size, "sha256": files.digest(folder / "metrics.json")}


def test_a_seal_that_breaks_off_leaves_the_run_unsealed(tmp_path, monkeypatch):
    run = settings()
    run_record = unsealed(tmp_path, run)
    monkeypatch.setattr(record.report, "render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_record.seal(run, FACTS)
    assert not record.sealed(tmp_path)
    with pytest.raises(Problem, match="not sealed"):
        record.verify(tmp_path)


def test_a_sealed_run_is_never_written_again(tmp_path):
    folder = finished(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = Record(folder)
    writes = [
        lambda: again.event("step", step=17),
        lambda: again.metrics({}),
        lambda: again.predictions([]),
        lambda: again.phase("running"),
        lambda: again.seal(settings(), FACTS),
    ]
    for attempt in writes:
        with pytest.raises(Problem, match="sealed") as refusal:
            attempt()
        assert refusal.value.reason == "refused"
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_state_of_a_sealed_run_moves_on_to_done(tmp_path):
    folder = finished(tmp_path)
    Record(folder).phase("done")
    assert state(folder)["phase"] == "done"
    record.verify(folder)


def test_the_price_is_that_of_the_seconds_or_unknown(tmp_path):
    assert record.manifest(finished(tmp_path / "a"))["price"]["total"] is None
    run = settings()
    run.provenance.price_per_hour, run.provenance.price_source = 0.978, "Price List API, 2026-11-22"
    price = unsealed(tmp_path / "b", run).seal(run, FACTS)["price"]
    assert price == {
        "per_hour": 0.978,
        "source": "Price List API, 2026-11-22",
        "seconds": 188.0,
        "total": pytest.approx(0.978 * 188 / 3600),
        "attempts": 1,
    }


def test_the_price_counts_what_an_interrupted_attempt_took_and_nothing_between_attempts(tmp_path, monkeypatch):
    run = settings()
    run.provenance.price_per_hour = 3.6
    monkeypatch.setattr(record, "now", lambda: "2026-11-29T12:05:00Z")
    run_record = unsealed(tmp_path, run)
    moments = (("10:00:00", "running"), ("10:20:00", "failed"), ("12:00:00", "running"), ("12:01:00", "evaluating"))
    events = [{"time": f"2026-11-29T{moment}Z", "event": "phase", "phase": phase} for moment, phase in moments]
    run_record.events.write_text("".join(json.dumps(event) + "\n" for event in events))
    price = run_record.seal(run, FACTS)["price"]
    assert (price["attempts"], price["seconds"]) == (2, 20 * 60 + 5 * 60)
    assert price["total"] == pytest.approx(1.5)


def damage_bytes(folder):
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"WEIGHTS" * 1000)


def damage_size(folder):
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"short")


def remove(folder):
    (folder / "adapter" / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize("damage", [damage_bytes, damage_size, remove])
def test_a_damaged_file_is_named(tmp_path, damage):
    folder = finished(tmp_path)
    record.verify(folder)
    damage(folder)
    with pytest.raises(Problem, match=r"adapter/adapter_model\.safetensors") as problem:
        record.verify(folder)
    assert problem.value.reason == "damaged_run"


def test_the_log_may_grow_but_not_change(tmp_path):
    folder = finished(tmp_path)
    with (folder / "log.txt").open("a") as log:
        log.write("after the seal\n")
    (folder / "published.json").write_text("{}")
    record.verify(folder)
    (folder / "log.txt").write_text("another\n")
    with pytest.raises(Problem, match=r"log\.txt"):
        record.verify(folder)


def test_the_recipe_comes_back_from_the_folder(tmp_path):
    assert record.settings(finished(tmp_path)).train.lr == 2e-3


def test_a_token_that_was_printed_is_in_no_file_of_the_run(tmp_path, monkeypatch):
    token = "hf_printed_by_a_library"
    monkeypatch.setenv("HF_TOKEN", token)
    run_record = record.Record(tmp_path)
    (tmp_path / "log.txt").write_text(f"GET /api/whoami-v2 with {token}\n")
    run_record.phase("running")
    run_record.event("step", step=1, note=f"401 for {token}")
    run_record.phase("failed", "model_unavailable", f"401 for {token}", "a hint")
    assert record._log(tmp_path)["sha256"] == record.digest(tmp_path / "log.txt")
    texts = [path.read_text() for path in tmp_path.iterdir()]
    assert len(texts) == 3 and not any(token in text for text in texts)
