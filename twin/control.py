"""What tests and `inv twin.*` ask of the emulated world itself and no AWS client knows: POST /_twin/VERB with JSON and the owner's key."""

from collections.abc import Callable

from twin.aws import wire
from twin.aws.iam.keys import OWNER

PREFIX = "/_twin/"


class Control:
    def __init__(self, verbs: dict[str, Callable[..., dict]]):
        self.verbs = verbs
        self.operations: dict[str, wire.Handler] = {"twin.POST": self.handle}

    def handle(self, request: wire.Request, forward: wire.Forward) -> wire.Response:
        """The verb's answer."""
        if request.by != OWNER:
            raise wire.Refusal("AccessDenied", "the world is its owner's to change", 403)
        verb = self.verbs.get(request.path.removeprefix(PREFIX))
        if not verb or request.environ.get("CONTENT_TYPE") != "application/json":
            raise wire.Refusal("NotFound", f"there is no {request.path}", 404)
        try:
            return wire.answer(verb(**request.json))
        except (TypeError, ValueError) as error:
            raise wire.Refusal("BadRequest", str(error)) from error
