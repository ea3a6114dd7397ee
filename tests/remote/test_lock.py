"""One command at a time on a box: the lock says whose it is, and one that was left behind is no wall."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from conf.problem import Problem
from remote import lock, plan
from remote.step import Call


def held(store, **changed) -> dict:
    return json.loads(store.get("locks/mine.json")) | changed


def put(store, found: dict) -> None:
    store.put("locks/mine.json", json.dumps(found).encode())


def test_the_second_command_is_told_who_works_on_the_box_and_what_to_do(aws, store):
    taken = lock.take(aws, "mine", "deploy")
    put(store, held(store, pid=1, who="somebody@elsewhere"))
    with pytest.raises(Problem, match=r"`inv deploy` of somebody@elsewhere") as caught:
        lock.take(aws, "mine", "up")
    assert "aws s3 rm s3://" in caught.value.hint
    assert "somebody@elsewhere" in lock.holder(aws, "mine")
    lock.release(aws, taken["lock"])
    assert lock.holder(aws, "mine"), "only its own holder gives a lock back"


def test_given_back_it_is_free(aws, store):
    lock.release(aws, lock.take(aws, "mine", "up")["lock"])
    assert lock.holder(aws, "mine") is None
    lock.release(aws, lock.take(aws, "mine", "up")["lock"])


def test_a_dead_command_of_this_machine_leaves_no_wall(aws, store, capsys):
    lock.take(aws, "mine", "train")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout
    put(store, held(store, pid=int(dead)))
    taken = lock.take(aws, "mine", "up")
    assert "taking over the lock that was left by `inv train`" in capsys.readouterr().err
    lock.release(aws, taken["lock"])


def test_a_lock_older_than_any_verb_takes_is_taken_over(aws, store):
    lock.take(aws, "mine", "up")
    put(store, held(store, who="somebody@elsewhere", since=(datetime.now(UTC) - timedelta(hours=2)).isoformat()))
    lock.release(aws, lock.take(aws, "mine", "down")["lock"])
    assert lock.holder(aws, "mine") is None


def test_a_plan_that_fails_gives_the_lock_back(aws, store):
    def broken(aws) -> dict:
        """Break."""
        raise Problem("no", "try again", reason="refused")

    with pytest.raises(Problem, match="no"):
        plan.perform([Call(lock.take, {"name": "mine", "verb": "up"}), Call(broken)], aws, None)
    assert lock.holder(aws, "mine") is None
