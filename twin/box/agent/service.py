"""The AWS services that an agent speaks to, over plain HTTP."""

import http.client
import json
import os
import time
from urllib.parse import urlsplit

KEY = os.environ.pop("TWIN_AGENT_KEY", "")  # the agent's own, and not that of the scripts which it starts


class Service:
    """AWS services over plain HTTP; requests name the key of their signer, and the emulated AWS checks no signatures."""

    def __init__(self, region: str):
        self.region, self.key = region, KEY
        self.address = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc

    def call(self, service: str, target: str, content: dict) -> dict:
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
        return json.loads(self.ask(service, "POST", "/", json.dumps(content).encode(), headers) or b"{}")

    def put_object(self, path: str, body: bytes) -> None:
        self.ask("s3", "PUT", path, body, {})

    def signature(self, service: str) -> dict[str, str]:
        scope = f"{self.key}/{time.strftime('%Y%m%d', time.gmtime())}/{self.region}/{service}/aws4_request"
        return {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"}

    def ask(self, service: str, method: str, path: str, body: bytes, headers: dict) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body, headers | self.signature(service))
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        if reply.status not in (200, 201):
            raise ConnectionError(f"{headers.get('X-Amz-Target', path)}: {reply.status} {text.decode(errors='replace')}")
        return text

    def message(self, operation: str, content: dict) -> dict:
        return self.call("ec2messages", f"EC2WindowsMessageDeliveryService.{operation}", content)
