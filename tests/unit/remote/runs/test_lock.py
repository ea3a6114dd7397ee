"""One command at a time on a box: the lock says whose it is, and one that was left behind is no wall."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from conf.problem import Problem
from remote.plan.perform import perform
from remote.plan.plan import Plan
from remote.runs import audit, lock


def held(store, **changed) -> dict:
    return json.loads(store.get("locks/mine.json")) | changed


def put(store, content: dict) -> None:
    store.put("locks/mine.json", json.dumps(content).encode())


def two_hours_ago() -> str:
    return (datetime.now(UTC) - timedelta(hours=2)).isoformat()


def test_the_second_command_is_told_who_works_on_the_box_and_what_to_do(aws, store):
    taken = lock.acquire(aws, "mine", "deploy")
    put(store, held(store, pid=1, who="somebody@elsewhere"))
    with pytest.raises(Problem, match=r"`deploy` of somebody@elsewhere") as caught:
        lock.acquire(aws, "mine", "up")
    assert "aws s3 rm s3://" in caught.value.hint
    assert "somebody@elsewhere" in lock.holder(aws, "mine")
    lock.release(aws, taken.lock)
    assert lock.holder(aws, "mine"), "only its own holder gives a lock back"


def test_given_back_it_is_free(aws, store):
    lock.release(aws, lock.acquire(aws, "mine", "up").lock)
    assert lock.holder(aws, "mine") is None
    lock.release(aws, lock.acquire(aws, "mine", "up").lock)


def test_a_dead_command_of_this_machine_leaves_no_wall(aws, store, capsys):
    lock.acquire(aws, "mine", "train")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout
    put(store, held(store, pid=int(dead)))
    taken = lock.acquire(aws, "mine", "up")
    assert "taking over the lock that was left by `train`" in capsys.readouterr().err
    lock.release(aws, taken.lock)


def test_a_lock_older_than_any_verb_takes_is_taken_over(aws, store):
    lock.acquire(aws, "mine", "up")
    put(store, held(store, who="somebody@elsewhere", **dict.fromkeys(("since", "seen"), two_hours_ago())))
    lock.release(aws, lock.acquire(aws, "mine", "down").lock)
    assert lock.holder(aws, "mine") is None


def test_a_plan_that_fails_gives_the_lock_back(aws, store):
    def broken(aws) -> None:
        """Break."""
        raise Problem("no", "try again", reason="refused")

    plan = Plan()
    plan.hold(plan.call(lock.acquire)(name="mine", verb="up").lock, lock.renew, lock.release)
    plan.call(broken)()
    with pytest.raises(Problem, match="no"):
        perform(plan, aws, None)
    assert lock.holder(aws, "mine") is None


def test_a_verb_that_takes_hours_keeps_its_lock_while_its_parts_go_on(aws, store, monkeypatch):
    monkeypatch.setattr(lock, "FRESH", 0)
    seen = []

    def taken(aws) -> lock.Acquired:
        """Have taken it."""
        return lock.Acquired(mine)

    def part(aws) -> None:
        """Take hours."""
        put_back = held(store)
        seen.append(put_back["seen"])
        other = json.dumps(put_back | {"who": "x@y", "since": two_hours_ago()}).encode()
        mine.etag = store.replace("locks/mine.json", other, mine.etag)
        with pytest.raises(Problem, match="somebody works on this box"):
            lock.acquire(aws, "mine", "up")

    mine, plan = lock.acquire(aws, "mine", "deploy").lock, Plan()
    plan.hold(plan.call(taken, announce=False)().lock, lock.renew, lock.release)
    for _ in range(2):
        plan.call(part, announce=False)()
    perform(plan, aws, None)
    assert len(seen) == 2 and lock.holder(aws, "mine") is None


def test_a_lock_that_somebody_took_over_ends_the_verb(aws, store, monkeypatch):
    monkeypatch.setattr(lock, "FRESH", 0)
    taken = lock.acquire(aws, "mine", "deploy").lock
    put(store, held(store, token="theirs", who="somebody@elsewhere"))
    with pytest.raises(Problem, match="no longer ours: `deploy` of somebody@elsewhere"):
        lock.renew(aws, taken)
    store.client.delete_object(Bucket=store.bucket, Key=store.key("locks/mine.json"))


def test_the_audit_says_who_has_done_what_on_which_box(store):
    audit.write(store, "up", "mine", 1.5, "ok")
    (line,) = [json.loads(store.get(name)) for name in store.names("audit/")]
    assert {name: line[name] for name in ("verb", "who", "box", "outcome")} == {
        "verb": "up",
        "who": lock.caller_id(),
        "box": "mine",
        "outcome": "ok",
    }
