"""What AWS itself documents of an operation's answer.

It stands in its service model (`service_models.py`), in examples (`examples.py`), and in `vetted.json`, which names its sources. An
operation that no example shows is documented by its model, and so is a structure that callers send themselves: they get it back.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from botocore.model import OperationModel, Shape

from twin.aws.documented import examples, service_models

TAG, SENTENCE, NAME = re.compile(r"<[^>]*>"), re.compile(r"(?<=\.)\s+"), re.compile(r"[A-Z]\w+")
NOT_RETURNED = re.compile(r"\bnot (?:returned|included)|n't (?:return|include)")
ONLY = re.compile(r"\b(?:returned|included|present) only\b|\bonly (?:returned|included|present)\b")
DEPRECATED = re.compile(r"^Deprecated\b|\b(?:is|been) deprecated\b|\bno longer supported\b")
CONDITIONAL = re.compile(rf"{NOT_RETURNED.pattern}|{ONLY.pattern}|\bif (?:any|applicable)\b|\bIf present\b|\[[^\]]* only\]")


@dataclass(eq=False)
class Structure:
    """One structure of an answer, wherever it stands in lists and maps; `shown` is how examples show it, None where none speaks."""

    operation: OperationModel
    shape: Shape
    path: str = ""
    shown: tuple[dict, ...] | None = None

    @cache  # noqa: B019 - there is one of each place, for good
    def member(self, name: str) -> "Structure | None":
        """What is below the member; None where AWS does not document that this operation returns it."""
        shape, path = self.shape.members[name], f"{self.path}.{name}".strip(".")
        if self._documented_as_absent(name):
            return None
        vetted = (
            path in vetted_members(self.operation, "returned", "always")
            or name in self.shape.required_members
            or self.shape.name in service_models.input_shapes(self.operation.service_model.service_name)
            or (not self.path and name in self._always_returned())
        )
        values = [one[name] for one in self.shown or () if name in one]
        if self.shown is not None and not values and not vetted:
            return None
        if self.shown is None and DEPRECATED.search(words(shape)) and not vetted:
            return None
        whole = f"{path}.*" in vetted_members(self.operation, "returned")
        structures = () if whole else tuple(one for value in values for one in flat(value, shape))
        return Structure(self.operation, inner(shape), path, structures or None)

    @cache  # noqa: B019
    def optional(self, name: str) -> bool:
        """Whether AWS's own words or examples leave the member out at times."""
        path = f"{self.path}.{name}".strip(".")
        if name in self.shape.required_members or name == self._payload or path in vetted_members(self.operation, "always"):
            return False
        partial = self.shown is not None and any(name not in one and examples.MORE not in one for one in self.shown)
        return partial or bool(CONDITIONAL.search(words(self.shape.members[name])))

    def _always_returned(self) -> set[str]:
        """What examples have no need to show: the body itself, and what botocore's paginators read of an answer."""
        pages = service_models.paginators(self.operation.service_model.service_name).get(self.operation.name, {})
        read = [pages.get(name, []) for name in ("result_key", "output_token", "more_results")]
        names = [name.partition(".")[0] for one in read for name in ([one] if isinstance(one, str) else one)]
        return {self._payload, *names}

    @property
    def _payload(self) -> str:
        return self.shape.serialization.get("payload", "")

    def _documented_as_absent(self, name: str) -> bool:
        operations = self.operation.service_model.operation_names
        for sentence in SENTENCE.split(words(self.shape.members[name])):
            named = set(NAME.findall(sentence)).intersection(operations)
            if named and NOT_RETURNED.search(sentence) and self.operation.name in named:
                return True
            if named and ONLY.search(sentence) and self.operation.name not in named:
                return True
        return False


@dataclass(frozen=True)
class Operation:
    model: OperationModel
    sources: dict[str, list[dict]]  # each place that shows answers, with what it shows

    @cached_property
    def answer(self) -> Structure:
        shown = tuple(answer for answers in self.sources.values() for answer in answers)
        return Structure(self.model, self.model.output_shape, "", shown or None)


@cache
def operation(signed: str, name: str) -> Operation | None:
    """What is documented of the operation of a service that signs by this name; None where nothing is, or it answers nothing."""
    service = service_models.service(signed)
    if service is None or name not in service.operation_names or service.operation_model(name).output_shape is None:
        return None
    model = service.operation_model(name)
    return Operation(model, dict(examples.of(signed, model)))


@cache
def vetted() -> dict[str, dict[str, dict[str, str]]]:
    """`returned`: what no example shows, and AWS returns nevertheless, with `.*` all that is below; `always`: what it never leaves out.

    Each by its operation, with the source.
    """
    return json.loads(Path(__file__).with_name("vetted.json").read_text(encoding="utf-8"))


def vetted_members(operation: OperationModel, *kinds: str) -> set[str]:
    name = f"{operation.service_model.signing_name}.{operation.name}"
    return {member for kind in kinds for member in vetted()[kind].get(name, {})}


def words(shape: Shape) -> str:
    return " ".join(TAG.sub(" ", shape.documentation or "").split())


def inner(shape: Shape) -> Shape:
    """What a list or a map holds."""
    while shape.type_name in ("list", "map"):
        shape = shape.member if shape.type_name == "list" else shape.value
    return shape


def flat(value: object, shape: Shape) -> Iterator[dict]:
    """The structures in a value of an example."""
    if shape.type_name == "list" and isinstance(value, list):
        for item in value:
            yield from flat(item, shape.member)
    elif shape.type_name == "map" and isinstance(value, dict):
        for item in value.values():
            yield from flat(item, shape.value)
    elif shape.type_name == "structure" and isinstance(value, dict) and value:
        yield value
