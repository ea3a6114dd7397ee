"""ECR's data plane of the machine grade: Debian's docker-registry on 127.0.0.1 takes pushes and gives layers; moto gets their records."""

import http.client
import json
import socket
import subprocess
import time
from pathlib import Path

import bcrypt

from twin.aws import wire
from twin.aws.services import ecr
from twin.box.machine import prerequisites

PATIENCE = 20.0  # seconds until it listens
KINDS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
AMAZON_HOST = ecr.AMAZON_HOST


class MachineRegistry(ecr.Registry):
    """ECR's answers about images have all that was pushed until then."""

    def __init__(self, region: str, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.passwords = folder / "htpasswd"
        super().__init__(region)
        self.host = serve(folder)
        asked = ("BatchGetImage", "DescribeImages", "ListImages", "BatchDeleteImage")
        self.operations |= {f"ecr.{name}": self.informed for name in asked}
        self.operations["ecr.DescribeImageScanFindings"] = lambda request, forward: self.scan_findings(
            request, lambda passed: self.informed(passed, forward)
        )
        self.operations |= {f"ecr.{name}": self.with_own_uri for name in ("CreateRepository", "DescribeRepositories")}
        self.operations = {name: handler for name, handler in self.operations.items() if not name.startswith("registry.")}

    def renew(self) -> None:
        super().renew()
        hashed = bcrypt.hashpw(self.token.encode(), bcrypt.gensalt(4)).decode()
        self.passwords.touch(mode=0o600)
        self.passwords.write_text(f"AWS:{hashed}\n", encoding="utf-8")

    def authorize(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        data = {"authorizationToken": self.credentials, "expiresAt": time.time() + ecr.TOKEN_LIFE, "proxyEndpoint": f"http://{self.host}"}
        return wire.answer({"authorizationData": [data]})

    def with_own_uri(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        response = forward(request)
        response.set_data(AMAZON_HOST.sub(self.host.encode(), response.get_data()))
        return response

    def informed(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        from moto.ecr.models import ecr_backends

        backend = ecr_backends[wire.ACCOUNT][self.region]
        repository = request.parameters["repositoryName"]
        if repository in backend.repositories:
            known = {(tag, image.get_image_digest()) for image in backend.repositories[repository].images for tag in image.image_tags}
            for tag in self.tags(repository):
                content, kind = self.get(f"/v2/{repository}/manifests/{tag}")
                if (tag, ecr.digest(content)) not in known:
                    self.record_push(repository, backend.put_image(repository, content.decode(), tag, kind, ecr.digest(content)))
        return forward(request)

    def tags(self, repository: str) -> list[str]:
        content, _ = self.get(f"/v2/{repository}/tags/list")
        return json.loads(content).get("tags") or []

    def get(self, path: str) -> tuple[bytes, str]:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request("GET", path, headers={"Authorization": f"Basic {self.credentials}", "Accept": ", ".join(KINDS)})
            reply = connection.getresponse()
            return reply.read(), reply.getheader("Content-Type", "")
        finally:
            connection.close()


def serve(folder: Path) -> str:
    """The address of a registry that keeps its files in this folder and ends with this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "files")}, "delete": {"enabled": True}},
        "http": {"addr": host},
        "auth": {"htpasswd": {"realm": "ecr", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    with (folder / "log").open("ab") as log:
        words = ["setpriv", "--pdeathsig", "KILL", prerequisites.program("docker-registry"), "serve", str(folder / "config.yml")]
        server = subprocess.Popen(words, env={"PATH": prerequisites.SYSTEM_PATH}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + PATIENCE
    while not listens(host):
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"docker-registry does not answer: {(folder / 'log').read_text(errors='replace', encoding='utf-8')[-1000:]}")
        time.sleep(0.05)
    return host


def listens(host: str) -> bool:
    address, _, port = host.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((address, int(port))) == 0
