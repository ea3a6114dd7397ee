"""Images of the stand-in docker: logs in to the registry, pulls and pushes manifests, configs and layers, checks their digests."""

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

from words import Failure, parse, show, single, write

ROOT = Path(os.environ["BOX_ROOT"])
IMAGES = ROOT / "var/lib/docker/images"
BLOBS, LAYERS = ROOT / "var/lib/docker/blobs", ROOT / "var/lib/docker/layers"
KINDS = ("manifest.v1+json", "config.v1+json", "layer.v1.tar", "index.v1+json")
MANIFEST, CONFIG, LAYER, INDEX = (f"application/vnd.oci.image.{kind}" for kind in KINDS)
PLATFORMS = (("amd64", "linux"), ("unknown", "unknown"))  # of an image and of its attestation
STATEMENT = "application/vnd.in-toto+json"  # what an attestation is made of
# Real docker asks HOME; a script may have set that to anything, and nothing of a box is written outside of its root.
LOGINS = Path(os.environ.get("DOCKER_CONFIG", ROOT / "root/.docker")) / "config.json"


class RegistryRefused(Exception):
    """A registry that refused."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status} {reason}")
        self.status, self.reason = status, reason


def ask(registry: str, method: str, path: str, logins: dict, body: bytes | None = None, kind: str = "") -> tuple[bytes, str]:
    """What the registry answers, and where it says to go on."""
    import http.client  # slow to import, and most commands never ask a registry

    headers = {"Authorization": f"Basic {logins[registry]['auth']}"} if registry in logins else {}
    headers |= {"Content-Type": kind} if kind else {}
    connection = http.client.HTTPConnection(registry, timeout=60)
    try:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        content, location = reply.read(), reply.getheader("Location", "")
    except OSError as error:
        raise Failure(f"Error response from daemon: {method} http://{registry}{path}: {error}") from None
    finally:
        connection.close()
    if reply.status not in (200, 201, 202):
        raise RegistryRefused(reply.status, message(content) or reply.reason)
    return content, location


def message(content: bytes) -> str:
    """A registry's own words, where it has any."""
    try:
        error = json.loads(content)["errors"][0]
        return f"{error['code'].lower().replace('_', ' ')}: {error['message']}"
    except (ValueError, KeyError, IndexError):
        return ""


def fetch(registry: str, path: str, logins: dict) -> bytes:
    return ask(registry, "GET", path, logins)[0]


def known_logins() -> dict:
    return json.loads(LOGINS.read_text(encoding="utf-8"))["auths"] if LOGINS.exists() else {}


def login(arguments: list[str]) -> None:
    options, rest = parse(arguments, "--password-stdin", "--username")
    registry = single(rest).removeprefix("http://").removeprefix("https://").strip("/")
    if "--password-stdin" not in options or "--username" not in options:
        raise Failure("this emulated docker logs in with --username and --password-stdin only")
    password = sys.stdin.read().strip()
    logins = known_logins() | {registry: {"auth": base64.b64encode(f"{options['--username'][0]}:{password}".encode()).decode()}}
    try:
        fetch(registry, "/v2/", logins)
    except RegistryRefused as answer:
        raise Failure(f"Error response from daemon: login attempt to http://{registry}/v2/ failed with status: {answer}") from None
    write(LOGINS, {"auths": logins}, mode=0o600)
    print("Login Succeeded")


def pull(arguments: list[str]) -> None:
    options, rest = parse(arguments, "--quiet")
    reference = single(rest)
    download(reference)
    print(reference if "--quiet" in options else f"Status: Downloaded newer image for {reference}\n{reference}")


def download(reference: str) -> None:
    registry, name, wanted = parse_reference(reference)
    logins = known_logins()
    try:
        manifest = fetch(registry, f"/v2/{name}/manifests/{wanted}", logins)
        document = json.loads(manifest)
        if "manifests" in document:
            (mine,) = [one["digest"] for one in document["manifests"] if one["platform"]["architecture"] == "amd64"]
            document = json.loads(fetch(registry, f"/v2/{name}/manifests/{mine}", logins))
        for blob in (document["config"], *document["layers"]):
            if store_blob(fetch(registry, f"/v2/{name}/blobs/{blob['digest']}", logins)) != blob["digest"]:
                raise Failure(f"Error response from daemon: filesystem layer verification failed for digest {blob['digest']}")
    except RegistryRefused as answer:
        known = {401: "no basic auth credentials", 404: f"manifest for {reference} not found: manifest unknown"}
        raise Failure(f"Error response from daemon: {known.get(answer.status, answer)}") from None
    if "@" in reference and sha256(manifest) != wanted:
        raise Failure(f"Error response from daemon: filesystem layer verification failed for digest {wanted}")
    save_image(reference, blob_file(document["config"]["digest"]).read_bytes(), [f"{registry}/{name}@{sha256(manifest)}"])


def push(arguments: list[str]) -> None:
    options, rest = parse(arguments, "--quiet")
    reference = single(rest)
    registry, name, tag = parse_reference(reference)
    if "@" in reference or not image_file(reference).exists():
        raise Failure(f"An image does not exist locally with the tag: {registry}/{name}")
    saved = json.loads(image_file(reference).read_text(encoding="utf-8"))
    config = blob_file(saved["Id"]).read_bytes()
    layers = [blob_file(digest).read_bytes() for digest in json.loads(config)["rootfs"]["diff_ids"]]
    repository = Repository(registry, name)
    try:
        pushed = (
            repository.upload_attested(config, layers, tag) if saved["Attested"] else repository.upload_image(config, layers, LAYER, tag)
        )
    except RegistryRefused as answer:
        raise Failure("no basic auth credentials" if answer.status == 401 else answer.reason) from None
    save_image(reference, config, [f"{registry}/{name}@{pushed['digest']}"], saved["Attested"])
    print(reference if "--quiet" in options else f"{tag}: digest: {pushed['digest']} size: {pushed['size']}")


class Repository:
    """Where an image is pushed to; whatever it takes it answers with a descriptor of."""

    def __init__(self, registry: str, name: str):
        self.registry, self.path, self.logins = registry, f"/v2/{name}", known_logins()

    def upload_attested(self, config: bytes, layers: list[bytes], tag: str) -> dict:
        """An index of the image and of a manifest that says how it was made; only the index has the tag."""
        image = self.upload_image(config, layers, LAYER)
        statement = json.dumps({"predicateType": "https://slsa.dev/provenance/v1", "subject": image["digest"]}).encode()
        provenance = self.upload_image(b"{}", [statement], STATEMENT)
        provenance["annotations"] = {"vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"}
        image["platform"], provenance["platform"] = ({"architecture": name, "os": system} for name, system in PLATFORMS)
        return self.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image, provenance]}, tag)

    def upload_image(self, config: bytes, layers: list[bytes], kind: str, tag: str = "") -> dict:
        for body in (*layers, config):
            self.upload(body)
        named = {"config": descriptor(CONFIG, config), "layers": [descriptor(kind, one) for one in layers]}
        return self.put({"schemaVersion": 2, "mediaType": MANIFEST, **named}, tag)

    def put(self, content: dict, tag: str) -> dict:
        body = json.dumps(content).encode()
        ask(self.registry, "PUT", f"{self.path}/manifests/{tag or sha256(body)}", self.logins, body, content["mediaType"])
        return descriptor(content["mediaType"], body)

    def upload(self, body: bytes) -> None:
        try:
            ask(self.registry, "HEAD", f"{self.path}/blobs/{sha256(body)}", self.logins)
        except RegistryRefused as answer:
            if answer.status != 404:
                raise
            _, place = ask(self.registry, "POST", f"{self.path}/blobs/uploads/", self.logins)
            ask(self.registry, "PUT", f"{place}?digest={sha256(body)}", self.logins, body)


def descriptor(kind: str, body: bytes) -> dict:
    return {"mediaType": kind, "digest": sha256(body), "size": len(body)}


def parse_reference(reference: str) -> tuple[str, str, str]:
    """Registry, repository, and tag or digest."""
    registry, _, path = reference.partition("/")
    name, _, wanted = path.partition("@") if "@" in path else path.partition(":")
    return registry, name, wanted or "latest"


def store_blob(body: bytes) -> str:
    """The digest of bytes that are kept from now on."""
    path = blob_file(sha256(body))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return sha256(body)


def save_image(reference: str, config: bytes, digests: list[str], attested: bool = False) -> None:
    """The image is here under this name, and under each of its digests; its files are unpacked."""
    document = json.loads(config)
    saved = {
        "Attested": attested,  # how it was made travels with it
        "Id": sha256(config),
        "RepoTags": [] if "@" in reference else [reference],
        "RepoDigests": digests,
        "Created": document.get("created", ""),
    }
    saved |= {"Config": document["config"], "RootFS": {"Layers": document["rootfs"]["diff_ids"]}, "Size": 0}
    for layer in document["rootfs"]["diff_ids"]:
        body = blob_file(layer).read_bytes()
        saved["Size"] += len(body)
        if not layer_folder(layer).exists():
            extract(body, layer_folder(layer))
    for name in {reference, *digests}:
        write(image_file(name), saved)


def extract(body: bytes, folder: Path) -> None:
    """A layer's files in a folder. Python's own extractall() has no filter before 3.11.4, and Debian 12 has 3.11.2."""
    for name, content in read_tarball(body).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_tarball(body: bytes) -> dict[str, bytes]:
    """The files of a tarball. A path that leads out of it is refused."""
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            files = {member.name.removeprefix("./"): tar.extractfile(member).read() for member in tar if member.isfile()}
    except tarfile.TarError as error:
        raise Failure(f"ERROR: failed to solve: failed to read the context: {error}") from None
    if outside := [name for name in files if name.startswith("/") or ".." in Path(name).parts]:
        raise Failure(f"ERROR: failed to solve: {outside[0]} is outside of the context")
    return files


def blob_file(digest: str) -> Path:
    return BLOBS / digest.removeprefix("sha256:")


def layer_folder(digest: str) -> Path:
    return LAYERS / digest.removeprefix("sha256:")


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image_file(reference: str) -> Path:
    return IMAGES / (hashlib.sha256(reference.encode()).hexdigest() + ".json")


def image_or_pull(reference: str) -> dict:
    """The image, pulled first if it is not here."""
    if not image_file(reference).exists():
        print(f"Unable to find image '{reference}' locally", file=sys.stderr)
        download(reference)
    return json.loads(image_file(reference).read_text(encoding="utf-8"))


def image(arguments: list[str]) -> None:
    verb, *arguments = arguments or [""]
    if verb == "inspect":
        options, rest = parse(arguments, "", "--format")
        if not image_file(single(rest)).exists():
            raise Failure(f"[]\nError response from daemon: No such image: {rest[0]}")
        show(json.loads(image_file(rest[0]).read_text(encoding="utf-8")), options)
    elif verb == "prune":
        parse(arguments, "--all --force", "--filter")
        print("Total reclaimed space: 0B")
    else:
        raise Failure(f"this emulated docker has no `docker image {verb}`")
