"""The shapes on the wire: an AWS request taken apart, answers and refusals put together."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import parse_qs, urlencode
from xml.sax.saxutils import escape

from werkzeug.wrappers import Request as HttpRequest
from werkzeug.wrappers import Response

ACCOUNT = "123456789012"  # what moto answers to GetCallerIdentity


@dataclass(frozen=True)
class Request:
    """One call to one AWS operation; `name` is `<signing name>.<operation>`, as in ssm.SendCommand."""

    environ: dict
    service: str
    operation: str
    region: str
    body: bytes

    @property
    def name(self) -> str:
        return f"{self.service}.{self.operation}"

    @property
    def path(self) -> str:
        return self.environ.get("PATH_INFO", "/")

    @property
    def is_json(self) -> bool:
        return "HTTP_X_AMZ_TARGET" in self.environ

    @cached_property
    def parameters(self) -> dict:
        if self.is_json:
            return json.loads(self.body or b"{}")
        return {key: values[0] for key, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}

    def listed(self, prefix: str) -> list[str]:
        """The values of a list in a form: InstanceId.1, InstanceId.2, ..."""
        return [value for key, value in self.parameters.items() if key.startswith(prefix + ".")]

    def adding(self, **parameters: str) -> "Request":
        return replace(self, body=self.body + b"&" + urlencode(parameters).encode())

    def replayed(self) -> dict:
        """A WSGI environment whose body can be read again."""
        environ = dict(self.environ, CONTENT_LENGTH=str(len(self.body)))
        environ["wsgi.input"] = io.BytesIO(self.body)
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return environ


Forward = Callable[[Request], Response]
Handler = Callable[[Request, Forward], Response]


class Refusal(Exception):
    """An AWS error: its code and message, in whichever format the caller's protocol has."""

    def __init__(self, code: str, message: str, status: int = 400):
        super().__init__(message)
        self.code, self.message, self.status = code, message, status

    def reply(self, request: Request) -> Response:
        if request.is_json:
            return answer({"__type": self.code, "message": self.message}, self.status)
        error = f"<Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>twin</RequestID></Response>"
        return Response(text, self.status, content_type="text/xml")


def answer(content: dict, status: int = 200) -> Response:
    return Response(json.dumps(content), status, content_type="application/x-amz-json-1.1")


def read(environ: dict) -> Request:
    """The request as its AWS client meant it; service and region stand in the signature's scope."""
    http = HttpRequest(environ)
    body = http.get_data()
    target = http.headers.get("X-Amz-Target", "")
    _, _, scope = http.headers.get("Authorization", "").partition("Credential=")
    scope = (scope.split(",")[0] or http.args.get("X-Amz-Credential", "")).split("/")
    region, service = (scope[2], scope[3]) if len(scope) == 5 else ("us-east-1", "")
    if not service and http.path.startswith("/v2/"):
        service = "registry"  # docker signs nothing: it sends Basic authorization, or none at first
    if target:
        operation = target.rpartition(".")[2]
    elif http.mimetype == "application/x-www-form-urlencoded":
        operation = parse_qs(body.decode()).get("Action", [http.method])[0]
    else:
        operation = http.method
    return Request(environ, service or "s3", operation, region, body)
