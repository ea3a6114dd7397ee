"""Tags of Batch's own things: compute environments, queues, job definitions, jobs."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote

from twin.aws import wire
from twin.aws.batch.refusals import client_error


class Tags:
    def __init__(self, things: Callable[[], Iterable[Any]]):
        self.things = things  # all that can have some
        self.verbs = {"TagResource": self.tag, "UntagResource": self.untag, "ListTagsForResource": self.listing}

    def find(self, request: wire.Request) -> Any:
        arn = arn_of(request)
        thing = next((one for one in self.things() if one.arn == arn), None)
        if not thing:
            raise client_error(f"Resource {arn} does not exist")
        return thing

    def tag(self, request: wire.Request) -> dict:
        self.find(request).tags |= request.json["tags"]
        return {}

    def untag(self, request: wire.Request) -> dict:
        thing, keys = self.find(request), parse_qs(request.environ.get("QUERY_STRING", "")).get("tagKeys", [])
        thing.tags = {name: value for name, value in thing.tags.items() if name not in keys}
        return {}

    def listing(self, request: wire.Request) -> dict:
        return {"tags": self.find(request).tags}


def arn_of(request: wire.Request) -> str:
    """What a request to /v1/tags/ARN is about."""
    return unquote(request.path.removeprefix("/v1/tags/"))
