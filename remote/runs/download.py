"""The files of a finished run, brought here and compared with its manifest."""

import hashlib
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conf import paths, schema
from conf.problem import Problem
from conf.process.screen import screen
from remote.aws.s3 import Store
from remote.aws.session import Aws
from remote.runs import manifest, runs


@dataclass(frozen=True)
class Downloaded:
    run_id: str
    folder: Path


def download(aws: Aws, run: schema.Run, run_id: str | None, into: Path, merged: bool = False) -> Downloaded:
    """Fetch the finished run's files from S3 and check each against its manifest."""
    # A merged model has the size of its base: it comes only to be published.
    store = Store(aws)
    run_id = runs.find_sealed(aws, run, run_id)
    folder = writable(into) / run_id
    body = manifest.body(store, run_id)
    for file, stated in manifest.check(store, run_id, body)["files"].items():
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
