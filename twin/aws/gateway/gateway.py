"""The entry point of the emulated AWS: journal and permissions, then validations, own services and boxes, then moto for all the rest.

What goes out is cut to what AWS documents.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.wrappers import Response

from twin.aws import wire
from twin.aws.documented import answers
from twin.aws.faults import ConnectionCut, Faults, empty_response
from twin.aws.iam.keys import Keys
from twin.aws.iam.permissions import Permissions
from twin.aws.request_log import Journal


class Dispatcher(DomainDispatcherApplication):
    """moto's own, which would look through its folders and hundreds of patterns again for every request."""

    get_backend_for_host = cache(DomainDispatcherApplication.get_backend_for_host)


moto = Dispatcher(create_backend_app)


class Gateway:
    """A WSGI application made of layers; each maps operations to handlers, which answer or forward to the layers below.

    Faults stand in front of all: they see every request first.
    """

    def __init__(self, journal: Journal, keys: Keys, permissions: Permissions, faults: Faults, layers: list[dict[str, wire.Handler]]):
        self.journal = journal
        self.keys = keys
        self.faults = faults
        self.permissions = permissions
        self.layers = layers
        self.opened: Callable[[], None] = lambda: None  # called once the account is there, before anybody else may ask

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        head = wire.outline(environ, "aws")
        try:
            if "twin.by" not in environ:  # AWS itself comes by no port
                environ["twin.by"], environ["twin.via"] = self.keys.caller_of(head)
            self.faults.cut_upload(environ, "aws")
        except ConnectionCut:
            return empty_response(start_response)
        except wire.Refusal as refusal:
            request = wire.read(environ)
            self.journal.record(request.service, request.operation, environ, refusal.status, b"", "a stranger")
            return refusal.reply(request)(environ, start_response)
        request, status = wire.read(environ), 500
        try:
            response = self.faults.answer(request, lambda: self.checked_answer(request))
            status = response.status_code
        except wire.Refusal as refusal:
            response = refusal.reply(request)
            status = refusal.status
        except ConnectionCut:
            return empty_response(start_response)
        finally:
            self.journal.record(request.service, request.operation, environ, status, request.body, request.by)
        return response(environ, start_response)

    def checked_answer(self, request: wire.Request) -> Response:
        """The answer, if the caller may ask; wrong credentials or a wrong clock are refused first, as on AWS."""
        self.permissions.check_request(request)
        return answers.cut(request, self.answer(request))

    def answer(self, request: wire.Request, depth: int = 0) -> Response:
        for position, layer in enumerate(self.layers[depth:], depth):
            if handler := layer.get(request.name):
                return handler(request, partial(self.answer, depth=position + 1))
        if not request.by and request.operation not in wire.NAMELESS:
            raise wire.Refusal("AccessDenied" if request.service == "s3" else "MissingAuthenticationToken", "Access Denied", 403)
        return Response.from_app(moto, request.replayed(), buffered=True)
