"""Images of the stand-in docker: logs in to the registry, pulls a manifest and its config, checks their digests."""

import base64
import hashlib
import json
import os
import sys
from pathlib import Path

from words import Failure, one, parse, show, write

ROOT = Path(os.environ["BOX_ROOT"])
IMAGES = ROOT / "var/lib/docker/images"
# Real docker asks HOME; a script may have set that to anything, and nothing of a box is written outside of its root.
LOGINS = Path(os.environ.get("DOCKER_CONFIG", ROOT / "root/.docker")) / "config.json"


class Answer(Exception):
    """A registry that did not say 200."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status} {reason}")
        self.status = status


def fetch(registry: str, path: str, logins: dict) -> bytes:
    import http.client  # slow to import, and most commands never ask a registry

    headers = {"Authorization": f"Basic {logins[registry]['auth']}"} if registry in logins else {}
    connection = http.client.HTTPConnection(registry, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        content = reply.read()
    except OSError as error:
        raise Failure(f"Error response from daemon: Get http://{registry}{path}: {error}") from None
    finally:
        connection.close()
    if reply.status != 200:
        raise Answer(reply.status, reply.reason)
    return content


def known_logins() -> dict:
    return json.loads(LOGINS.read_text())["auths"] if LOGINS.exists() else {}


def login(arguments: list[str]) -> None:
    options, rest = parse(arguments, "--password-stdin", "--username")
    registry = one(rest).removeprefix("http://").removeprefix("https://").strip("/")
    if "--password-stdin" not in options or "--username" not in options:
        raise Failure("this emulated docker logs in with --username and --password-stdin only")
    password = sys.stdin.read().strip()
    logins = known_logins() | {registry: {"auth": base64.b64encode(f"{options['--username'][0]}:{password}".encode()).decode()}}
    try:
        fetch(registry, "/v2/", logins)
    except Answer as answer:
        raise Failure(f"Error response from daemon: login attempt to http://{registry}/v2/ failed with status: {answer}") from None
    write(LOGINS, {"auths": logins}, mode=0o600)
    print("Login Succeeded")


def pull(arguments: list[str]) -> None:
    options, rest = parse(arguments, "--quiet")
    reference = one(rest)
    download(reference)
    print(reference if "--quiet" in options else f"Status: Downloaded newer image for {reference}\n{reference}")


def download(reference: str) -> None:
    registry, _, path = reference.partition("/")
    name, pinned, digest = path.partition("@")
    if not pinned:
        name, _, digest = path.partition(":")
    try:
        manifest = fetch(registry, f"/v2/{name}/manifests/{digest or 'latest'}", known_logins())
        config = json.loads(manifest)["config"]
        settings = fetch(registry, f"/v2/{name}/blobs/{config['digest']}", known_logins())
    except Answer as answer:
        known = {401: "no basic auth credentials", 404: f"manifest for {reference} not found: manifest unknown"}
        raise Failure(f"Error response from daemon: {known.get(answer.status, answer)}") from None
    if (pinned and sha256(manifest) != digest) or sha256(settings) != config["digest"]:
        raise Failure(f"Error response from daemon: filesystem layer verification failed for digest {digest}")
    content = {"Id": config["digest"], "RepoDigests": [f"{registry}/{name}@{sha256(manifest)}"], "Config": json.loads(settings)["config"]}
    write(image_file(reference), content)


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image_file(reference: str) -> Path:
    return IMAGES / (hashlib.sha256(reference.encode()).hexdigest() + ".json")


def ready(reference: str) -> dict:
    """The image, pulled first if it is not here."""
    if not image_file(reference).exists():
        print(f"Unable to find image '{reference}' locally", file=sys.stderr)
        download(reference)
    return json.loads(image_file(reference).read_text())


def image(arguments: list[str]) -> None:
    verb, *arguments = arguments or [""]
    if verb == "inspect":
        options, rest = parse(arguments, "", "--format")
        if not image_file(one(rest)).exists():
            raise Failure(f"[]\nError response from daemon: No such image: {rest[0]}")
        show(json.loads(image_file(rest[0]).read_text()), options)
    elif verb == "prune":
        parse(arguments, "--all --force", "--filter")
        print("Total reclaimed space: 0B")
    else:
        raise Failure(f"this emulated docker has no `docker image {verb}`")
