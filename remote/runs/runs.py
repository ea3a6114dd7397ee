"""Runs, as S3 tells of them: which run a verb means, whose it is, its state, its files.

Anybody with write access to the bucket can store anything there. So ids of runs and names of files must look like ours, settings are data,
and what is broken is left out with a notice. A verb means the caller's own runs, unless one is named.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conf import load, run_ids, schema
from conf.problem import Problem
from conf.process.screen import screen
from conf.text import visible
from remote.aws.s3 import Store
from remote.aws.session import Aws

ACTIVE = {"created", "starting", "running", "evaluating", "uploading"}
# A run without a sign of life for so long no longer blocks another.
SILENT = timedelta(minutes=10)
BEST = "best"  # as a run's name: the one of the highest score
SHORTEST = 4  # letters of the end of an id that stand for it
SETTINGS = 1 << 20  # bytes of its config.yaml, at the most
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
    """The id of the finished run that a verb means: the one named, or the newest of the caller's with this name and of this kind; by the
    name of `best` that of the highest score."""
    store = Store(aws)
    runs = listing(store)
    if run_id == BEST and BEST not in runs:
        return _best_of_mine(aws, store, run, runs)
    if run_id is not None:
        run_id = check_named_run(aws, store, run_id, runs)
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
        return check_named_run(aws, store, run_id, runs)
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
    if kind and (going := _going_on(aws, store, run)):
        raise Problem(f"no run of yours called `{run.name}` has finished yet; {going}", "`inv logs --follow` follows it", reason="refused")
    other = next(((run_id, details) for run_id in others if (details := about(store, run_id))), None)
    if other is None:
        raise Problem(what, "make one with `inv train`", reason="refused")
    run_id, details = other
    owned = f"yours, called `{details.name}`" if details.owner == aws.owner else f"called `{details.name}`, and {details.whose}"
    raise Problem(f"{what}; the newest of all is {run_id}, {details.kind}: it is {owned}", f"`--run {run_id}` takes it", reason="refused")


def _going_on(aws: Aws, store: Store, run: schema.Run) -> str:
    """The caller's run of this name that goes on, with its phase; empty where there is none."""
    unfinished = [run_id for run_id, files in listing(store).items() if "config.yaml" in files and "manifest.json" not in files]
    for run_id in reversed(unfinished):
        details, current = about(store, run_id), state(store, run_id)
        if current.active and details and (details.owner, details.name) == (aws.owner, run.name):
            return f"{run_id} is {current.phase}"
    return ""


def _best_of_mine(aws: Aws, store: Store, run: schema.Run, runs: dict[str, set[str]]) -> str:
    """The caller's finished run of this name with the highest score, among those scored on the same rows as the newest."""
    finished = [each for each in reversed(runs) if {"config.yaml", "manifest.json"} <= runs[each]]
    newest = _newest_of_mine(aws, store, run, finished, kind=run.kind.value)
    rows, scores = _scored_rows(configuration(store, newest)), {}
    for run_id in finished:
        saved = readable_settings(store, run_id)
        mine = saved and (saved.run.provenance.owner, saved.run.name, saved.run.kind) == (aws.owner, run.name, run.kind)
        if saved and mine and _scored_rows(saved.run) == rows:
            with skip_unreadable(f"runs/{run_id}/metrics.json"):
                tuned = (store.json(f"runs/{run_id}/metrics.json") or {})["tuned"]
                scores[run_id] = float(tuned["token_f1"] if saved.run.data.fields is None else tuned["macro_f1"])
    best = max(scores, key=lambda each: scores[each], default=newest)  # of equals the newest
    screen.note(f"  {best} is the best of {len(scores)} finished runs on these rows" + f" ({scores[best]:.3f})" * (best in scores))
    return best


def _scored_rows(run: schema.Run) -> tuple:
    return run.data.validation_sha256 or run.data.validation, run.data.eval_rows, run.data.fields


def check_named_run(aws: Aws, store: Store, run_id: str, runs: dict[str, set[str]]) -> str:
    """The id of the run that is named in full, or by the end of its id; where it is not the caller's, that is said."""
    if run_id not in runs:
        run_id = _ending_in(run_id, runs)
    details = about(store, run_id) if "config.yaml" in runs[run_id] else None
    if details and details.owner != aws.owner:
        screen.note(f"  run {run_id} is not yours: it {details.whose}")
    return run_id


def _ending_in(end: str, runs: dict[str, set[str]]) -> str:
    """The one run whose id ends so."""
    fitting = [each for each in runs if len(end) >= SHORTEST and each.endswith(end)]
    if len(fitting) > 1:
        listed = ", ".join(fitting[-5:])
        raise Problem(f"{len(fitting)} runs end in `{end}`: {listed}", f"name one in full: `--run {fitting[-1]}`", reason="refused")
    if not fitting:
        raise Problem(f"there is no run `{end}`", "`inv status` lists the runs", reason="refused")
    return fitting[0]


def holder(store: Store, run_id: str) -> str | None:
    """The name of the box that the run was given to last; None before it was given to any."""
    with skip_unreadable(f"who has run `{run_id}`"):
        box = store.json(f"runs/{run_id}/box.json")
        return str(box["name"]) if box else None
    return None
