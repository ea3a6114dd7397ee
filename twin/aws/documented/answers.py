"""Answers cut to what AWS documents (`documented.py`): an emulation is more generous, and code that leans on that fails on AWS.

Of a member that AWS leaves out at times nothing is left where it is empty.
"""

import json
import re
from urllib.parse import parse_qs
from xml.etree import ElementTree

from botocore.model import Shape

from twin.aws import wire
from twin.aws.documented import documented, service_models
from twin.aws.documented.documented import Structure

EMPTY = ("", [], {}, None)
SPACE = re.compile(r"\{(.*)\}")


def cut(request: wire.Request, response: wire.Response) -> wire.Response:
    """The same answer, with no more in it than AWS documents for its operation."""
    if response.status_code >= 300:
        return response
    documented_operation = documented.operation(request.service, operation(request))
    if documented_operation is None:
        return response
    place, shape = documented_operation.answer, documented_operation.model.output_shape
    cut_headers(response, place)
    if payload := shape.serialization.get("payload"):
        place, shape = place.member(payload), shape.members[payload]
    if place.shape.type_name != "structure" or not response.get_data():
        return response
    if "json" in response.mimetype:
        response.set_data(json.dumps(cut_json(json.loads(response.get_data()), shape, place)))
    elif "xml" in response.mimetype:
        response.set_data(cut_document(response.get_data(), shape, place))
    return response


def operation(request: wire.Request) -> str:
    """By its own name where the request says one, else as its service's routes say."""
    if request.operation != request.environ["REQUEST_METHOD"]:
        return request.operation
    query = parse_qs(request.environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return service_models.operation_of_route(
        request.service, request.operation, request.path, query, wire.HttpRequest(request.environ).headers
    )


def cut_headers(response: wire.Response, place: Structure) -> None:
    for name, shape in place.shape.members.items():
        where, begin = shape.serialization.get("location"), shape.serialization.get("name", name).lower()
        if where in ("header", "headers") and place.member(name) is None:
            for header in [header for header, _ in response.headers if header.lower().startswith(begin)]:
                if where == "headers" or header.lower() == begin:
                    del response.headers[header]


def cut_json(value, shape: Shape, place: Structure):
    if shape.type_name == "list":
        return [cut_json(item, shape.member, place) for item in value or ()]
    if shape.type_name == "map":
        return {key: cut_json(item, shape.value, place) for key, item in (value or {}).items()}  # its keys are the caller's own
    if shape.type_name != "structure" or not isinstance(value, dict):
        return value
    named = {member.serialization.get("name", name): name for name, member in shape.members.items()}
    members = {key: below for key, below in value.items() if key in named and documented_there(place, named[key], below in EMPTY)}
    return {key: cut_json(below, shape.members[named[key]], place.member(named[key])) for key, below in members.items()}


def documented_there(place: Structure, name: str, empty: bool) -> bool:
    return place.member(name) is not None and not (empty and place.optional(name))


def cut_document(body: bytes, shape: Shape, place: Structure) -> bytes:
    root = ElementTree.fromstring(body)
    space = SPACE.match(root.tag)
    for node in root.iter():
        node.tag = bare(node)
    if space:
        root.set("xmlns", space[1])
    wrapper = shape.serialization.get("resultWrapper")
    inside = root.find(wrapper) if wrapper else root
    if inside is not None:
        cut_xml(inside, shape, place)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def cut_xml(node: ElementTree.Element, shape: Shape, place: Structure) -> None:
    if shape.type_name == "list":
        for item in node:
            cut_xml(item, shape.member, place)
    elif shape.type_name == "map":
        for value in node.iterfind(f"*/{shape.value.serialization.get('name', 'value')}"):
            cut_xml(value, shape.value, place)
    elif shape.type_name == "structure":
        named = {element(name, member): name for name, member in shape.members.items()}
        for child in list(node):
            name, empty = named.get(child.tag), len(child) == 0 and not (child.text or "").strip()
            if name is None or not documented_there(place, name, empty):
                node.remove(child)
            else:
                below = shape.members[name]
                cut_xml(child, below.member if flattened(below) else below, place.member(name))


def element(name: str, shape: Shape) -> str:
    """What a member is called in XML; each item of a flattened list by its own name."""
    own = shape.serialization.get("name", name)
    return shape.member.serialization.get("name", own) if flattened(shape) else own


def flattened(shape: Shape) -> bool:
    return shape.type_name == "list" and bool(shape.serialization.get("flattened"))


def bare(node: ElementTree.Element) -> str:
    return SPACE.sub("", node.tag)
