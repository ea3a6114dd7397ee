"""A run's folder: written while the run goes on, sealed when it is done.

`Record` is the writing side, for the trainer. `sealed`, `manifest`, `verify` and `settings` are the reading side, for a copy
of the folder. It may be read at any moment, so a file is complete or absent; only `events.jsonl` grows, a
line at a time. `manifest.json` comes last: a folder that has one is a finished run, and is never written again.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import TemplateError

from conf import load, paths
from conf.problem import Problem
from conf.schema import Recipe
from conf.text import secret
from trainer import files
from trainer.files import digest, write
from trainer.record import card, gpu, report

MANIFEST, DECIDED = "manifest.json", "decided.json"
MODEL_FILES = ("adapter/", "config.yaml", DECIDED, "metrics.json")  # the files that `predict` and `evaluate` load
# Written by others or later than the manifest, so it cannot list them: `log.txt` is hashed on its own, up to a stated offset.
NOT_IN_MANIFEST = {MANIFEST, "state.json", "published.json", "log.txt"}
NUMBERS = ("step", "steps", "loss", "lr", "tok_s", "mem", "field_match", "token_match")  # of an event, as card and curves take them
BROKEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, TemplateError)
AFTER_THE_SEAL = {"uploading", "done", "failed"}


class Record:
    """The folder of the run that this process is making."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.events = self.folder / "events.jsonl"
        self.beaten = -math.inf
        self.gpus: gpu.Sampler | None = None
        state = self.folder / "state.json"
        self.state = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
        if not sealed(self.folder):
            files.cut_torn_line(self.events)
            _drop_invalid_events(self.events)

    def phase(self, phase: str, reason: str | None = None, evidence: str | None = None, hint: str | None = None) -> None:
        """Say what the run is doing; a phase that is entered again by a later attempt keeps its `since`."""
        finished = sealed(self.folder)
        if finished and phase not in AFTER_THE_SEAL:
            raise _refusal(self.folder, f"cannot become `{phase}`")
        since = self.state["since"] if self.state.get("phase") == phase else now()
        self.state = {"phase": phase, "since": since, "reason": reason, "evidence": evidence, "hint": hint}
        self._write_state()
        if not finished:
            self.event("phase", phase=phase, reason=reason)

    def heartbeat(self) -> None:
        """Show that the run is alive; reaches the disk at most once a second."""
        if self.state and time.monotonic() - self.beaten >= 1:
            self._write_state()

    def event(self, kind: str, **values) -> None:
        """Append one line to `events.jsonl`; where the GPUs are looked at, with what they did since the last one."""
        self._stays_open()
        seen = self.gpus.take() if self.gpus else {}
        values |= {"gpu": seen} if seen else {}
        with self.events.open("a", encoding="utf-8") as file:
            file.write(secret.hide(files.json_line({"time": now(), "event": kind, **values})))
        self.heartbeat()

    def decide(self, settings: Recipe) -> None:
        """Write what the trainer has decided for `auto`: a later attempt does the same. config.yaml is never written again."""
        values = {"recompute": settings.train.gradient_checkpointing, "max_new_tokens": settings.data.max_new_tokens}
        write(self.folder / DECIDED, files.json_page(values))

    def metrics(self, values: dict) -> None:
        self._stays_open()
        write(self.folder / "metrics.json", files.json_page(values))

    def predictions(self, rows: list[dict]) -> None:
        self._stays_open()
        write(self.folder / "predictions.jsonl", "".join(files.json_line(row) for row in rows))

    def seal(self, settings: Recipe, facts: dict) -> dict:
        """Finish the run: its card, its report and, last, the manifest that lists every file. Returns the manifest."""
        self._stays_open()
        config = self.folder / "config.yaml"
        if not config.exists():
            write(config, load.dump(settings))
        manifest = _manifest(self.folder, settings, facts)
        write(self.folder / "card.md", card.render(self.folder, settings.publish.repository or settings.name, manifest))
        write(self.folder / "report.html", report.render(self.folder, manifest))
        manifest |= {"log": _log(self.folder), "files": _files(self.folder)}
        write(self.folder / MANIFEST, files.json_page(manifest))
        return manifest

    def _write_state(self) -> None:
        self.state["heartbeat"] = now()
        write(self.folder / "state.json", json.dumps(self.state, ensure_ascii=False))
        self.beaten = time.monotonic()

    def _stays_open(self) -> None:
        if sealed(self.folder):
            raise _refusal(self.folder, "is never written again")


def sealed(folder: Path) -> bool:
    """Whether the run is finished and its record complete."""
    return (folder / MANIFEST).exists()


def manifest(folder: Path) -> dict:
    """The manifest of a sealed run."""
    if not sealed(folder):
        raise Problem(
            f"run {folder.name} is not sealed: it has no {MANIFEST}", "`inv status` shows how far it is; `inv train` finishes it", "refused"
        )
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged_run(folder, MANIFEST, "is not JSON") from error


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Read what a finished run's files say; what is not as a trainer writes it becomes a Problem: they may be anybody's."""
    try:
        yield
    except BROKEN as error:
        raise damaged_run(folder, "record", f"is not as a trainer writes it ({type(error).__name__}: {error})") from error


def verify(folder: Path, without: tuple[str, ...] = (), only: tuple[str, ...] = ("",)) -> dict:
    """The manifest, once every file that it lists has the size and the sha256 that it states; `without` those under such names, or `only`
    those."""
    run_manifest = manifest(folder)
    for name, stated in run_manifest["files"].items():
        if name.startswith(without) or not name.startswith(only):
            continue
        path = paths.inside(folder, name)
        if not path.is_file():
            raise damaged_run(folder, name, "is missing")
        if path.stat().st_size != stated["size"]:
            raise damaged_run(folder, name, f"has {path.stat().st_size} bytes, its record says {stated['size']}")
        if digest(path) != stated["sha256"]:
            raise damaged_run(folder, name, "has another sha256 than its record")
    log = folder / "log.txt"
    if run_manifest["log"] and log.exists() and digest(log, run_manifest["log"]["bytes"]) != run_manifest["log"]["sha256"]:
        raise damaged_run(folder, "log.txt", f"has changed within its first {run_manifest['log']['bytes']} bytes")
    return run_manifest


def settings(folder: Path, sha256: str | None = None) -> Recipe:
    """The recipe that the run's `config.yaml` holds, with what was decided since; a Problem where it has another hash."""
    path = folder / "config.yaml"
    body = path.read_bytes()
    if sha256 is not None and (actual := hashlib.sha256(body).hexdigest()) != sha256:
        what = f"{path} is not what was sent: its sha256 is {actual[:12]}..., and not {sha256[:12]}..."
        raise Problem(what, "`inv train` again; if it says so again, somebody writes into this run", "damaged_run")
    recipe = load.saved(body, str(path))
    recipe.train.gradient_checkpointing = decided(folder, recipe) or recipe.train.gradient_checkpointing
    if recipe.data.max_new_tokens is None and (folder / DECIDED).exists():
        recipe.data.max_new_tokens = _decided_answer_limit(folder)
    return recipe


def leaves_checkpointing_open(folder: Path) -> bool:
    """Whether the run's settings leave gradient checkpointing to the trainer."""
    path = folder / "config.yaml"
    return load.saved(path.read_bytes(), str(path)).train.gradient_checkpointing == "auto"


def decided(folder: Path, recipe: Recipe) -> str | None:
    """What an earlier attempt, maybe of another box, has decided for `auto` in these settings; None where it was not `auto`."""
    path = folder / DECIDED
    if recipe.train.gradient_checkpointing != "auto" or not path.exists():
        return None
    try:
        with path.open("rb") as file:
            return {"yes": "yes", "no": "no"}[json.loads(file.read(4096))["recompute"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_run(folder, DECIDED, "is not as a trainer writes it") from error


def _decided_answer_limit(folder: Path) -> int | None:
    """The limit of answers that the trainer has made for the rows; a run of theirs has decided it before anything was answered."""
    try:
        with (folder / DECIDED).open("rb") as file:
            limit = json.loads(file.read(4096))["max_new_tokens"]
        if limit is not None and (not isinstance(limit, int) or not 0 < limit < 1_000_000):
            raise ValueError(limit)
        return limit
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_run(folder, DECIDED, "is not as a trainer writes it") from error


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _manifest(folder: Path, settings: Recipe, facts: dict) -> dict:
    """The manifest without its list of files: what the card and the report are made from."""
    provenance = asdict(settings.provenance)
    seconds = sum(facts["seconds"].values())
    hourly = provenance["price_per_hour"]
    attempts = _attempts(folder)
    # Stages but training are of this attempt only; an interrupted attempt was paid for, too.
    paid = max(seconds, attempts["seconds"])
    total = None if hourly is None else hourly * paid / 3600
    price = {"per_hour": hourly, "source": provenance["price_source"], "seconds": paid, "total": total, "attempts": attempts["attempts"]}
    name = {"run_id": settings.run_id or folder.name, "name": settings.name, "kind": settings.kind.value}
    return files.finite({**name, **facts, "config_sha256": digest(folder / "config.yaml"), "provenance": provenance, "price": price})


def _drop_invalid_events(events: Path) -> None:
    """Drop lines that are no events before training: a fetched file may hold anything, and card and curves are made at the very end."""
    lines = events.read_bytes().splitlines(keepends=True) if events.exists() else []
    valid = [line for line in lines if _is_event(line)]
    if len(valid) < len(lines):
        print(f"events.jsonl: {len(lines) - len(valid)} lines that are no events are left out", file=sys.stderr, flush=True)
        write(events, b"".join(valid).decode())


def _is_event(line: bytes) -> bool:
    """Whether it has what a card and curves take from an event."""
    try:
        event = json.loads(line.decode())
        needed = {"step": ("step", "steps"), "eval": ("step", "loss")}.get(event["event"], ())
        numbers = [event[key] for key in NUMBERS if event.get(key) is not None]
        whole = all(key in event for key in needed) and (not needed or isinstance(event["step"], int))
        return whole and all(abs(number) < 1e18 for number in numbers) and datetime.fromisoformat(event["time"]).tzinfo is not None
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def _attempts(folder: Path) -> dict:
    """How often the run was started, and for how many seconds it ran in all, by its events."""
    spans: list[list[datetime]] = []
    for event in files.read_json_lines(folder / "events.jsonl") if (folder / "events.jsonl").exists() else []:
        moment = datetime.fromisoformat(event["time"])
        if not spans or (event["event"], event.get("phase")) == ("phase", "running"):
            spans.append([moment, moment])
        spans[-1][1] = moment
    if spans:
        spans[-1][1] = datetime.fromisoformat(now())
    return {"attempts": len(spans), "seconds": sum((end - start).total_seconds() for start, end in spans)}


def _files(folder: Path) -> dict:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    listed = {name: path for name, path in names.items() if name not in NOT_IN_MANIFEST and not name.startswith("checkpoints/")}
    return {name: {"size": path.stat().st_size, "sha256": digest(path)} for name, path in listed.items()}


def _log(folder: Path) -> dict | None:
    log = folder / "log.txt"
    if not log.exists():
        return None
    secret.hide_in(log)
    size = log.stat().st_size
    return {"bytes": size, "sha256": digest(log, size)}


def _refusal(folder: Path, what: str) -> Problem:
    return Problem(f"run {folder.name} is sealed and {what}", "start a new run with `inv train`", "refused")


def damaged_run(folder: Path, name: str, what: str) -> Problem:
    hint = f"remove {folder} where it is: the same command then fetches the run again"
    return Problem(f"run {folder.name} is damaged: {name} {what}", hint, "damaged_run")
