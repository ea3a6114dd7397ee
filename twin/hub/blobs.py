"""Contents of the Hub's files: kept on disk once each, found by their sha256.

A served folder (a base model of some hundred megabytes) is not copied: its files are hashed once, the hashes are
remembered, and the contents are read where they lie.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

# What the `.gitattributes` of a new repository on the Hub sends to large file storage, whatever the size.
LFS_SUFFIXES = (
    *(".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".gguf", ".gz", ".h5", ".joblib", ".model", ".msgpack", ".npy", ".npz", ".onnx"),
    *(".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar", ".safetensors", ".tar", ".tflite", ".tgz", ".xz", ".zip", ".zst"),
)
LFS_FROM = 10 * 2**20  # bytes; the Hub takes nothing larger as a regular file
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
STEP = 2**20


class Damaged(Exception):
    """What arrived is not what was announced."""


@dataclass(frozen=True)
class File:
    """One file of a commit, as git and the Hub name it."""

    size: int
    sha256: str
    oid: str  # git's id of the content, or of the pointer that stands for it when it is in large file storage
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


def in_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub keeps a file in large file storage: by its name, its size, or because it is binary."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_FROM or b"\0" in sample)


def pointer(sha256: str, size: int) -> bytes:
    """What git itself keeps in place of a file in large file storage."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def regular_file(content: bytes) -> File:
    return File(len(content), hashlib.sha256(content).hexdigest(), git_oid(content), lfs=False)


def large_file(sha256: str, size: int) -> File:
    return File(size, sha256, git_oid(pointer(sha256, size)), lfs=True)


class Blobs:
    def __init__(self, root: Path):
        self.folder = root / "blobs"
        self.parts = root / "parts"
        self.hashes = root / "hashes.json"
        self.served: dict[str, Path] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path | None:
        """Where the content lies; None when the Hub does not have it."""
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            return None
        for place in (self.served.get(sha256), self._place(sha256)):
            if place is not None and place.is_file():
                return place
        return None

    def put(self, stream: BinaryIO, sha256: str) -> None:
        """Keeps what the stream holds if it has this sha256."""
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            arrived = Path(work, "content")
            with arrived.open("wb") as file:
                while chunk := stream.read(STEP):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise Damaged(f"sha256 {sha256} was announced, {digest.hexdigest()} arrived")
            self._place(sha256).parent.mkdir(exist_ok=True)
            os.replace(arrived, self._place(sha256))

    def put_regular(self, content: bytes) -> File:
        file = regular_file(content)
        self.put(BytesIO(content), file.sha256)
        return file

    def put_part(self, sha256: str, number: int, stream: BinaryIO) -> str:
        """Keeps one part of a large file until all are there; its ETag."""
        place = self.parts / sha256 / str(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            shutil.copyfileobj(stream, file, STEP)
        with place.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    def join_parts(self, sha256: str, numbers: list[int]) -> None:
        """Makes one file of its parts, in this order."""
        missing = [number for number in numbers if not (self.parts / sha256 / str(number)).is_file()]
        if missing or not numbers:
            raise Damaged(f"of the large file {sha256} the parts {missing or 'all'} did not arrive")
        with tempfile.TemporaryFile(dir=self.folder) as whole:
            for number in numbers:
                with (self.parts / sha256 / str(number)).open("rb") as part:
                    shutil.copyfileobj(part, whole, STEP)
            whole.seek(0)
            self.put(whole, sha256)
        shutil.rmtree(self.parts / sha256)

    def serve(self, folder: Path) -> dict[str, File]:
        """The files of a folder by their path in it; from now on their contents are read from there."""
        known = json.loads(self.hashes.read_text(encoding="utf-8")) if self.hashes.exists() else {}
        files = {}
        for source in sorted(path for path in folder.resolve().rglob("*") if path.is_file()):
            relative = source.relative_to(folder.resolve())
            if any(part.startswith(".") for part in relative.parts):
                continue
            status = source.stat()
            key = f"{source} {status.st_size} {status.st_mtime_ns}"
            if key not in known:
                known[key] = asdict(_describe(source))
            files[relative.as_posix()] = File(**known[key])
            self.served[known[key]["sha256"]] = source
        temporary = self.hashes.with_suffix(".new")
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(temporary, self.hashes)
        return files

    def _place(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256


def _describe(source: Path) -> File:
    size = source.stat().st_size
    with source.open("rb") as file:
        if not in_lfs(source.name, size, file.peek(512)[:512]):
            return regular_file(file.read())
        return large_file(hashlib.file_digest(file, "sha256").hexdigest(), size)
