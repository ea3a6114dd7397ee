"""Calls that AWS itself makes, through the same door as everybody's, so that the journal has them."""

import json
import re
from collections.abc import Callable
from urllib.parse import urlencode

from werkzeug.test import EnvironBuilder, run_wsgi_app


def ec2(gateway: Callable, region: str, operation: str, parameters: dict[str, str], by: str) -> tuple[int, str]:
    """The HTTP status and the body of a call to EC2."""
    body = urlencode({"Action": operation, "Version": "2016-11-15", **parameters})
    return call(gateway, region, "ec2", body, by, {"Content-Type": "application/x-www-form-urlencoded"})


def logs(gateway: Callable, region: str, operation: str, content: dict, by: str) -> tuple[int, str]:
    """The same of CloudWatch Logs."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"Logs_20140328.{operation}"}
    return call(gateway, region, "logs", json.dumps(content), by, headers)


def call(gateway: Callable, region: str, service: str, body: str, by: str, headers: dict[str, str]) -> tuple[int, str]:
    scope = f"Credential={by}/20260101/{region}/{service}/aws4_request"
    signed = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none"}
    builder = EnvironBuilder(method="POST", base_url=f"http://{service}.{region}.amazonaws.com/", data=body, headers=headers | signed)
    answer, status, _ = run_wsgi_app(gateway, builder.get_environ() | {"twin.by": by, "twin.via": []}, buffered=True)
    return int(status.split()[0]), b"".join(answer).decode()


def error(body: str) -> tuple[str, str]:
    """Code and message of a refusal, in either format."""
    if body.startswith("{"):
        content = json.loads(body)
        return content.get("__type", ""), content.get("message", "")
    return tuple(match[1] if (match := re.search(f"<{name}>(.*?)</{name}>", body)) else "" for name in ("Code", "Message"))
