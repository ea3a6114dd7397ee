"""What a run writes travels to S3: its log, events, state, decisions and checkpoints while it goes on, its files when it ends.

The objects are those of the box's supervisor (remote/scripts/ship.sh); a test holds both to the same ones.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from carrier import files, state
from carrier.fetch import MOST_EVENTS, MOST_LOG, STEP
from carrier.store import Store
from conf.text import secret

MOST_FILES = 10000  # in what is shipped of a run at once
MOST_OPEN = 256  # of a checkpoint, which has ten: a container of docker's may have 1,024 files open
MOST_PIECE = 1 << 26  # bytes of it at once
NAME = re.compile(r"[-A-Za-z0-9_.+=@/ ]+")
ENDED = ("failed", "cancelled", "done")


class NotOurs(Exception):
    """Somebody else has gone on with the run."""


class Shipper:
    def __init__(
        self, store: Store, run_id: str, folder: Path, ours: Callable[[], bool], shipped: int = 0, checkpoints: Iterable[str] = ()
    ):
        self.store, self.folder, self.ours = store, folder, ours
        self.place = f"runs/{run_id}/"
        self.shipped = shipped  # bytes of the log
        self.checkpoints = set(checkpoints)
        self.sent: dict[str, str] = {}  # of files that are written anew: the hash of what S3 has

    def ship(self, end: bool = False) -> None:
        """What is new. Only at the `end` the log's last line may be one without an end, and only then goes a phase that ends the run, after
        all else: a reader of it has read the rest."""
        if not self.ours():
            raise NotOurs
        whole = self._whole_checkpoints()  # before the log is taken: S3 never has a checkpoint of steps that its log lacks
        self._ship_log(end)
        body = state.read(self.folder)
        if body is not None and state.phase(body) not in ENDED:
            self._put("state.json", body)
        for name, most in (("events.jsonl", MOST_EVENTS), ("decided.json", state.MOST)):
            if (body := files.take(self.folder, name, most)) is not None:
                self._put(name, body)
        self._ship_checkpoints(whole)
        if end and (body := state.read(self.folder)) is not None:
            self._put("state.json", body)

    def _put(self, name: str, body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        if self.sent.get(name) != digest:
            self.store.put(self.place + name, body)
            self.sent[name] = digest

    def _ship_log(self, end: bool) -> None:
        """A piece is named by the offset of its first byte: shipped twice, it is the same piece."""
        while self.shipped < (whole := min(files.size(self.folder, "log.txt"), MOST_LOG)):
            piece = files.take(self.folder, "log.txt", min(whole - self.shipped, MOST_PIECE), self.shipped) or b""
            if not end and len(piece) < MOST_PIECE:
                piece = piece[: piece.rfind(b"\n") + 1]  # half a token would not be known for one
            if not piece:
                return
            hidden = hide(piece)
            if hidden != piece:
                files.put(self.folder, "log.txt", hidden, self.shipped)
            self.store.put(f"{self.place}log/{self.shipped:012d}", hidden)
            self.shipped += len(piece)
            print_piece(hidden)
            if not end:
                return

    def _whole_checkpoints(self) -> set[str]:
        return {step for step in self._steps() if f"checkpoints/{step}/COMPLETE" in files.listed(self.folder, f"checkpoints/{step}")}

    def _ship_checkpoints(self, whole: set[str]) -> None:
        """A checkpoint never changes once it is there, and travels once; COMPLETE last. What the trainer no longer keeps, S3 need not keep;
        but never before something newer is there."""
        here = self._steps()
        for step in sorted(whole & here - self.checkpoints):
            names = self._sendable(f"checkpoints/{step}")
            if names is None or len(names) > MOST_OPEN:
                say(f"{step} holds what is no file, more than {MOST_OPEN} files, or more than its disk: it is not shipped")
            elif self._upload_checkpoint(sorted(names, key=lambda name: name.endswith("/COMPLETE"))):
                self.checkpoints.add(step)
        gone = self.checkpoints - here
        if gone and self.checkpoints & here:
            places = tuple(f"{self.place}checkpoints/{step}/" for step in gone)
            self.store.remove([name for name in self.store.names(f"{self.place}checkpoints/") if name.startswith(places)])
            self.checkpoints -= gone

    def _steps(self) -> set[str]:
        place = self.folder / "checkpoints"
        if place.is_symlink() or not place.is_dir():
            return set()
        return {entry.name for entry in os.scandir(place) if STEP.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)}

    def _sendable(self, below: str = ".") -> dict[str, int] | None:
        """The files below with their sizes; None where something there is no file, is called oddly, or claims more than the disk has."""
        names = files.listed(self.folder, below)
        sizes = {name: size for name, size in names.items() if size is not None and NAME.fullmatch(name)}
        room = shutil.disk_usage(self.folder).total
        return sizes if len(sizes) == len(names) <= MOST_FILES and sum(sizes.values()) <= room else None

    def _upload(self, name: str) -> None:
        with files.opened(self.folder, name) as file:
            self._send(name, file)

    def _upload_checkpoint(self, names: list[str]) -> bool:
        """All its files as they are now, though the trainer may remove them meanwhile; False where it has begun to already."""
        if not names or not names[-1].endswith("/COMPLETE"):
            return False
        with ExitStack() as opened:
            try:
                there = {name: opened.enter_context(files.opened(self.folder, name)) for name in names}
            except FileNotFoundError:
                return False
            for name, file in there.items():
                self._send(name, file)
        return True

    def _send(self, name: str, file: int) -> None:
        with os.fdopen(os.dup(file), "rb") as body:
            self.store.upload(self.place + name, body)

    def deliver(self) -> bool:
        """Everything first, the manifest last: a run with a manifest is whole. False where the folder holds what cannot be sent."""
        if not self.ours():
            raise NotOurs
        self._ship_log(end=True)  # before it travels whole: no token is left in it
        names = self._sendable()
        if names is None or "manifest.json" not in names:
            return False
        apart = {"manifest.json", "config.yaml", "state.json"}
        for name in sorted(names):
            if name not in apart and not name.startswith("checkpoints") and not name.endswith(".part"):
                self._upload(name)
        self._upload("manifest.json")
        return True

    def remove_checkpoints(self) -> None:
        """A finished run's are of no more use."""
        self.store.remove(list(self.store.names(f"{self.place}checkpoints/")))


def hide(piece: bytes) -> bytes:
    """The same with as many asterisks in the place of every known token: no offset moves."""
    for token in secret.known():
        piece = piece.replace(token.encode(), b"*" * len(token.encode()))
    return piece


def print_piece(piece: bytes) -> None:
    """What the container prints is in CloudWatch."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def say(words: str) -> None:
    print(f"carrier: {secret.hide(words)}", file=sys.stderr, flush=True)
