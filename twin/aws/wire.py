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

from twin.aws.documented import service_models

ACCOUNT = "123456789012"  # what moto answers to GetCallerIdentity
CALLER = f"arn:aws:sts::{ACCOUNT}:user/moto"  # as whom, for the laptop
REST_JSON = ("scheduler", "ssmmessages", "twin", "batch")  # services that name an operation by method and path, and answer JSON
ROUTED = ("batch",)  # those of them whose operations have their own names here
# docker sends Basic authorization, or none at first; credentials of a task are at a path that only the task knows; the client of a
# session has a token.
UNSIGNED = {"/v2/": "registry", "/_twin/": "twin", "/_task/": "taskcredentials", "/v1/data-channel/": "ssmmessages"}
NAMELESS = {"AssumeRoleWithWebIdentity": "sts"}  # operations that are not signed, and so do not say of which service they are
STACKS = "cloudformation.amazonaws.com"
BATCH = "AWSBATCH"  # stands in the journal for Batch itself
QUERY = ("iam", "sts", "cloudformation", "sns")  # services whose errors are XML of the older kind


@dataclass(frozen=True)
class Request:
    """One call to one AWS operation; `name` is `<signing name>.<operation>`, as in ssm.SendCommand."""

    environ: dict
    service: str
    operation: str
    region: str
    body: bytes
    key: str = ""  # the access key id that signed it

    @property
    def name(self) -> str:
        return f"{self.service}.{self.operation}"

    @property
    def path(self) -> str:
        return self.environ.get("PATH_INFO", "/")

    @property
    def by(self) -> str:
        """Who asks, as the gateway has found out by the key; a word of its own where AWS itself does."""
        return self.environ.get("twin.by", "")

    @property
    def via(self) -> list[str]:
        """The services that ask on the caller's behalf."""
        return self.environ.get("twin.via", [])

    @property
    def is_json(self) -> bool:
        return "HTTP_X_AMZ_TARGET" in self.environ

    @property
    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    @cached_property
    def parameters(self) -> dict:
        if self.is_json:
            return self.json
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
        if request.service == "hub":
            return Response(
                json.dumps({"error": self.message}), self.status, headers={"X-Error-Message": self.message}, mimetype="application/json"
            )
        if request.is_json or request.service in REST_JSON:
            headers = {"x-amzn-ErrorType": self.code}
            return answer({"__type": self.code, "message": self.message, "Message": self.message}, self.status, headers)
        error = f"<Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
        headers = {}
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>twin</RequestID></Response>"
        if request.service == "s3":
            text = f"<Error>{error}<RequestId>twin</RequestId></Error>"
            # Clients find a bucket's region in a denial, too: botocore's S3RegionRedirectorv2.get_bucket_region.
            headers["x-amz-bucket-region"] = request.region
        elif request.service in QUERY:
            text = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>twin</RequestId></ErrorResponse>"
        return Response(text, self.status, headers=headers, content_type="text/xml")


def answer(content: dict, status: int = 200, headers: dict | None = None) -> Response:
    return Response(json.dumps(content), status, headers=headers, content_type="application/x-amz-json-1.1")


def xml(operation: str, content: str) -> Response:
    """An answer of EC2 around its inner elements."""
    space = "http://ec2.amazonaws.com/doc/2016-11-15/"
    return Response(
        f'<{operation}Response xmlns="{space}"><requestId>twin</requestId>{content}</{operation}Response>', content_type="text/xml"
    )


def outline(environ: dict, service: str | None) -> Request:
    """The request without its body, of which nothing is read; `service` names one that has a door of its own."""
    if service and service != "aws":
        return Request(environ, service, environ["REQUEST_METHOD"], "us-east-1", b"")
    key, region, named = scope(HttpRequest(environ))
    return Request(environ, named or "s3", environ["REQUEST_METHOD"], region, b"", key)


def read(environ: dict) -> Request:
    """The request as its AWS client meant it; service and region stand in the signature's scope."""
    http = HttpRequest(environ)
    body = http.get_data()
    target = http.headers.get("X-Amz-Target", "")
    key, region, service = scope(http)
    if target:
        operation = target.rpartition(".")[2]
    elif http.mimetype == "application/x-www-form-urlencoded":
        operation = parse_qs(body.decode()).get("Action", [http.method])[0]
    elif service in ROUTED:
        path = environ.get("RAW_URI", http.path).partition("?")[0]  # as it was sent: an ARN in it has strokes of its own
        operation = service_models.operation_of_route(service, http.method, path, http.args.to_dict(flat=False), http.headers)
    else:
        operation = http.method
    return Request(environ, service or NAMELESS.get(operation, "s3"), operation, region, body, key)


def scope(http: HttpRequest) -> tuple[str, str, str]:
    """Access key id, region and service, as the signature's scope names them."""
    _, _, credential = http.headers.get("Authorization", "").partition("Credential=")
    parts = (credential.split(",")[0] or http.args.get("X-Amz-Credential", "")).split("/")
    key, region, service = (parts[0], parts[2], parts[3]) if len(parts) == 5 else (http.args.get("AWSAccessKeyId", ""), "us-east-1", "")
    for prefix, unsigned in UNSIGNED.items():
        if not service and http.path.startswith(prefix):
            service = unsigned
    return key, region, service
