"""The service models that botocore brings: what AWS says of each operation, its answer, its pages and its address."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl

from botocore import loaders
from botocore.exceptions import DataNotFoundError, UnknownServiceError
from botocore.model import OperationModel, ServiceModel

MODEL_NAMES = {"servicequotas": "service-quotas", "monitoring": "cloudwatch", "tagging": "resourcegroupstaggingapi"}  # by another name


@cache
def loader():
    return loaders.create_loader()  # of its own: S3's clients take the bucket out of the paths of the model that they have read


@cache
def service(signed: str) -> ServiceModel | None:
    name = MODEL_NAMES.get(signed, signed)
    try:
        return ServiceModel(loader().load_service_model(name, "service-2"), name)
    except UnknownServiceError:
        return None


@cache
def input_shapes(service: str) -> set[str]:
    """The shapes of this service that callers send: in an answer they hold what somebody has sent, whatever an example shows."""
    content = loader().load_service_model(service, "service-2")
    shapes, pending = set(), [each["input"]["shape"] for each in content["operations"].values() if "input" in each]
    while pending:
        if (name := pending.pop()) not in shapes:
            shapes.add(name)
            shape = content["shapes"][name]
            parts = [*shape.get("members", {}).values(), *(shape[part] for part in ("member", "value") if part in shape)]
            pending += [part["shape"] for part in parts]
    return shapes


@cache
def paginators(service: str) -> dict[str, dict]:
    try:
        return loader().load_service_model(service, "paginators-1")["pagination"]
    except DataNotFoundError:
        return {}


def operation_of_route(signed: str, method: str, path: str, query: dict[str, list[str]], headers: Mapping[str, str]) -> str:
    """The operation that a request of a REST service means: of those that fit, the one that asks for most; its method where none fits."""
    fitting = {name: asked for name, route in routes(signed).items() if (asked := route.fits(method, path, query, headers)) is not None}
    return max(fitting, key=fitting.get, default=method)


@dataclass(frozen=True)
class Route:
    method: str
    path: re.Pattern
    query: dict[str, str | None]  # with the value that it must have, None for any
    headers: tuple[str, ...]

    def fits(self, method: str, path: str, query: dict[str, list[str]], headers: Mapping[str, str]) -> int | None:
        """How much the route asks for; None where the request lacks any of it."""
        asked = all(name in query and value in (None, query[name][0]) for name, value in self.query.items())
        if method != self.method or not asked or not self.path.fullmatch(path) or any(name not in headers for name in self.headers):
            return None
        return len(self.query) + len(self.headers)


@cache
def routes(signed: str) -> dict[str, Route]:
    known = service(signed)
    models = [known.operation_model(name) for name in known.operation_names] if known else []
    return {model.name: route(model) for model in models if not model.deprecated and model.http}


def route(model: OperationModel) -> Route:
    path, _, query = model.http["requestUri"].partition("?")
    pattern = re.sub(r"\\{\w+(\\\+)?\\}", lambda match: ".+" if match[1] else "[^/]+", re.escape(path.rstrip("/")))
    wanted = {name: value or None for name, value in parse_qsl(query, keep_blank_values=True)}
    required = [model.input_shape.members[name].serialization for name in model.input_shape.required_members] if model.input_shape else []
    wanted |= {one["name"]: None for one in required if one.get("location") == "querystring"}
    headers = tuple(one["name"] for one in required if one.get("location") == "header")
    return Route(model.http["method"], re.compile(f"{pattern}/?", re.DOTALL), wanted, headers)
