"""The record of every request that the twin answered, one JSON line each, as CloudTrail would keep it: no headers, no secrets."""

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

LARGEST = 256 * 1024  # bodies above this are left out
SIGNATURES = re.compile(r"&?(X-Amz-)?(Signature|Credential|Security-Token|AWSAccessKeyId)=[^&]*", re.IGNORECASE)  # of presigned URLs
HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"  # CloudTrail's own words
SECRET_FIELDS = {
    "secretsmanager": ("SecretString", "SecretBinary"),
    "ssm.SecureString": ("Value",),
}


class Journal:
    def __init__(self, path: Path):
        self.path = path
        self.lock = threading.Lock()

    def record(self, service: str, operation: str, environ: dict, status: int, body: bytes, by: str = "") -> None:
        query = SIGNATURES.sub("", environ.get("QUERY_STRING", ""))
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "by": by,
            "service": service,
            "operation": operation,
            "target": environ.get("HTTP_X_AMZ_TARGET") or environ.get("PATH_INFO", "/") + (f"?{query}" if query else ""),
            "status": status,
            "request": readable(service, body),
        }
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def wrap(self, application: Callable, service: str) -> Callable:
        """The same WSGI application, every request of which is recorded under the name of `service`."""

        def watched(environ: dict, start_response: Callable) -> Iterable[bytes]:
            size = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(size) if 0 < size <= LARGEST else b""
            if body:
                environ["wsgi.input"] = io.BytesIO(body)

            def start(status: str, headers: list, *error) -> Callable:
                self.record(service, environ["REQUEST_METHOD"], environ, int(status.split()[0]), body)
                return start_response(status, headers, *error)

            return application(environ, start)

        return watched


def readable(service: str, body: bytes) -> str | None:
    """What may be kept of a body: text as it is, other bytes as base64, secrets hidden."""
    if not body or len(body) > LARGEST:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()
    return without_secrets(service, text) if service in ("secretsmanager", "ssm") else text


def without_secrets(service: str, text: str) -> str:
    content = json.loads(text)
    kind = "ssm.SecureString" if content.get("Type") == "SecureString" else service
    for name in SECRET_FIELDS.get(kind, ()):
        if name in content:
            content[name] = HIDDEN
    return json.dumps(content)
