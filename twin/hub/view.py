"""What the Hub's API says of a repository: the JSON that clients read, made from what is stored."""

import hashlib
from pathlib import PurePosixPath

from twin.hub import card
from twin.hub.access import Token
from twin.hub.blobs import File, pointer
from twin.hub.store import Commit, Repository


def account(name: str, token: Token, organisations: dict[str, str]) -> dict:
    """What whoami-v2 tells: the account, its organisations, and what the token that asks may do."""
    access_token = {"displayName": f"{token.role} token", "role": token.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    if token.role == "fineGrained":
        kinds = {name: "user"} | dict.fromkeys(organisations, "org")
        scoped = [
            {"entity": {"_id": entity, "type": kinds.get(entity, "model"), "name": entity}, "permissions": permissions}
            for entity, permissions in token.scopes.items()
        ]
        access_token["fineGrained"] = {"canReadGatedRepos": token.gated, "global": [], "scoped": scoped}
    member = [{"type": "org", "id": each, "name": each, "fullname": each, "roleInOrg": role} for each, role in organisations.items()]
    auth = {"type": "access_token", "accessToken": access_token}
    return {"type": "user", "id": name, "name": name, "fullname": name, "orgs": member, "auth": auth}


def information(repository: Repository, commit: Commit, readme: str, with_files: bool) -> dict:
    """A repository at one commit; `with_files` adds size and hashes of each file."""
    metadata = card.metadata(readme)
    return {
        "id": repository.id,
        "author": repository.owner,
        "sha": commit.id,
        "createdAt": repository.created,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(metadata),
        "cardData": metadata or None,
        "library_name": metadata.get("library_name"),
        "pipeline_tag": metadata.get("pipeline_tag"),
        "siblings": [_sibling(path, file, with_files) for path, file in commit.files.items()],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }


def _tags(metadata: dict) -> list[str]:
    tags = [metadata.get("library_name"), metadata.get("pipeline_tag"), *_words(metadata, "tags")]
    for name in ("license", "base_model", "datasets", "language"):
        prefix = {"datasets": "dataset:", "language": ""}.get(name, f"{name}:")
        tags += [prefix + word for word in _words(metadata, name)]
    return [tag for tag in tags if tag]


def _words(metadata: dict, name: str) -> list[str]:
    value = metadata.get(name) or []
    return [str(word) for word in (value if isinstance(value, list) else [value])]


def _sibling(path: str, file: File, with_hashes: bool) -> dict:
    if not with_hashes:
        return {"rfilename": path}
    sibling = {"rfilename": path, "size": file.size, "blobId": file.oid}
    if file.lfs:
        sibling["lfs"] = {"size": file.size, "sha256": file.sha256, "pointerSize": len(pointer(file.sha256, file.size))}
    return sibling


def tree(files: dict[str, File], folder: str, recursive: bool) -> list[dict]:
    """Files and folders below a folder; only its direct children unless recursive. Empty if there is no such folder."""
    inside = f"{folder.rstrip('/')}/" if folder else ""
    entries = {}
    for path, file in files.items():
        if not path.startswith(inside):
            continue
        for parent in reversed(PurePosixPath(path).parents[:-1]):
            if str(parent).startswith(inside) and str(parent) != folder:
                entries[str(parent)] = directory(str(parent), files)
        entries[path] = entry(path, file)
    depth = inside.count("/")
    return [item for path, item in entries.items() if recursive or path.count("/") == depth]


def paths(files: dict[str, File], asked: list[str]) -> list[dict]:
    """Those of the asked files and folders that exist."""
    items = [entry(path, files[path]) if path in files else directory(path, files) for path in asked]
    return [one for one in items if one["type"] == "file" or any(name.startswith(one["path"] + "/") for name in files)]


def entry(path: str, file: File) -> dict:
    item = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
    if file.lfs:
        item["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(pointer(file.sha256, file.size))}
    return item


def directory(path: str, files: dict[str, File]) -> dict:
    content = "".join(f"{name} {file.oid}\n" for name, file in files.items() if name.startswith(path + "/"))
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(content.encode()).hexdigest()}


def last_commit(commit: Commit) -> dict:
    return {"id": commit.id, "title": commit.title, "date": commit.date}


def commit(shown: Commit, author: str) -> dict:
    return {"id": shown.id, "title": shown.title, "message": shown.description, "date": shown.date, "authors": [{"user": author}]}


def references(repository: Repository) -> dict:
    def listed(kind: str, targets: dict[str, str]) -> list[dict]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in targets.items()]

    return {"branches": listed("heads", repository.branches), "tags": listed("tags", repository.tags), "converts": [], "pullRequests": []}
