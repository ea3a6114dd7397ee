"""Bucket policies: kept and shown, not enforced.

Moto does not look at a statement's conditions. The usual policy denies every request that comes without TLS, which is every one here:
the emulation is reached over http on 127.0.0.1 only.
"""

import json
from urllib.parse import parse_qs

from twin.aws import wire


class BucketPolicies:
    def __init__(self):
        self.policies: dict[str, str] = {}
        self.operations: dict[str, wire.Handler] = {"s3.GET": self.get, "s3.PUT": self.put, "s3.DELETE": self.delete}

    def get(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if not asks_for_policy(request):
            return forward(request)
        if bucket(request) not in self.policies:
            raise wire.Refusal("NoSuchBucketPolicy", "The bucket policy does not exist", 404)
        return wire.Response(self.policies[bucket(request)], content_type="application/json")

    def put(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if not asks_for_policy(request):
            response = forward(request)
            if response.status_code == 200 and not request.environ.get("QUERY_STRING") and request.path.strip("/") == bucket(request):
                block_public_access(bucket(request))
            return response
        try:
            json.loads(request.body)
        except ValueError as error:
            raise wire.Refusal("MalformedPolicy", "This policy contains invalid Json") from error
        self.policies[bucket(request)] = request.body.decode()
        return wire.Response(status=204)

    def delete(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        if asks_for_policy(request):
            self.policies.pop(bucket(request), None)
            return wire.Response(status=204)
        response = forward(request)
        whole = not request.environ.get("QUERY_STRING") and request.path.strip("/") == bucket(request)
        if response.status_code == 204 and whole:
            self.policies.pop(bucket(request), None)
        return response


def block_public_access(name: str) -> None:
    """A new bucket lets nobody make it public: so it is on AWS since April 2023, and moto does not know."""
    from moto.s3.models import PublicAccessBlock, s3_backends

    bucket = s3_backends[wire.ACCOUNT]["aws"].buckets[name]
    bucket.public_access_block = bucket.public_access_block or PublicAccessBlock(*["true"] * 4)


def asks_for_policy(request: wire.Request) -> bool:
    return "policy" in parse_qs(request.environ.get("QUERY_STRING", ""), keep_blank_values=True)


def bucket(request: wire.Request) -> str:
    return request.path.strip("/").split("/")[0]
