"""What an instance that begins or goes on with a run needs of S3: settings, inputs, and what earlier attempts have left there."""

import hashlib
import os
import re
import shutil
from pathlib import Path

from carrier import state
from carrier.store import Store
from conf import load, paths, schema
from conf.problem import Problem

MOST_SETTINGS = 1 << 20  # bytes of config.yaml
MOST_EVENTS = 1 << 28  # bytes of events.jsonl
MOST_LOG = 1 << 30  # bytes of log.txt; what is behind them stays on the instance
PIECE = re.compile(r"[0-9]{12,18}")  # of the log, named by the offset of its first byte
STEP = re.compile(r"step-[0-9]{1,12}")


def settings(store: Store, run_id: str, sha256: str, folder: Path) -> schema.Run:
    """The run's settings, which are the very bytes that the laptop has read, in its folder."""
    body = store.get(f"runs/{run_id}/config.yaml", MOST_SETTINGS)
    if body is None or hashlib.sha256(body).hexdigest() != sha256:
        what = f"the settings of {run_id} in S3 are not those that the job was made for"
        raise Problem(what, "`inv train` again; if this comes back, somebody else writes into this run", "damaged_run")
    (folder / "config.yaml").write_bytes(body)
    (folder / "config.yaml").chmod(0o644)
    return load.read(body, f"config.yaml of {run_id}")


def inputs(store: Store, run: schema.Run, folder: Path) -> None:
    """The files that the trainer reads, by their hashes; those that are there already are compared too."""
    wanted = [run.data.train_sha256, run.data.validation_sha256, *run.data.also_sha256.values(), *run.lora.adapter_sha256.values()]
    for sha256 in filter(None, wanted):
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Problem(f"{sha256[:80]!r} is no hash of an input", "`inv train` makes a run anew", "damaged_run")
        target, part = folder / sha256, folder / f"{sha256}.{os.getpid()}.part"
        if target.is_file() and _hash(target) == sha256:
            continue
        with part.open("wb") as file:
            store.download(f"inputs/{sha256}", file)
        if _hash(part) != sha256:
            part.unlink()
            raise Problem(f"input {sha256} in S3 has other bytes than its name says", "`inv train` uploads it again", "damaged_run")
        part.chmod(0o644)
        part.replace(target)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record(store: Store, run_id: str, folder: Path) -> tuple[int, set[str]]:
    """What S3 has of the run's record, into its folder: how long its log is there, and which checkpoints."""
    place = f"runs/{run_id}/"
    names = {name.removeprefix(place): size for name, size in store.names(place).items()}
    room = shutil.disk_usage(folder).free
    for name, most in (("decided.json", state.MOST), ("events.jsonl", MOST_EVENTS)):
        if name in names and (body := store.get(place + name, most)) is not None:
            (folder / name).write_bytes(body)
    length = _log(store, place, names, folder / "log.txt")
    complete = {name.split("/")[1] for name in names if re.fullmatch(rf"checkpoints/{STEP.pattern}/COMPLETE", name)}
    files = {name: size for name, size in names.items() if name.startswith("checkpoints/") and name.split("/")[1] in complete}
    if sum(files.values()) > room:
        raise Problem(f"the checkpoints of {run_id} are larger than the disk", "raise `fleet.disk_gb`, then `inv init`", "disk_full")
    for name in files:
        target = paths.inside(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            store.download(place + name, file)
    return length, complete


def _log(store: Store, place: str, names: dict[str, int], log: Path) -> int:
    """The log's pieces in order, as far as they follow each other; each byte once."""
    length = 0
    with log.open("wb") as file:
        for name in sorted((name for name in names if re.fullmatch(rf"log/{PIECE.pattern}", name)), key=lambda name: int(name[4:])):
            start = int(name[4:])
            if start > length or start + names[name] > MOST_LOG:
                break
            body = store.get(place + name, MOST_LOG) or b""
            file.write(body[length - start :])
            length = max(length, start + len(body))
    return length
