"""One command at a time works on a box: a lock in S3 that says whose command it is."""

import json
import os
import secrets
import shlex
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf.problem import Problem
from conf.process import caller
from conf.process.screen import screen
from remote.aws.s3 import Store
from remote.aws.session import Aws

LONGEST = timedelta(hours=1)  # no part of a verb takes longer, and each renews it: what is older was left behind
MOST_PID = 2**31  # what a process can be called
FRESH = 300  # seconds in which it need not be renewed


@dataclass
class Lock:
    """A lock that is ours; it changes as it is renewed."""

    key: str
    etag: str
    content: dict  # what it says
    renewed: float
    released: bool = False


@dataclass(frozen=True)
class Acquired:
    lock: Lock


def acquire(aws: Aws, name: str, verb: str) -> Acquired:
    """Take the box's lock in S3, so that two commands never work on it at once."""
    store, key = Store(aws), f"locks/{name}.json"
    mine = {"who": caller_id(), "pid": os.getpid(), "verb": verb, "token": secrets.token_hex(8)}
    mine["since"] = mine["seen"] = _now()
    body = json.dumps(mine).encode()
    etag = store.create(key, body) or _take_over(store, key, body, mine)
    return Acquired(Lock(key, etag, mine, time.monotonic()))


def renew(aws: Aws, lock: Lock) -> None:
    """The lock is ours for another while; a Problem where it was taken from us."""
    if lock.released or time.monotonic() - lock.renewed < FRESH:
        return
    store, mine = Store(aws), lock.content | {"seen": _now()}
    etag = store.replace(lock.key, json.dumps(mine).encode(), lock.etag)
    if etag is None:
        current, etag = _read(store, lock.key)
        if (
            current is None or etag is None or current["token"] != mine["token"]
        ):  # else our first answer was lost, and botocore has asked twice
            whose = _describe(current) if current else "nobody"
            raise Problem(f"the lock of this box is no longer ours: {whose} has it", "`inv status`, then the same command again", "refused")
    lock.etag, lock.renewed = etag, time.monotonic()


def caller_id() -> str:
    return f"{caller.name()}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def release(aws: Aws, lock: Lock) -> None:
    """Give the box's lock back."""
    if not lock.released:
        Store(aws).remove(lock.key, lock.etag)
        lock.released = True


def holder(aws: Aws, name: str) -> str | None:
    """Who works on the box, in words, or None."""
    current, _ = _read(Store(aws), f"locks/{name}.json")
    return _describe(current) if current else None


def _read(store: Store, key: str) -> tuple[dict | None, str | None]:
    """The lock that is there, and its etag. What is none that we write was left by somebody that nobody knows."""
    body, etag = store.get_with_etag(key)
    unknown = {"who": "somebody", "pid": 0, "verb": "?", "token": "", "since": "its beginning", "seen": ""}
    if body is None:
        return None, None
    try:
        lock = store.parse_json(key, body)
        datetime.now(UTC) - datetime.fromisoformat(lock.get("seen", lock["since"]))
        texts = all(isinstance(lock[name], str) for name in ("who", "verb", "token", "since"))
        return (lock, etag) if texts and isinstance(lock["pid"], int) and 0 < lock["pid"] < MOST_PID else (unknown, etag)
    except (Problem, KeyError, TypeError, ValueError):
        return unknown, etag


def _take_over(store: Store, key: str, body: bytes, mine: dict) -> str:
    """The lock's etag, taken over: it was ours already, or its holder is gone."""
    current, etag = _read(store, key)
    if current is None or etag is None:
        etag = store.create(key, body)
    elif current["token"] == mine["token"]:
        return etag  # the first answer was lost, and botocore has sent the request twice
    elif _is_abandoned(current, mine["who"]):
        screen.note(f"  taking over the lock that was left by {_describe(current)}")
        etag = store.replace(key, body, etag)
    else:
        etag = None
    if etag is None:
        raise Problem(
            f"somebody works on this box: {_describe(current or mine)}",
            f"wait for it, or, if that command is dead: `aws s3 rm {shlex.quote(store.url(key))}`",
            reason="refused",
        )
    return etag


def _is_abandoned(lock: dict, me: str) -> bool:
    if not lock["token"]:  # unreadable: only a person may remove it
        return False
    if datetime.now(UTC) - datetime.fromisoformat(lock.get("seen", lock["since"])) > LONGEST:
        return True
    return lock["who"] == me and not _alive(lock["pid"])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _describe(lock: dict) -> str:
    return f"`{lock['verb']}` of {lock['who']} (process {lock['pid']}) since {lock['since']}"
