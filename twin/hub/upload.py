"""The upload side of the Hub's protocol: how each file is to be sent, where to put it, and what a commit does.

A client asks in three steps: `preupload` (regular file or large file storage?), for large ones the LFS batch
(where to PUT the bytes; nothing if they are there already), then one commit that names them by their sha256.
"""

import base64

from twin.hub.blobs import Blobs, File, in_lfs, large_file
from twin.hub.store import Refused


def modes(asked: list[dict], files: dict[str, File]) -> list[dict]:
    """For each file that is about to be sent: how to send it, and what is in its place now."""
    return [
        {
            "path": file["path"],
            "uploadMode": "lfs" if in_lfs(file["path"], file["size"], base64.b64decode(file["sample"])) else "regular",
            "shouldIgnore": False,
            "oid": files[file["path"]].etag if file["path"] in files else None,
        }
        for file in asked
    ]


def batch(asked: dict, blobs: Blobs, url: str, part_size: int) -> dict:
    """Where to PUT each large file; in parts if it is larger than `part_size` and the client can do so."""
    several = "multipart" in asked.get("transfers", []) and any(item["size"] > part_size for item in asked["objects"])
    objects = []
    for item in asked["objects"]:
        answer = {"oid": item["oid"], "size": item["size"]}
        if blobs.path(item["oid"]) is None:
            upload = _in_parts(item, url, part_size) if several and item["size"] > part_size else {"href": f"{url}/{item['oid']}"}
            answer["actions"] = {"upload": upload, "verify": {"href": f"{url}/{item['oid']}/verify"}}
        objects.append(answer)
    return {"transfer": "multipart" if several else "basic", "objects": objects}


def _in_parts(item: dict, url: str, part_size: int) -> dict:
    count = -(-item["size"] // part_size)
    parts = {str(number): f"{url}/{item['oid']}/part/{number}" for number in range(1, count + 1)}
    return {"href": f"{url}/{item['oid']}/complete", "header": {"chunk_size": str(part_size), **parts}}


def apply(operations: list[dict], files: dict[str, File], blobs: Blobs) -> dict[str, File]:
    """The files as they are after the operations of a commit."""
    files = dict(files)
    for operation in operations:
        value = operation["value"]
        path = _inside(value["path"])
        match operation["key"]:
            case "file":
                files[path] = blobs.put_regular(base64.b64decode(value["content"]))
            case "lfsFile":
                files[path] = _stored(path, value["oid"], blobs)
            case "deletedFile":
                if files.pop(path, None) is None:
                    raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            case "deletedFolder":
                files = {name: file for name, file in files.items() if not name.startswith(path + "/")}
            case other:
                raise Refused(400, f"a commit cannot hold {other} here")
    return files


def _stored(path: str, sha256: str, blobs: Blobs) -> File:
    content = blobs.path(sha256)
    if content is None:
        raise Refused(400, f"{path} points to the large file {sha256}, which was never uploaded")
    return large_file(sha256, content.stat().st_size)


def _inside(path: str) -> str:
    """The path, if it stays inside the repository."""
    path = path.removesuffix("/")
    if any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise Refused(400, f"{path!r} is no path for a file of a repository")
    return path
