"""ECR's registry side: a login that works, repository URIs on this machine, and the registry protocol as far as pull and push need it.

Moto keeps the repositories and manifests, layers and configs are kept here. An image that is registered as a mere command has no layers:
its config stands inside the manifest, in the descriptor's `data` field that the OCI image specification has for this.
"""

import base64
import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs

from twin.aws import wire
from twin.aws.services import ecr_lifecycle

AMAZON_HOST = re.compile(rb"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com")
REQUEST = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")
UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<number>[0-9a-f]*)")
TOKEN_LIFE = 12 * 3600  # seconds


class Registry:
    def __init__(self, region: str):
        self.region = region
        self.renew()
        self.blobs: dict[str, bytes] = {}  # by digest
        self.holes: list[dict] = []  # what a scan finds in each image
        self.scan_status = "COMPLETE"
        self.now: Callable[[], float] = time.time  # the world's clock
        self.later: Callable[[float, Callable[[], None]], None] = lambda seconds, action: None  # on that clock
        self.operations: dict[str, wire.Handler] = {
            "ecr.GetAuthorizationToken": self.authorize,
            "ecr.PutImage": self.put_image,
            "ecr.PutLifecyclePolicy": self.put_policy,
            "ecr.DescribeImageScanFindings": self.scan_findings,
            "ecr.CreateRepository": with_local_uri,
            "ecr.DescribeRepositories": with_local_uri,
            "registry.GET": self.serve,
            "registry.HEAD": self.serve,
            "registry.POST": self.receive,
            "registry.PUT": self.receive,
        }

    def renew(self) -> None:
        """From now on nobody is logged in."""
        self.token = secrets.token_urlsafe(32)

    @property
    def credentials(self) -> str:
        return base64.b64encode(f"AWS:{self.token}".encode()).decode()

    def authorize(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        endpoint = f"http://{request.environ['HTTP_HOST']}"
        data = {"authorizationToken": self.credentials, "expiresAt": time.time() + TOKEN_LIFE, "proxyEndpoint": endpoint}
        return wire.answer({"authorizationData": [data]})

    def serve(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """GET or HEAD of /v2/, of a manifest or of a config blob, for clients that have logged in."""
        if not self.logged_in(request):
            return unauthorized()
        if request.path == "/v2/":
            return wire.Response("{}", content_type="application/json")
        match = REQUEST.fullmatch(request.path)
        blob = match and self.find(**match.groupdict())
        if not blob:
            return problem(404, "MANIFEST_UNKNOWN" if match and match["kind"] == "manifests" else "BLOB_UNKNOWN")
        content, media_type = blob
        return wire.Response(content, content_type=media_type, headers={"Docker-Content-Digest": digest(content)})

    def receive(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The writing half: a blob in one piece, then the manifest that names it, under a tag that nothing else has."""
        if not self.logged_in(request):
            return unauthorized()
        upload, named = UPLOAD.fullmatch(request.path), REQUEST.fullmatch(request.path)
        if not self.known((upload or named or {"name": ""})["name"]):
            return problem(404, "NAME_UNKNOWN")
        if upload and request.operation == "POST":
            return wire.Response(status=202, headers={"Location": f"{request.path.rstrip('/')}/{secrets.token_hex(16)}"})
        if upload:
            return self.receive_blob(request)
        return self.receive_manifest(request, named["name"], named["reference"])

    def receive_blob(self, request: wire.Request) -> wire.Response:
        (expected,) = parse_qs(request.environ["QUERY_STRING"])["digest"]
        if digest(request.body) != expected:
            return problem(400, "DIGEST_INVALID")
        self.blobs[expected] = request.body
        return wire.Response(status=201, headers={"Docker-Content-Digest": expected})

    def receive_manifest(self, request: wire.Request, name: str, reference: str) -> wire.Response:
        content = json.loads(request.body)
        if self.has_missing_parts(name, content):
            return problem(400, "MANIFEST_BLOB_UNKNOWN")
        tag = None if reference.startswith("sha256:") else reference
        if other := immutable_tag_error(self.known(name), tag, digest(request.body)):
            return problem(400, "TAG_INVALID", words=other)
        own = digest(request.body)
        if not any(tag in (None, *image.image_tags) and image.get_image_digest() == own for image in self.known(name).images):
            from moto.ecr.models import ecr_backends

            kind = request.environ["CONTENT_TYPE"]
            self.record_push(name, ecr_backends[wire.ACCOUNT][self.region].put_image(name, request.body.decode(), tag, kind, own))
        return wire.Response(status=201, headers={"Docker-Content-Digest": own})

    def has_missing_parts(self, name: str, content: dict) -> bool:
        """Whether something that the manifest names is not there: an image's blobs, or an index's manifests."""
        if "manifests" in content:
            digests = {image.get_image_digest() for image in self.known(name).images}
            return any(one["digest"] not in digests for one in content["manifests"])
        return any(blob["digest"] not in self.blobs for blob in (content["config"], *content["layers"]))

    def put_image(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """An image's digest is that of its manifest; moto would make one up."""
        content = request.parameters
        own = digest(content["imageManifest"].encode())
        if content.get("imageDigest", own) != own:
            raise wire.Refusal("ImageDigestDoesNotMatchException", f"The digest of the manifest is {own}.")
        refuse_moving_tag(request, own)
        response = forward(replace(request, body=json.dumps(content | {"imageDigest": own}).encode()))
        if response.status_code == 200:
            for image in self.known(content["repositoryName"]).images:
                if image.get_image_digest() == own:
                    self.record_push(content["repositoryName"], image)
        return response

    def record_push(self, name: str, image) -> None:
        """An image was pushed just now; it is scanned where its repository says so."""
        image.image_pushed_at = int(self.now())
        if self.known(name).image_scanning_configuration["scanOnPush"]:
            image.last_scan = datetime.fromtimestamp(self.now(), UTC)
        self.later(ecr_lifecycle.DAY, self.expire)

    def scan_findings(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """Moto knows whether there was a scan, and makes up what it has found; what stands here is in the format of basic scanning."""
        parameters = request.parameters
        response = forward(request)
        if response.status_code != 200:
            return response
        image = self.known(parameters["repositoryName"])._get_image(
            parameters["imageId"].get("imageTag"), parameters["imageId"].get("imageDigest")
        )
        answer = {name: parameters[name] for name in ("repositoryName", "imageId")} | {"registryId": wire.ACCOUNT}
        answer["imageId"] = {"imageDigest": image.get_image_digest()} | parameters["imageId"]
        if self.scan_status != "COMPLETE":
            return wire.answer(answer | {"imageScanStatus": {"status": self.scan_status}})
        counts = dict(Counter(one["severity"] for one in self.holes))
        start, most = int(parameters.get("nextToken") or 0), parameters.get("maxResults") or 100
        done = {"imageScanCompletedAt": image.last_scan.timestamp(), "vulnerabilitySourceUpdatedAt": image.last_scan.timestamp()}
        done |= {"findings": self.holes[start : start + most], "findingSeverityCounts": counts}
        more = {"nextToken": str(start + most)} if start + most < len(self.holes) else {}
        status = {"status": "COMPLETE", "description": "The scan was completed successfully."}
        return wire.answer(answer | {"imageScanFindings": done, "imageScanStatus": status} | more)

    def put_policy(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        self.later(ecr_lifecycle.DAY, self.expire)
        return response

    def expire(self) -> None:
        """Every repository without the images that its lifecycle policy expires by now."""
        from moto.ecr.models import ecr_backends

        for repository in ecr_backends[wire.ACCOUNT][self.region].repositories.values():
            if repository.lifecycle_policy:
                gone = ecr_lifecycle.expired(
                    repository.lifecycle_policy, [lifecycle_image(image) for image in repository.images], self.now()
                )
                repository.images[:] = [image for image in repository.images if image.get_image_digest() not in gone]

    def logged_in(self, request: wire.Request) -> bool:
        return request.environ.get("HTTP_AUTHORIZATION") == f"Basic {self.credentials}"

    def known(self, name: str):
        from moto.ecr.models import ecr_backends

        return ecr_backends[wire.ACCOUNT][self.region].repositories.get(name)

    def find(self, name: str, kind: str, reference: str) -> tuple[bytes, str] | None:
        repository = self.known(name)
        if kind == "blobs" and reference in self.blobs:
            return self.blobs[reference], "application/octet-stream"
        for image in repository.images if repository else []:
            if kind == "manifests" and reference in (image.get_image_digest(), *image.image_tags):
                return image.image_manifest.encode(), image.image_manifest_media_type
            config = json.loads(image.image_manifest).get("config", {"digest": None})
            if kind == "blobs" and config["digest"] == reference and "data" in config:
                return base64.b64decode(config["data"]), config["mediaType"]
        return None


def lifecycle_image(image) -> ecr_lifecycle.Image:
    """Moto's image as a lifecycle policy sees it."""
    children = tuple(one["digest"] for one in json.loads(image.image_manifest).get("manifests", []))
    return ecr_lifecycle.Image(image.get_image_digest(), tuple(image.image_tags), image.image_pushed_at, children)


def refuse_moving_tag(request: wire.Request, digest: str) -> None:
    """Where tags are immutable, a tag stays at the image that it was given to; moto lets it go."""
    from moto.ecr.models import ecr_backends

    repository = ecr_backends[wire.ACCOUNT][request.region].repositories.get(request.parameters["repositoryName"])
    if words := immutable_tag_error(repository, request.parameters.get("imageTag"), digest):
        raise wire.Refusal("ImageTagAlreadyExistsException", words)


def immutable_tag_error(repository, tag: str | None, digest: str) -> str:
    """Why the tag cannot be given to this image, in ECR's words; empty where it can."""
    if not repository or repository.image_tag_mutability != "IMMUTABLE":
        return ""
    if not any(tag in image.image_tags and image.get_image_digest() != digest for image in repository.images):
        return ""
    name = repository.name
    return f"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the tag is immutable."


def with_local_uri(request: wire.Request, forward: wire.Forward) -> wire.Response:
    response = forward(request)
    response.set_data(AMAZON_HOST.sub(request.environ["HTTP_HOST"].encode(), response.get_data()))
    return response


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def manifest(command: list[str], directory: str, environment: dict[str, str]) -> str:
    """An image that is nothing but a command: what docker would read from its config."""
    settings = {"Entrypoint": command, "WorkingDir": directory, "Env": [f"{name}={value}" for name, value in environment.items()]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": settings, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest(config),
        "size": len(config),
        "data": base64.b64encode(config).decode(),
    }
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "config": descriptor, "layers": []})


def unauthorized() -> wire.Response:
    return problem(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="ecr"'})


def problem(status: int, code: str, headers: dict | None = None, words: str = "") -> wire.Response:
    errors = {"errors": [{"code": code, "message": words or code.lower().replace("_", " ")}]}
    return wire.Response(json.dumps(errors), status, headers=headers, content_type="application/json")
