"""Runs, as S3 tells of them: which run a verb means, whose it is, its state, its files.

Anybody with write access to the bucket can store anything there. So ids of runs and names of files must look like ours, settings are data,
and what is broken is left out with a notice. A verb means the caller's own runs, unless one is named.
"""

import hashlib
import json
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conf import load, paths, run_ids, schema
from conf.problem import Problem
from conf.process.screen import screen
from conf.text import visible
from remote.aws import pricing
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.build import git

HUB = "hub:"  # what a dataset of the Hub begins with; any other source of rows is a file
ACTIVE = {"created", "starting", "running", "evaluating", "uploading"}
# A run without a sign of life for so long no longer blocks another.
SILENT = timedelta(minutes=10)
# What a finished run consists of: the trainer writes nothing else.
ROOM = r"(adapter|merged|tensorboard|evaluations)/[A-Za-z0-9_][A-Za-z0-9._=+@ -]*"
FILE = re.compile(rf"{ROOM}|(config\.yaml|decided\.json|(events|predictions)\.jsonl|metrics\.json|card\.md|report\.html)")
MOST = 10_000  # files of a run
SETTINGS, MANIFEST = 1 << 20, 1 << 24  # bytes of its config.yaml and its manifest, at the most
BROKEN = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)  # what data of another shape than ours comes to


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
        last = max(self.heartbeat, self.since)
        return datetime.now(UTC) - datetime.fromisoformat(last) if last else timedelta.max

    @property
    def active(self) -> bool:
        return self.phase in ACTIVE and abs(self.age) < SILENT


@dataclass(frozen=True)
class Prepared:
    """A run that the box can be given."""

    run_id: str
    config_sha256: str
    inputs: tuple[str, ...]  # sha256 of the files of rows
    to_do: bool  # it is not finished


@dataclass(frozen=True)
class Downloaded:
    run_id: str
    folder: Path


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class About:
    """What a run's config.yaml says of it."""

    owner: str | None  # the maker's ARN; None: it was made before runs had owners
    name: str
    kind: str

    @property
    def whose(self) -> str:
        return f"belongs to {self.owner}" if self.owner else "was made before runs had owners"


@dataclass(frozen=True)
class Saved:
    """A run's settings, and the hash of the very bytes that hold them."""

    run: schema.Run
    sha256: str

    def of_settings(self, run: schema.Run) -> bool:
        return load.fingerprint(self.run) == load.fingerprint(run)


@contextmanager
def skip_unreadable(what: str) -> Iterator[None]:
    """Go on without what cannot be read, and say so: it may be anybody's."""
    try:
        yield
    except Problem as problem:
        screen.note(f"  left out: {what}: {problem.what}")
    except BROKEN as error:
        screen.note(f"  left out: {what} cannot be read ({type(error).__name__}: {error})")


@contextmanager
def reading_record(run_id: str) -> Iterator[None]:
    """Read files of a finished run; what is not as a run writes it becomes a Problem."""
    try:
        yield
    except BROKEN as error:
        what = f"the record of run `{run_id}` is not as a trainer writes it ({type(error).__name__}: {error})"
        raise Problem(what, "`inv status` lists the runs: take another, or train again with `inv train`", "damaged_run") from error


def listing(store: Store) -> dict[str, set[str]]:
    """Every run, oldest first, with the names of its files."""
    runs: dict[str, set[str]] = {}
    for name in store.names("runs/"):
        run_id, _, rest = name.removeprefix("runs/").partition("/")
        if schema.RUN_ID.fullmatch(run_id) and rest:
            runs.setdefault(run_id, set()).add(rest)
        else:
            screen.note(f"  left out: {store.url(name)[:200]!r} is not a file of a run")
    return dict(sorted(runs.items()))


def with_settings(runs: dict[str, set[str]]) -> list[str]:
    """The runs among them, oldest first: a run begins with its settings, and what has none is said to be none."""
    for run_id, files in runs.items():
        if "config.yaml" not in files:
            screen.note(f"  left out: `{run_id}` has no settings, so nobody has started it as a run")
    return [run_id for run_id, files in runs.items() if "config.yaml" in files]


def state(store: Store, run_id: str) -> State:
    try:
        values = store.json(f"runs/{run_id}/state.json") or {"phase": "created"}
        known = {key: values.get(key) or "" for key in State.__dataclass_fields__ if key != "run_id"}
        parsed = State(run_id, **known)
        if not parsed.phase or not all(isinstance(value, str) for value in known.values()) or parsed.age is None:
            raise ValueError
        return parsed
    except (Problem, *BROKEN):
        words = ("unknown", "", "damaged_run", "its state.json in S3 cannot be read", "`inv logs` shows its log")
        return State(run_id, *words)


def configuration(store: Store, run_id: str) -> schema.Run:
    return saved_settings(store, run_id).run


def saved_settings(store: Store, run_id: str) -> Saved:
    """The settings of a run; a Problem where its config.yaml is not there, or is anything but a run's settings."""
    name = f"runs/{run_id}/config.yaml"
    body = store.get(name, SETTINGS)
    if body is None:
        raise Problem(f"there is no run `{run_id}`", "`inv status` lists the runs", reason="refused")
    run = load.read(body, store.url(name))
    if run.run_id != run_id:
        raise Problem(f"{store.url(name)} is of another run ({run.run_id})", "`inv status` lists the runs", reason="damaged_run")
    return Saved(run, hashlib.sha256(body).hexdigest())


def readable_settings(store: Store, run_id: str) -> Saved | None:
    """The same; None of a run whose settings cannot be read, which is said."""
    with skip_unreadable(f"run `{run_id}`"):
        return saved_settings(store, run_id)
    return None


def about(store: Store, run_id: str) -> About | None:
    """Whose run it is and what it is called; None of one whose config.yaml cannot be read, which is said. Older settings than today's
    can be."""
    name = f"runs/{run_id}/config.yaml"
    with skip_unreadable(f"run `{run_id}`"):
        values = load.values(store.get(name, SETTINGS) or b"", store.url(name))
        details = About((values.get("provenance") or {}).get("owner"), values["name"], str(values["kind"]))
        return About(details.owner and visible.visible(details.owner), visible.visible(details.name), visible.visible(details.kind))
    return None


def find_sealed(aws: Aws, run: schema.Run, run_id: str | None) -> str:
    """The id of the finished run that a verb means: the one named, or the newest of the caller's with this name and of this kind."""
    store = Store(aws)
    runs = listing(store)
    if run_id is not None:
        _check_named_run(aws, store, run_id, runs)
        if "manifest.json" not in runs[run_id]:
            raise Problem(f"run `{run_id}` is not finished", "`inv train` finishes it; `inv status` shows it", reason="refused")
        return run_id
    finished = [each for each in reversed(runs) if {"config.yaml", "manifest.json"} <= runs[each]]
    return _newest_of_mine(aws, store, run, finished, kind=run.kind.value)


def find_newest(aws: Aws, run: schema.Run, run_id: str | None) -> str:
    """The id of the run that a verb means: the one named, or the newest of the caller's with this name."""
    store = Store(aws)
    runs = listing(store)
    if run_id is not None:
        _check_named_run(aws, store, run_id, runs)
        return run_id
    return _newest_of_mine(aws, store, run, [each for each in reversed(runs) if "config.yaml" in runs[each]], kind=None)


def _newest_of_mine(aws: Aws, store: Store, run: schema.Run, newest_first: list[str], kind: str | None) -> str:
    others = []
    for run_id in newest_first:
        if (match := run_ids.GENERATED.fullmatch(run_id)) and match["name"] != run.name:  # as its id says: its settings need not be asked
            others.append(run_id)
            continue
        details = about(store, run_id)
        if details and (details.owner, details.name) == (aws.owner, run.name) and kind in (None, details.kind):
            return run_id
        others.append(run_id)
    what = f"there is no {f'finished {kind} ' if kind else ''}run of yours called `{run.name}`"
    other = next(((run_id, details) for run_id in others if (details := about(store, run_id))), None)
    if other is None:
        raise Problem(what, "make one with `inv train`", reason="refused")
    run_id, details = other
    owned = f"yours, called `{details.name}`" if details.owner == aws.owner else f"called `{details.name}`, and {details.whose}"
    raise Problem(f"{what}; the newest of all is {run_id}, {details.kind}: it is {owned}", f"`--run {run_id}` takes it", reason="refused")


def _check_named_run(aws: Aws, store: Store, run_id: str, runs: dict[str, set[str]]) -> None:
    """Nothing where there is such a run; where it is not the caller's, that is said."""
    if run_id not in runs:
        raise Problem(f"there is no run `{run_id}`", "`inv status` lists the runs", reason="refused")
    details = about(store, run_id) if "config.yaml" in runs[run_id] else None
    if details and details.owner != aws.owner:
        screen.note(f"  run {run_id} is not yours: it {details.whose}")


def manifest(store: Store, run_id: str) -> dict | None:
    """What a sealed run says about itself; None of a run that has no manifest in S3, a Problem where it is none that a trainer writes."""
    name = f"runs/{run_id}/manifest.json"
    body = store.get(name, MANIFEST)
    return None if body is None else _check_manifest(store, run_id, store.parse_json(name, body))


def manifest_sha256(store: Store, run_id: str) -> str:
    """The sha256 of a sealed run's manifest: the box takes the run's files for what that one says."""
    name = f"runs/{run_id}/manifest.json"
    body = store.get(name, MANIFEST) or b""
    _check_manifest(store, run_id, store.parse_json(name, body))
    return hashlib.sha256(body).hexdigest()


def _check_manifest(store: Store, run_id: str, stated: dict) -> dict:
    with reading_record(run_id):
        files = stated["files"]
        if len(files) > MOST or not isinstance(stated["kind"], str) or stated.get("run_id", run_id) != run_id:
            raise ValueError(f"{len(files)} files of a {stated['kind']} run {stated.get('run_id')}")
        for name, file in files.items():
            if not FILE.fullmatch(name):
                raise ValueError(f"it names a file {name[:100]!r}")
            if not (isinstance(file["size"], int) and file["size"] >= 0 and isinstance(file["sha256"], str)):
                raise ValueError(f"it says of {name} {file}")
    return stated


def holder(store: Store, run_id: str) -> str | None:
    """The name of the box that the run was given to last; None before it was given to any."""
    with skip_unreadable(f"who has run `{run_id}`"):
        box = store.json(f"runs/{run_id}/box.json")
        return str(box["name"]) if box else None
    return None


def prepare(aws: Aws, run: schema.Run, image: str, root: Path, instance_id: str, named: str | None = None) -> Prepared:
    """Put the data into S3 by its hash; go on with the unfinished run of these settings, or make a new one."""
    store = Store(aws)
    store.check_bucket()
    runs = listing(store)
    if named is not None:
        _check_named_run(aws, store, named, runs)
    inputs = upload_inputs(store, run)
    candidates = _Candidates(aws, store, runs, run, named)
    (run_id, etag, sha256), to_do = candidates.unfinished(), True
    if run_id is None and (run_id := candidates.unpublished(image)):
        to_do = False
    elif run_id is None and named is not None:
        what = f"run `{named}` has other settings than these, or is finished"
        raise Problem(what, f"`inv status` shows it; `inv publish --run {named}`, or train one of your own: `inv train`", "refused")
    elif run_id is None:
        run_id, sha256 = _create(store, aws, run, image, root)
    elif state(store, run_id).phase not in ACTIVE:
        # Until the box ships the new attempt's state, S3 still says how the last one ended.
        _set_phase(store, run_id, "created")
    if to_do:
        _assign(store, run_id, run.box.name, instance_id, etag)
    run.run_id = run_id
    return Prepared(run_id, sha256, tuple(sorted(inputs)), to_do)


def upload_inputs(store: Store, run: schema.Run) -> set[str]:
    """Put the files of rows into S3 by their hashes, unless they are there, and the hashes into the settings."""
    inputs = set()
    for name in ("train", "validation"):
        source = getattr(run.data, name)
        if not source.startswith(HUB):
            sha256 = _upload_rows(store, source, f"data.{name}")
            setattr(run.data, f"{name}_sha256", sha256)
            inputs.add(sha256)
    for source in run.data.also:
        if not source.startswith(HUB):
            run.data.also_sha256[source] = _upload_rows(store, source, "data.also")
            inputs.add(run.data.also_sha256[source])
    return inputs


def _upload_rows(store: Store, source: str, setting: str) -> str:
    path = paths.resolve(source)
    if not paths.is_file(path):
        raise Problem(f"{setting} names {source}, and there is no such file", f"give another: `{setting}=FILE.jsonl`", reason="bad_data")
    return store.put_input(path)[0]


@dataclass(frozen=True)
class _Candidates:
    """The runs in the bucket, as one looks at them who is to train these settings."""

    aws: Aws
    store: Store
    listing: dict[str, set[str]]
    run: schema.Run
    named: str | None  # the run named on the command line; it may be another person's

    def may_take(self, run_id: str, saved: Saved) -> bool:
        if self.named is not None:
            return run_id == self.named
        return saved.run.provenance.owner == self.aws.owner or run_id == self.run.run_id

    def unfinished(self) -> tuple[str | None, str | None, str]:
        """The unfinished run with these settings, if any, with the etag of what says whose it is and the hash of its settings; a Problem
        while it is another box's, or while this box has another run to do."""
        candidate: tuple[str | None, str | None, str] = None, None, ""
        for run_id, files in self.listing.items():
            if "config.yaml" in files and "manifest.json" not in files:
                saved = readable_settings(self.store, run_id)
                candidate = (saved and self._one(run_id, saved)) or candidate
        return candidate

    def _one(self, run_id: str, saved: Saved) -> tuple[str, str | None, str] | None:
        box_json, etag = self.store.get_with_etag(f"runs/{run_id}/box.json")
        current, name = state(self.store, run_id), (box_json and holder(self.store, run_id)) or saved.run.box.name
        if saved.of_settings(self.run) and self.may_take(run_id, saved):
            if current.active and name != self.run.box.name:
                raise Problem(
                    f"run `{run_id}` of these very settings is {current.phase} on the box `{name}`",
                    f"`inv logs --run {run_id}` follows it; another of the same: `inv train -- seed=...`",
                    reason="refused",
                )
            return (run_id, etag, saved.sha256) if current.phase != "cancelled" else None
        if current.active and name == self.run.box.name and current.phase != "created":
            # A run of this box that is only created is being started by nobody: its lock is ours. The box itself has the last word.
            raise Problem(
                f"run `{run_id}` with other settings is still {current.phase}",
                "`inv logs` follows it; `inv down --force` ends it",
                reason="refused",
            )
        if saved.of_settings(self.run) and current.phase != "cancelled":
            screen.note(
                f"  {run_id} has these very settings and is {current.phase}; it is not yours: `inv train --run {run_id}` goes on with it"
            )
        return None

    def unpublished(self, image: str) -> str | None:
        """The newest finished run that these settings and this image have made, while nobody has published it: nobody may have seen its
        end."""
        for run_id, files in reversed(self.listing.items()):
            if {"config.yaml", "manifest.json"} <= files and "published.json" not in files:
                saved = readable_settings(self.store, run_id)
                if saved and saved.of_settings(self.run) and saved.run.provenance.image == image and self.may_take(run_id, saved):
                    screen.note(f"{run_id} was made with these settings and is not published yet: it is not trained again")
                    screen.note("  for another run with these settings: `inv train -- seed=...`")
                    return run_id
        return None


def _assign(store: Store, run_id: str, name: str, instance_id: str, etag: str | None) -> None:
    """Write down which box has the run: another that wakes up with it on its volume lets go of it. A Problem if one was faster."""
    place, body = f"runs/{run_id}/box.json", json.dumps({"name": name, "instance": instance_id}).encode()
    if (store.replace(place, body, etag) if etag else store.create(place, body)) is None and store.get(place) != body:
        raise Problem(f"run `{run_id}` was given to another box just now", "`inv status` shows it", reason="refused")


def _create(store: Store, aws: Aws, run: schema.Run, image: str, root: Path) -> tuple[str, str]:
    """A new run's id, and the hash of its settings: they are written once, and nobody writes them again."""
    run.run_id = run.run_id or run_ids.new(run.name)
    taken = Problem(f"there is a run `{run.run_id}` already, of other settings", "leave `run_id` out: every run gets one", "refused")
    if run.run_id in listing(store):
        raise taken
    sha, dirty = git.commit(root)
    rate, source = pricing.per_hour(aws, run.box.instance_type)
    run.provenance = schema.Provenance(sha, dirty, image, run.box.instance_type, rate, source, run.provenance.swept, aws.owner)
    body = load.dump(run).encode()
    if store.create(f"runs/{run.run_id}/config.yaml", body) is None and store.get(f"runs/{run.run_id}/config.yaml") != body:
        raise taken
    _set_phase(store, run.run_id, "created")
    return run.run_id, hashlib.sha256(body).hexdigest()


def _set_phase(store: Store, run_id: str, phase: str) -> None:
    store.put(f"runs/{run_id}/state.json", json.dumps({"phase": phase, "since": now(), "heartbeat": now()}).encode())


def download(aws: Aws, run: schema.Run, run_id: str | None, into: Path, merged: bool = False) -> Downloaded:
    """Fetch the finished run's files from S3 and check each against its manifest."""
    # A merged model has the size of its base: it comes only to be published.
    store = Store(aws)
    run_id = find_sealed(aws, run, run_id)
    folder = writable(into) / run_id
    name = f"runs/{run_id}/manifest.json"
    body = store.get(name, MANIFEST) or b""
    for file, stated in _check_manifest(store, run_id, store.parse_json(name, body))["files"].items():
        if merged or not file.startswith("merged/"):
            fetch(store, run_id, file, stated, folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths.inside(folder, "manifest.json").write_bytes(body)  # the very one that was checked
    return Downloaded(run_id, folder)


def writable(folder: Path) -> Path:
    """The folder, or a new one among the temporary ones where nothing can be written there: what only reads need not fail for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        instead = Path(tempfile.mkdtemp(prefix="fine-tune-slm-"))
        screen.note(f"  nothing can be written in {folder} ({error.strerror}): the run's files go to {instead}")
        return instead


def fetch(store: Store, run_id: str, name: str, stated: dict, folder: Path) -> None:
    """One file of a finished run, unless it is here; a Problem where it is not what the run's manifest says."""
    target = paths.inside(folder, name)
    if not target.exists() or _sha256(target) != stated["sha256"]:
        store.download(f"runs/{run_id}/{name}", folder, name, stated["size"])
    if _sha256(target) != stated["sha256"]:
        raise Problem(
            f"{store.url(f'runs/{run_id}/{name}')} does not match the run's manifest",
            f"the run cannot be published; look at it with `aws s3 ls {shlex.quote(store.url(f'runs/{run_id}/'))}`",
            reason="damaged_run",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
