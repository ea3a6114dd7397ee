"""A sealed run's manifest: what a finished run consists of, and the hash of each file."""

import hashlib
import re

from remote.aws.s3 import Store
from remote.runs.runs import reading_record

# The trainer writes nothing else.
ROOM = r"(adapter|merged|tensorboard|evaluations)/[A-Za-z0-9_][A-Za-z0-9._=+@ -]*"
FILE = re.compile(rf"{ROOM}|(config\.yaml|decided\.json|(events|predictions)\.jsonl|metrics\.json|card\.md|report\.html)")
SHA256 = re.compile(r"[0-9a-f]{64}")  # it becomes part of a key in S3, and a word of a command on the box
MOST = 10_000  # files of a run
LARGEST = 1 << 24  # bytes of a manifest


def read(store: Store, run_id: str) -> dict | None:
    """What a sealed run says about itself; None of a run that has no manifest in S3, a Problem where it is none that a trainer writes."""
    body = store.get(_name(run_id), LARGEST)
    return None if body is None else check(store, run_id, body)


def sha256(store: Store, run_id: str) -> str:
    """The sha256 of a sealed run's manifest: the box takes the run's files for what that one says."""
    return hashlib.sha256(body(store, run_id)).hexdigest()


def body(store: Store, run_id: str) -> bytes:
    """The bytes of a sealed run's manifest, once they are one."""
    content = store.get(_name(run_id), LARGEST) or b""
    check(store, run_id, content)
    return content


def check(store: Store, run_id: str, body: bytes) -> dict:
    stated = store.parse_json(_name(run_id), body)
    with reading_record(run_id):
        files = stated["files"]
        if len(files) > MOST or not isinstance(stated["kind"], str) or stated.get("run_id", run_id) != run_id:
            raise ValueError(f"{len(files)} files of a {stated['kind']} run {stated.get('run_id')}")
        for name, file in files.items():
            if not FILE.fullmatch(name):
                raise ValueError(f"it names a file {name[:100]!r}")
            if not (isinstance(file["size"], int) and file["size"] >= 0 and SHA256.fullmatch(file["sha256"])):
                raise ValueError(f"it says of {name} {file}")
    return stated


def _name(run_id: str) -> str:
    return f"runs/{run_id}/manifest.json"
