"""A run begins, or goes on: its rows and settings are in S3, and the box that it is given to is written down."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from conf import commands, load, paths, run_ids, schema
from conf.fleet_job import HOLDER
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws import instance, pricing
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.build import git
from remote.runs import earlier_adapter, runs
from remote.runs.runs import Saved


@dataclass(frozen=True)
class Prepared:
    """A run that the box can be given."""

    run_id: str
    config_sha256: str
    inputs: tuple[str, ...]  # sha256 of the files that the trainer reads
    to_do: bool  # it is not finished


def prepare(aws: Aws, run: schema.Run, image: str, root: Path, instance_id: str | None, named: str | None = None) -> Prepared:
    """Put the data into S3 by its hash; go on with the unfinished run of these settings, or make a new one.

    Without a box nobody has it yet: a fleet's job takes it (remote/runs/fleet.py).
    """
    store = Store(aws)
    store.check_bucket()
    listing = runs.listing(store)
    if named is not None:
        named = runs.check_named_run(aws, store, named, listing)
    inputs = upload_inputs(store, run)
    candidates = _Candidates(aws, store, listing, run, named)
    (run_id, etag, sha256), to_do = candidates.unfinished(), True
    if run_id is None and (run_id := candidates.unpublished(image)):
        to_do = False
    elif run_id is None and named is not None:
        what = f"run `{named}` has other settings than these, or is finished"
        raise Problem(what, f"`inv status` shows it; `inv publish --run {named}`, or train one of your own: `inv train`", "refused")
    elif run_id is None:
        run_id, sha256 = _create(store, aws, run, image, root)
    else:
        to_do = _begin_again(store, run_id, on_box=instance_id is not None)
    if to_do and instance_id is not None:
        assign(store, run_id, run.box.name, instance_id, etag)
    run.run_id = run_id
    return Prepared(run_id, sha256, tuple(sorted(inputs)), to_do)


def _begin_again(store: Store, run_id: str, on_box: bool) -> bool:
    """Whether the run is to be gone on with: where nobody holds a lock, it may have ended since it was looked at."""
    phase = runs.state(store, run_id).phase
    if phase == "done" and store.get(f"runs/{run_id}/manifest.json") is not None:
        return False
    if on_box and phase not in runs.ACTIVE and phase != "cancelled":
        # Until the new attempt's state is shipped, S3 still says how the last one ended. Who hands it over to a fleet looks there first.
        _set_phase(store, run_id, "created")
    return True


def upload_inputs(store: Store, run: schema.Run) -> set[str]:
    """Put what the trainer reads into S3 by its hash, unless it is there, and the hashes into the settings: rows and an adapter."""
    inputs = set()
    for name in ("train", "validation"):
        source = getattr(run.data, name)
        if not source.startswith(paths.HUB):
            sha256, _ = store.put_input(paths.rows_file(source, f"data.{name}"))
            setattr(run.data, f"{name}_sha256", sha256)
            inputs.add(sha256)
    for source in run.data.also:
        if not source.startswith(paths.HUB):
            run.data.also_sha256[source], _ = store.put_input(paths.rows_file(source, "data.also"))
            inputs.add(run.data.also_sha256[source])
    if earlier_adapter.names_run(run):
        run.lora.adapter_sha256 = earlier_adapter.upload(store, run)
        inputs |= set(run.lora.adapter_sha256.values())
    return inputs


class Taken(Problem):
    """The id of a run that is to begin is another run's."""


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
                saved = runs.readable_settings(self.store, run_id)
                candidate = (saved and self._one(run_id, saved)) or candidate
        return candidate

    def _one(self, run_id: str, saved: Saved) -> tuple[str, str | None, str] | None:
        box_json, etag = self.store.get_with_etag(f"runs/{run_id}/box.json")
        current, name = runs.state(self.store, run_id), (box_json and runs.holder(self.store, run_id)) or saved.run.box.name
        if saved.of_settings(self.run) and self.may_take(run_id, saved):
            if current.active and name != self.run.box.name:
                where = HOLDER if name == HOLDER else f"the box `{name}`"
                raise Problem(
                    f"run `{run_id}` of these very settings is {current.phase} on {where}",
                    f"`inv logs --follow --run {run_id}` follows it; another of the same: `inv train -- seed=...`",
                    reason="refused",
                )
            return (run_id, etag, saved.sha256) if current.phase != "cancelled" else None
        if current.active and name == self.run.box.name != HOLDER and current.phase != "created":
            # A run of this box that is only created is being started by nobody: its lock is ours. The box itself has the last word.
            raise Problem(
                f"run `{run_id}` with other settings is still {current.phase}",
                "`inv logs --follow` follows it; `inv stop-run` ends it",
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
                saved = runs.readable_settings(self.store, run_id)
                if saved and saved.of_settings(self.run) and saved.run.provenance.image == image and self.may_take(run_id, saved):
                    screen.note(f"{run_id} was made with these settings and is not published yet: it is not trained again")
                    screen.note("  for another run with these settings: `inv train -- seed=...`")
                    return run_id
        return None


def assign(store: Store, run_id: str, name: str, instance_id: str, etag: str | None) -> None:
    """Write down which box has the run: another that wakes up with it on its volume lets go of it. A Problem if one was faster."""
    place, body = f"runs/{run_id}/box.json", json.dumps({"name": name, "instance": instance_id}).encode()
    if (store.replace(place, body, etag) if etag else store.create(place, body)) is None and store.get(place) != body:
        raise Problem(f"run `{run_id}` was given to another box just now", "`inv status` shows it", reason="refused")


def _create(store: Store, aws: Aws, run: schema.Run, image: str, root: Path) -> tuple[str, str]:
    """A new run's id, and the hash of its settings: they are written once, and nobody writes them again."""
    run.run_id = run.run_id or run_ids.new(run.name)
    taken = Taken(f"there is a run `{run.run_id}` already, of other settings", "leave `run_id` out: every run gets one", "refused")
    if run.run_id in runs.listing(store):
        raise taken
    sha, dirty = git.commit(root)
    kind = instance.type_of(aws, run.box)
    rate, source = pricing.per_hour(aws, kind)
    run.provenance = schema.Provenance(sha, dirty, image, kind, rate, source, run.provenance.swept, aws.owner, commands.recorded())
    body = load.dump(run).encode()
    if store.create(f"runs/{run.run_id}/config.yaml", body) is None and store.get(f"runs/{run.run_id}/config.yaml") != body:
        raise taken
    _set_phase(store, run.run_id, "created")
    return run.run_id, hashlib.sha256(body).hexdigest()


def _set_phase(store: Store, run_id: str, phase: str) -> None:
    set_state(store, run_id, phase)


def set_state(store: Store, run_id: str, phase: str, reason: str = "", evidence: str = "", hint: str = "") -> None:
    words = {"phase": phase, "since": runs.now(), "reason": reason, "evidence": evidence, "hint": hint, "heartbeat": runs.now()}
    store.put(f"runs/{run_id}/state.json", json.dumps(words).encode())
