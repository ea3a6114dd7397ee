"""Runs, as S3 tells of them: which run a verb means, its state, its files."""

import hashlib
import json
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conf import load, paths, schema
from conf.problem import Problem
from remote import price
from remote.aws import Aws
from remote.store import Store

HUB = "hub:"  # what a dataset of the Hub begins with; any other source of rows is a file
ACTIVE = {"created", "starting", "running", "evaluating", "uploading"}
# A run that has not been heard of for so long is no longer in the way of another.
SILENT = timedelta(minutes=10)


@dataclass(frozen=True)
class State:
    """A run's state.json, with the run's id."""

    run_id: str
    phase: str
    since: str = ""
    reason: str = ""
    evidence: str = ""
    hint: str = ""
    heartbeat: str = ""

    @property
    def age(self) -> timedelta:
        """Since the last sign of life."""
        last = max(self.heartbeat or "", self.since or "")
        return datetime.now(UTC) - datetime.fromisoformat(last) if last else timedelta.max

    @property
    def active(self) -> bool:
        return self.phase in ACTIVE and self.age < SILENT


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(name: str) -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}"


def listing(store: Store) -> dict[str, set[str]]:
    """Every run, oldest first, with the names of its files."""
    found: dict[str, set[str]] = {}
    for name in store.names("runs/"):
        _, run_id, rest = name.split("/", 2)
        found.setdefault(run_id, set()).add(rest)
    return dict(sorted(found.items()))


def state(store: Store, run_id: str) -> State:
    body = store.get(f"runs/{run_id}/state.json")
    values = _values(body) if body else {"phase": "created"}
    known = {key: values.get(key) or "" for key in State.__dataclass_fields__ if key != "run_id"}
    return State(run_id, **known)


def _values(body: bytes) -> dict:
    """What a state.json says; one that is cut says that of itself."""
    try:
        values = json.loads(body.decode(errors="replace"))  # evidence is cut by bytes, maybe within a letter
    except ValueError:
        values = None
    if isinstance(values, dict) and values.get("phase"):
        return values
    return {
        "phase": "unknown",
        "reason": "damaged_run",
        "evidence": "its state.json in S3 cannot be read",
        "hint": "`inv logs` shows its log",
    }


def configuration(store: Store, run_id: str) -> schema.Run:
    body = store.get(f"runs/{run_id}/config.yaml")
    if body is None:
        raise Problem(f"there is no run `{run_id}`", "`inv status` lists the runs", reason="refused")
    return load.read(body.decode())


def sealed(store: Store, run_id: str | None, kind: str) -> str:
    """The id of the sealed run that a verb means: the one named, or the newest of this kind."""
    found = listing(store)
    if run_id is not None:
        if run_id not in found:
            raise Problem(f"there is no run `{run_id}`", "`inv status` lists the runs", reason="refused")
        if "manifest.json" not in found[run_id]:
            raise Problem(f"run `{run_id}` is not finished", "`inv train` finishes it; `inv status` shows it", reason="refused")
        return run_id
    for candidate in reversed(found):
        if "manifest.json" in found[candidate] and manifest(store, candidate)["kind"] == kind:
            return candidate
    raise Problem(f"there is no finished {kind} run", "make one with `inv train`", reason="refused")


def newest(store: Store, run_id: str | None = None) -> str:
    """The id of the run that a verb means: the one named, or the newest of all."""
    found = listing(store)
    if run_id is not None and run_id not in found:
        raise Problem(f"there is no run `{run_id}`", "`inv status` lists the runs", reason="refused")
    if not found:
        raise Problem("there is no run yet", "start one with `inv train`", reason="refused")
    return run_id or list(found)[-1]


def manifest(store: Store, run_id: str) -> dict | None:
    """What a sealed run says about itself; None of a run that has no manifest in S3."""
    body = store.get(f"runs/{run_id}/manifest.json")
    return json.loads(body) if body else None


def holder(store: Store, run_id: str) -> str | None:
    """The name of the box that the run was given to last; None before it was given to any."""
    body = store.get(f"runs/{run_id}/box.json")
    return json.loads(body)["name"] if body else None


def prepare(aws: Aws, run: schema.Run, image: str, image_tag: str, root: Path, instance_id: str) -> dict:
    """Put the data into S3 by its hash; go on with the unfinished run of these settings, or make a new one."""
    store = Store(aws)
    store.check()
    inputs = deliver(store, run)
    (run_id, taken), to_do = _unfinished(store, run), "yes"
    if run_id is None and (run_id := _unpublished(store, run, image)):
        to_do = "no"
    elif run_id is None:
        run_id = _create(store, aws, run, image, root)
    elif state(store, run_id).phase not in ACTIVE:
        # Until the box ships the new attempt's state, S3 would tell whoever follows how the last one ended.
        _enter(store, run_id, "created")
    if to_do == "yes":
        _give(store, run_id, run.box.name, instance_id, taken)
    run.run_id = run_id
    return {"run_id": run_id, "inputs": " ".join(sorted(inputs)), "to_do": to_do}


def deliver(store: Store, run: schema.Run) -> set[str]:
    """Put the files of rows into S3 by their hashes, unless they are there, and the hashes into the settings."""
    inputs = set()
    for name in ("train", "validation"):
        source = getattr(run.data, name)
        if not source.startswith(HUB):
            sha256 = _put(store, source, f"data.{name}")
            setattr(run.data, f"{name}_sha256", sha256)
            inputs.add(sha256)
    for source in run.data.also:
        if not source.startswith(HUB):
            run.data.also_sha256[source] = _put(store, source, "data.also")
            inputs.add(run.data.also_sha256[source])
    return inputs


def _put(store: Store, source: str, setting: str) -> str:
    path = paths.resolve(source)
    if not paths.is_file(path):
        raise Problem(f"{setting} names {source}, and there is no such file", f"give another: `{setting}=FILE.jsonl`", reason="bad_data")
    return store.put_input(path)[0]


def _unfinished(store: Store, run: schema.Run) -> tuple[str | None, str | None]:
    """The unfinished run with these settings, if any, and the etag of what says whose it is; a Problem while it is another box's,
    or while this box has another run to do."""
    found = None, None
    for run_id, files in listing(store).items():
        if "config.yaml" not in files or "manifest.json" in files:
            continue
        given, etag = store.tagged(f"runs/{run_id}/box.json")
        current, made = state(store, run_id), configuration(store, run_id)
        name = json.loads(given)["name"] if given else made.box.name
        if load.fingerprint(made) == load.fingerprint(run):
            if current.active and name != run.box.name:
                raise Problem(
                    f"run `{run_id}` of these very settings is {current.phase} on the box `{name}`",
                    f"`inv logs --run {run_id}` follows it; another of the same: `inv train -- seed=...`",
                    reason="refused",
                )
            found = (run_id, etag) if current.phase != "cancelled" else found
        elif current.active and name == run.box.name and current.phase != "created":
            # A run of this box that is only created is being started by nobody: its lock is ours. The box itself has the last word.
            raise Problem(
                f"run `{run_id}` with other settings is still {current.phase}",
                "`inv logs` follows it; `inv down --force` ends it",
                reason="refused",
            )
    return found


def _give(store: Store, run_id: str, name: str, instance_id: str, etag: str | None) -> None:
    """Write down which box has the run: another that wakes up with it on its volume lets go of it. A Problem if one was faster."""
    place, body = f"runs/{run_id}/box.json", json.dumps({"name": name, "instance": instance_id}).encode()
    if (store.replace(place, body, etag) if etag else store.create(place, body)) is None and store.get(place) != body:
        raise Problem(f"run `{run_id}` was given to another box just now", "`inv status` shows it", reason="refused")


def _unpublished(store: Store, run: schema.Run, image: str) -> str | None:
    """The newest finished run that these settings and this image have made, while nobody has published it: nobody may have seen its end."""
    for run_id, files in reversed(listing(store).items()):
        if {"config.yaml", "manifest.json"} <= files and "published.json" not in files:
            made = configuration(store, run_id)
            if load.fingerprint(made) == load.fingerprint(run) and made.provenance.image == image:
                print(f"{run_id} has been made of these settings, and is not published yet: it is not paid for twice", file=sys.stderr)
                print("  another of the same: `inv train -- seed=...`", file=sys.stderr, flush=True)
                return run_id
    return None


def _create(store: Store, aws: Aws, run: schema.Run, image: str, root: Path) -> str:
    run.run_id = run.run_id or new_id(run.name)
    if run.run_id in listing(store):
        raise Problem(f"there is a run `{run.run_id}` already, of other settings", "leave `run_id` out: every run gets one", "refused")
    sha, dirty = commit(root)
    rate, source = price.per_hour(aws, run.box.instance_type)
    run.provenance = schema.Provenance(sha, dirty, image, run.box.instance_type, rate, source, run.provenance.swept)
    store.put(f"runs/{run.run_id}/config.yaml", load.dump(run).encode())
    _enter(store, run.run_id, "created")
    return run.run_id


def _enter(store: Store, run_id: str, phase: str) -> None:
    store.put(f"runs/{run_id}/state.json", json.dumps({"phase": phase, "since": now(), "heartbeat": now()}).encode())


def commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit of this tree and whether it has changes; (None, None) outside a repository."""
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, encoding="utf-8")
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        return None, None
    if sha.returncode:
        return None, None
    return sha.stdout.strip(), bool(changes.stdout.strip())


def download(aws: Aws, run_id: str | None, kind: str, into: Path, merged: bool = False) -> dict:
    """Fetch the finished run's files from S3 and check each against its manifest."""
    # A merged model has the size of its base: it comes only to be published.
    store = Store(aws)
    run_id = sealed(store, run_id, kind)
    folder = writable(into) / run_id
    for name, entry in manifest(store, run_id)["files"].items():
        if merged or not name.startswith("merged/"):
            fetch(store, run_id, name, entry["sha256"], folder / name)
    store.download(f"runs/{run_id}/manifest.json", folder / "manifest.json")
    return {"run_id": run_id, "folder": folder}


def writable(folder: Path) -> Path:
    """The folder, or a new one among the temporary ones where nothing can be written there: what only reads need not fail for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        instead = Path(tempfile.mkdtemp(prefix="fine-tune-slm-"))
        print(f"  nothing can be written in {folder} ({error.strerror}): the run's files go to {instead}", file=sys.stderr, flush=True)
        return instead


def fetch(store: Store, run_id: str, name: str, sha256: str, target: Path) -> None:
    """One file of a finished run, unless it is here; a Problem where it is not what the run's manifest says."""
    if not target.exists() or _sha256(target) != sha256:
        store.download(f"runs/{run_id}/{name}", target)
    if _sha256(target) != sha256:
        raise Problem(
            f"{store.url(f'runs/{run_id}/{name}')} does not match the run's manifest",
            f"the run cannot be published; look at it with `aws s3 ls {store.url(f'runs/{run_id}/')}`",
            reason="damaged_run",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
