"""Answers that are shown: by the example files of botocore and of the AWS CLI, and as a real account gave them (`recorded/`)."""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from botocore import xform_name
from botocore.exceptions import DataNotFoundError
from botocore.model import OperationModel

from twin.aws.documented.service_models import loader

CLI = Path(find_spec("awscli").origin).parent / "examples"
FOLDERS = {"s3": "s3api"}
RECORDED = Path(__file__).with_name("recorded")
MORE = "..."  # in an example that shows a part only
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def of(signed: str, model: OperationModel) -> Iterator[tuple[str, list[dict]]]:
    """Where answers of the operation are shown, and what is shown of them there; what is no answer by its service model shows none."""
    service = model.service_model.service_name
    folder, file = FOLDERS.get(service, service), f"{xform_name(model.name, '-')}.rst"
    page, recorded = CLI / folder / file, RECORDED / f"{signed}.{model.name}.json"
    sources = {
        f"botocore/data/{service}/examples-1.json": [one.get("output") for one in of_botocore(service).get(model.name, [])],
        f"awscli/examples/{folder}/{file}": outputs(page.read_text(encoding="utf-8")) if page.is_file() else [],
        f"twin/aws/documented/recorded/{recorded.name}": json.loads(recorded.read_text(encoding="utf-8")) if recorded.is_file() else [],
    }
    for source, answers in sources.items():
        if shown := [one for one in answers if one and {*one} - {MORE} <= {*model.output_shape.members}]:
            yield source, shown


@cache
def of_botocore(service: str) -> dict[str, list[dict]]:
    try:
        return loader().load_service_model(service, "examples-1")["examples"]
    except DataNotFoundError:
        return {}


def outputs(page: str) -> Iterator[dict]:
    """The answers that a page of the AWS CLI's examples shows; what a `--query` leaves of one is no answer."""
    parts = re.split(r"^Output::\s*$", page, flags=re.M)
    for before, after in zip(parts, parts[1:], strict=False):
        block = re.match(r"(?:[ \t]*\n|[ \t]+.*\n?)*", after)[0]
        if "--query" not in before.rpartition(" aws ")[2] and block.lstrip().startswith("{"):
            tokens = iter(TOKEN.findall(block))
            yield read(next(tokens), tokens)


def read(token: str, tokens: Iterator[str]) -> object:
    """JSON as people write it into documentation: with quotes that are missing, commas too many, and `...` for more of the same."""
    if token == "{":
        members = {}
        for name in tokens:
            if name == "}":
                break
            if name.startswith("..."):
                members[MORE] = ""
            elif name.startswith('"') and next(tokens, "") == ":":
                members[name.strip('"')] = read(next(tokens, ""), tokens)
        return members
    if token == "[":
        return [read(item, tokens) for item in iter(lambda: next(tokens, "]"), "]") if item != ","]
    return token.strip('"')
