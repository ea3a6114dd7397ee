"""Repositories of the Hub: commits, branches and tags, as JSON files that outlive the server.

    repositories/<kind>/<owner>/<name>/repository.json      who may see it, where branches and tags point
    repositories/<kind>/<owner>/<name>/commits/<id>.json    one commit: its parent and all files at that point

There is no git: a commit lists every file with its hashes, and `blobs` has the contents.
"""

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from twin.hub.blobs import GIT_ATTRIBUTES, Blobs, File

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
SERVED_SINCE = "2025-01-01T00:00:00.000Z"  # fixed, so that a served model's commit id depends on its files alone


class Refused(Exception):
    """An answer in place of a result: HTTP status, a sentence, and the word by which clients tell what it is."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.commit = commit


@dataclass
class Commit:
    id: str
    parent: str | None
    title: str
    description: str
    date: str
    files: dict[str, File]


@dataclass
class Repository:
    kind: str  # models or datasets
    id: str  # owner/name
    created: str
    private: bool = False
    gated: str | bool = False  # False, "auto" or "manual"
    served: bool = False  # a folder that is only shown; nobody changes it here
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def page(self) -> str:
        """Its path on the web."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"


class Store:
    def __init__(self, root: Path):
        self.folder = root / "repositories"
        self.blobs = Blobs(root)
        self.lock = threading.RLock()

    def find(self, kind: str, name: str) -> Repository | None:
        if not NAME.fullmatch(name):
            return None
        file = self._folder(kind, name) / "repository.json"
        try:
            return Repository(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def all(self) -> list[Repository]:
        return [Repository(**json.loads(file.read_text(encoding="utf-8"))) for file in sorted(self.folder.glob("*/*/*/repository.json"))]

    def create(self, kind: str, name: str, private: bool) -> tuple[Repository, bool]:
        """The repository, and whether it is new; a new one has the commit that the Hub makes by itself."""
        if not NAME.fullmatch(name):
            raise Refused(400, f"{name} cannot be the name of a repository")
        with self.lock:
            if existing := self.find(kind, name):
                return existing, False
            repository = Repository(kind, name, created=now(), private=private)
            self.commit(repository, "main", {".gitattributes": self.blobs.put_regular(GIT_ATTRIBUTES)}, "initial commit")
            self._write(repository)
        return repository, True

    def serve(self, models: dict[str, Path], gated: Collection[str]) -> None:
        """Shows each folder as a model repository of one commit, and no other folder that was shown before."""
        for repository in self.all():
            if repository.served and repository.id not in models:
                self.delete(repository)
        for name, folder in models.items():
            files = self.blobs.serve(folder)
            if not files or not NAME.fullmatch(name):
                raise ValueError(f"{folder} cannot be shown as {name}: give a folder with files and an id such as owner/name")
            repository = Repository("models", name, SERVED_SINCE, gated="manual" if name in gated else False, served=True)
            self.commit(repository, "main", files, "initial commit", date=SERVED_SINCE)
            self._write(repository)

    def delete(self, repository: Repository) -> None:
        with self.lock:
            shutil.rmtree(self._folder(repository.kind, repository.id))

    @contextmanager
    def changing(self, repository: Repository) -> Iterator[Repository]:
        """The repository as it is now, to be changed: one change at a time, written when the block ends well."""
        with self.lock:
            current = self.find(repository.kind, repository.id)
            if current is None:
                raise Refused(404, "Repository not found", "RepoNotFound")
            yield current
            self._write(current)

    def commit(
        self, repository: Repository, branch: str, files: dict[str, File], title: str, description: str = "", date: str | None = None
    ) -> str:
        """The id of a new commit at the head of the branch."""
        body = {
            "parent": repository.branches.get(branch),
            "title": title,
            "description": description,
            "date": date or now(),
            "files": {path: asdict(file) for path, file in sorted(files.items())},
        }
        oid = hashlib.sha1(json.dumps(body).encode()).hexdigest()
        _write_json(self._folder(repository.kind, repository.id) / "commits" / f"{oid}.json", body)
        repository.branches[branch] = oid
        return oid

    def read(self, repository: Repository, revision: str) -> Commit:
        """The commit that a branch, a tag or a commit id names."""
        oid = repository.branches.get(revision) or repository.tags.get(revision) or revision
        file = self._folder(repository.kind, repository.id) / "commits" / f"{oid}.json"
        if not re.fullmatch("[0-9a-f]{40}", oid) or not file.is_file():
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        body = json.loads(file.read_text(encoding="utf-8"))
        return Commit(id=oid, **{**body, "files": {path: File(**values) for path, values in body["files"].items()}})

    def head(self, repository: Repository, branch: str) -> Commit:
        if branch not in repository.branches:
            raise Refused(404, f"{branch} is no branch of {repository.id}", "RevisionNotFound")
        return self.read(repository, branch)

    def history(self, repository: Repository, revision: str) -> Iterator[Commit]:
        """The commit and those before it, newest first."""
        while revision is not None:
            commit = self.read(repository, revision)
            yield commit
            revision = commit.parent

    def last_change(self, repository: Repository, commit: Commit, path: str) -> Commit:
        """The commit that gave the file its present content."""
        last = commit
        for older in self.history(repository, commit.id):
            if older.files.get(path) != commit.files[path]:
                break
            last = older
        return last

    def _folder(self, kind: str, name: str) -> Path:
        return self.folder / kind / name

    def _write(self, repository: Repository) -> None:
        _write_json(self._folder(repository.kind, repository.id) / "repository.json", asdict(repository))


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _write_json(file: Path, content: dict) -> None:
    """Writes the file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(temporary, file)
