"""Watching from afar: the end of a log without all of it, and a wait that a network or a login may interrupt."""

import json

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.session import Retry
from remote.runs import follow, progress, runs
from remote.view import show


@pytest.mark.parametrize("cuts", [[0, 500], [0, 3, 4, 200, 201, 480], list(range(0, 500, 7))])
def test_the_tail_is_the_last_lines_wherever_the_chunks_were_cut(aws, store, cuts):
    text = b"".join(b"line %03d\n" % number for number in range(50))
    cuts = [cut for cut in cuts if cut < len(text)] + [len(text)]
    for start, end in zip(cuts, cuts[1:], strict=False):
        store.put(f"runs/t/log/{start:012d}", text[start:end])
    for lines in (1, 2, 49, 50, 500):
        tail = b"".join(follow.log(store, "t", follow.tail(store, "t", lines)))
        assert tail.splitlines() == text.splitlines()[-lines:]


def test_a_long_wait_goes_on_after_the_network_and_the_login_are_back(aws, store, monkeypatch, capsys):
    store.put("runs/w/state.json", json.dumps({"phase": "done", "since": runs.now(), "heartbeat": runs.now()}).encode())
    store.put("runs/w/manifest.json", json.dumps({"kind": "full", "files": {}, "seconds": {"train": 1}}).encode())
    troubles = [
        EndpointConnectionError(endpoint_url="https://s3"),
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetObject"),
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetObject"),
    ]
    usual = runs.state

    def state(store, run_id):
        if troubles:
            raise troubles.pop(0)
        return usual(store, run_id)

    monkeypatch.setattr(runs, "state", state)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert follow.attach(aws, "w", "box", None).run_id == "w"
    output = capsys.readouterr().err
    assert output.count("AWS does not answer. w goes on") == 1
    assert output.count("credentials have expired; log in from another shell") == 1


def test_what_waiting_does_not_mend_ends_the_wait(aws):
    with pytest.raises(ClientError, match="AccessDenied"):
        Retry(aws, "it goes on").wait(ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject"))


def set_state(store, phase: str, beat: str) -> None:
    store.put("runs/the-run/state.json", json.dumps({"phase": phase, "since": beat, "heartbeat": beat}).encode())


def test_a_followed_log_goes_on_at_its_byte_after_the_login_is_back(aws, store, settings, monkeypatch, capsysbinary):
    """Two chunks, and between them the credentials expire twice: each byte comes once, and it is said once."""
    text = b"".join(b"line %03d\n" % number for number in range(20))
    set_state(store, "running", runs.now())
    store.put("runs/the-run/log/000000000000", text[:50])
    usual, calls = follow.log, []

    def log(store, run_id, offset=0):
        calls.append(offset)
        if len(calls) in (2, 3):
            raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetObject")
        if len(calls) == 4:
            store.put("runs/the-run/log/000000000050", text[50:])
            set_state(store, "done", runs.now())
        return usual(store, run_id, offset)

    monkeypatch.setattr(follow, "log", log)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    show.logs(aws, settings("box.name=no-such-box"), "the-run", True, None)
    printed = capsysbinary.readouterr()
    assert printed.out == text
    assert printed.err.count(b"credentials have expired; log in from another shell. the run goes on") == 1
    assert calls[:4] == [0, 50, 50, 50]


def test_a_followed_log_ends_with_a_sentence_where_nobody_is_left_to_end_the_run(aws, store, settings):
    set_state(store, "running", "2026-01-01T00:00:00Z")
    store.put("runs/the-run/log/000000000000", b"line\n")
    with pytest.raises(Problem, match="the box is gone and the-run is not finished.*\n\nhint: `inv up deploy train`"):
        show.logs(aws, settings("box.name=no-such-box"), "the-run", True, None)
    show.logs(aws, settings("box.name=no-such-box"), "the-run", False, 1)


@pytest.mark.parametrize("reason", ["of somebody's own", "[/x]", "\x1b[31m"])
def test_a_run_that_failed_for_a_reason_of_somebody_else_s_is_a_sentence(aws, store, reason):
    told = {"phase": "failed", "reason": reason, "evidence": "no", "since": runs.now(), "heartbeat": runs.now()}
    store.put("runs/the-run/state.json", json.dumps(told).encode())
    with pytest.raises(Problem, match="the-run failed ") as ended:
        follow.attach(aws, "the-run", "box", None)
    assert ended.value.reason == "crashed"


def test_without_following_a_refusal_is_told_at_once(aws, store, settings, monkeypatch):
    set_state(store, "running", runs.now())

    def refused(store, run_id):
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetObject")

    monkeypatch.setattr(runs, "state", refused)
    with pytest.raises(ClientError):
        show.logs(aws, settings(), "the-run", False, None)


def test_who_stops_watching_is_told_what_attaches_again(aws, store, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    set_state(store, "running", runs.now())
    monkeypatch.setattr("time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        follow.attach(aws, "the-run", "box", None)
    assert "the-run goes on. `inv train` or `inv logs --follow` attaches again, `inv down` stops the box" in str(caught.value)


REFUSALS = [("InternalError", 500), ("SlowDown", 503), ("ThrottlingException", 400)]


@pytest.mark.parametrize(("code", "status"), REFUSALS)
def test_trouble_of_aws_itself_ends_no_watch_and_is_said(aws, store, monkeypatch, capsys, code, status):
    set_state(store, "done", runs.now())
    store.put("runs/the-run/manifest.json", json.dumps({"kind": "full", "files": {}, "seconds": {"train": 1}}).encode())
    answer = {"Error": {"Code": code, "Message": "later"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    troubles, usual = [ClientError(answer, "GetObject")] * 3, runs.state

    def state(store, run_id):
        if troubles:
            raise troubles.pop()
        return usual(store, run_id)

    monkeypatch.setattr(runs, "state", state)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert follow.attach(aws, "the-run", "box", 0.9776).run_id == "the-run"
    assert capsys.readouterr().err.count(f"AWS has an internal error or throttles the account ({code}). the-run goes on") == 1


def test_a_line_that_is_cut_is_no_event_yet():
    step = b'{"event": "step", "step": 1, "steps": 2}'
    assert len(progress.complete_events(step + b"\n" + b'{"event": "step", "eval": {"a": 1}')) == 1
    assert progress.complete_events(step) == []
    assert len(progress.complete_events(b'{"event": "st' + step + b"\n" + step + b"\n")) == 1


class Quiet:
    """A run of which nothing is heard, on a box that runs, until somebody stops watching."""

    def __init__(self, store, monkeypatch):
        set_state(store, "running", "2026-01-01T00:00:00Z")
        store.put("runs/the-run/log/000000000000", b"line\n")
        self.looks = 0
        monkeypatch.setattr(follow, "check_box", lambda *about: None)
        monkeypatch.setattr("time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        if self.looks == 3:
            raise KeyboardInterrupt


def test_where_the_box_runs_and_nothing_lives_the_watcher_is_told_for_how_long(aws, store, settings, monkeypatch, capsys):
    Quiet(store, monkeypatch)
    seen = []
    monkeypatch.setattr(screen, "status", lambda text, *share, below: seen.append(text))
    with pytest.raises(KeyboardInterrupt):
        follow.attach(aws, "the-run", "box", 0.9776)
    assert "no sign of life for " in seen[-1] and seen[-1].startswith("running  $0.00 so far; ")
    Quiet(store, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        show.logs(aws, settings("box.name=no-such-box"), "the-run", True, None)
    assert capsys.readouterr().err.count("no sign of life for ") == 1


def test_a_terminal_shows_the_course_of_a_run_and_its_ceiling(aws, store, monkeypatch):
    Quiet(store, monkeypatch)
    steps = [event(0, event="phase", phase="running"), event(1, step=1, loss=2.5, tok_s=400.0, mem=3.14e9), event(2, step=2, loss=None)]
    steps += [event(3, event="eval", loss=2.0), event(30, step=3, loss=0.5, tok_s=410.0, mem=3.21e9), event(30, event="eval", loss=1.0)]
    store.put("runs/the-run/events.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in steps))
    seen = []
    monkeypatch.setattr(screen, "status", lambda text, *share, below: seen.append(below))
    with pytest.raises(KeyboardInterrupt):
        follow.attach(aws, "the-run", "box", 1.0, 8.0)
    curves = ["loss      2.500 █▁ 0.500", "held out  2.000 █▁ 1.000", "speed     400 ▁█ 410 tokens/s", "memory    3.2 GB at most"]
    assert seen[-1] == [*curves, "cost      $0.50 of at most $8.00"]


def test_events_that_no_trainer_writes_have_no_course():
    assert progress.curves([event(0, loss="high"), event(1, loss="low")]) == []
    assert progress.curves([event(0, step=1, loss=2.0, tok_s=1.0)]) == []


def test_the_log_is_shown_beside_the_progress_in_whole_lines_from_now_on(aws, store, monkeypatch, capsys):
    set_state(store, "running", runs.now())
    store.put("runs/the-run/log/000000000000", b"before\n")
    pieces = [b"one\ntw", "o ü".encode()[:-1], "ü".encode()[-1:] + b" \x1b[31m\nthree"]
    offsets = [7, 13, 16]

    def sleep(seconds: float) -> None:
        if not pieces:
            raise KeyboardInterrupt
        store.put(f"runs/the-run/log/{offsets.pop(0):012d}", pieces.pop(0))

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        follow.attach(aws, "the-run", "box", None, with_log=True)
    assert capsys.readouterr().err == "one\ntwo ü \\x1b[31m\n"


def test_events_are_fetched_as_often_as_the_box_ships_them(aws, store, monkeypatch):
    Quiet(store, monkeypatch)
    usual, asked = type(store).get, []
    monkeypatch.setattr(type(store), "get", lambda self, name, *most: asked.append(name) or usual(self, name, *most))
    with pytest.raises(KeyboardInterrupt):
        follow.attach(aws, "the-run", "box", 0.9776)
    assert asked.count("runs/the-run/state.json") == 3
    assert asked.count("runs/the-run/events.jsonl") == 1


@pytest.mark.parametrize("body", [b'{"phase": "runn', b"[]", b"\xff\xfe", b'{"phase": ""}'])
def test_a_torn_state_is_said_and_is_no_traceback(store, body):
    store.put("runs/the-run/state.json", body)
    state = runs.state(store, "the-run")
    assert (state.phase, state.evidence, state.active) == ("unknown", "its state.json in S3 cannot be read", False)


def test_a_letter_that_was_cut_spoils_no_state(store):
    store.put("runs/the-run/state.json", '{"phase": "failed", "evidence": "naïv'.encode()[:-2] + b'\xc3"}')
    assert runs.state(store, "the-run").phase == "failed"


def event(minute: int, **more) -> dict:
    return {"time": f"2026-01-01T00:{minute:02d}:00Z", "event": "step"} | more


def test_time_between_two_attempts_of_a_run_costs_it_nothing():
    begins = {"event": "phase", "phase": "running"}
    events = [event(0, **begins), event(4), event(30, **begins), event(31), event(0), {"event": "step", "time": "never"}, event(2)]
    assert progress.seconds_worked(events) == 60 * (4 + 1 + 2)
    assert progress.seconds_worked([]) == 0


def test_the_share_that_is_done_is_of_steps_or_of_rows_and_never_of_what_no_trainer_writes():
    assert progress.share_done("running", [event(0, step=3, steps=16)]) == (3, 16)
    scoring = {"event": "progress", "what": "scoring", "done": 1, "of": 4}
    assert progress.share_done("evaluating", [event(0, step=16, steps=16), scoring]) == (1, 4)
    assert progress.share_done("starting", [event(0, step=3, steps=16)]) == (0, 0)
    for strange in ({}, {"step": "3", "steps": 16}, {"step": 17, "steps": 16}, {"step": -1, "steps": 16}):
        assert progress.share_done("running", [event(0, **strange)]) == (0, 0)
