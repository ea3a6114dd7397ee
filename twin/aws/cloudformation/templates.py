"""CloudFormation templates: read, checked, and resolved to plain properties."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from twin.aws import wire

LARGEST = 51_200  # bytes of a template in the request itself
PLACE = re.compile(r"\$\{(!?)([A-Za-z0-9:.]+)\}")
ABSENT = object()  # what AWS::NoValue stands for
UNKNOWN = "{{known only after it was created}}"


class Loader(yaml.SafeLoader):
    """YAML with the short forms: !Ref Bucket is {Ref: Bucket}, !Sub text is {Fn::Sub: text}."""


def short_form(loader: Loader, suffix: str, node: yaml.Node) -> dict:
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", short_form)


def read(text: str) -> dict:
    if len(text.encode()) > LARGEST:
        raise invalid(f"1 validation error detected: Value at 'templateBody' must have length less than or equal to {LARGEST}")
    try:
        template = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise invalid(f"Template format error: YAML not well-formed. ({str(error).splitlines()[0]})") from error
    if not isinstance(template, dict) or not template.get("Resources"):
        raise invalid("Template format error: At least one Resources member must be defined.")
    return template


def invalid(message: str) -> wire.Refusal:
    return wire.Refusal("ValidationError", message)


def parameters(template: dict, supplied: dict[str, str]) -> dict[str, str]:
    """The value of every parameter, checked against its rules."""
    declared = template.get("Parameters", {})
    if strange := sorted(set(supplied) - set(declared)):
        raise invalid(f"Parameters: [{', '.join(strange)}] do not exist in the template")
    values = {name: supplied.get(name, rules.get("Default")) for name, rules in declared.items()}
    if missing := sorted(name for name, value in values.items() if value is None):
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    for name, rules in declared.items():
        value = values[name] = str(values[name])
        if "AllowedValues" in rules and value not in [str(one) for one in rules["AllowedValues"]]:
            raise invalid(f"Parameter '{name}' must be one of AllowedValues")
        if "AllowedPattern" in rules and not re.fullmatch(rules["AllowedPattern"], value):
            raise invalid(f"Parameter '{name}' failed to satisfy constraint: must match pattern {rules['AllowedPattern']}")
    return values


def referred(template: dict, values: dict[str, str]) -> dict[str, Any]:
    """What a reference to each parameter comes to: a list, where its type is one."""
    declared = template.get("Parameters", {})
    lists = [name for name in values if str(declared.get(name, {}).get("Type", "")).startswith(("CommaDelimitedList", "List<"))]
    return values | {name: [one.strip() for one in values[name].split(",") if one.strip()] for name in lists}


@dataclass
class Scope:
    """What the functions of a template refer to."""

    values: dict[str, Any]  # of parameters and pseudo parameters
    conditions: dict[str, Any]
    physical: Callable[[str], str]  # a resource's id, by its name in the template
    attribute: Callable[[str, str], str]

    def evaluate(self, condition: Any) -> bool:
        if isinstance(condition, str):
            if condition not in self.conditions:
                raise invalid(f"Template format error: Unresolved condition dependency {condition}")
            return self.evaluate(self.conditions[condition])
        ((function, content),) = condition.items()
        if function == "Condition":
            return self.evaluate(content)
        if function == "Fn::Equals":
            one, other = (self.resolve(part) for part in content)
            return str(one) == str(other)
        if function == "Fn::Not":
            return not self.evaluate(content[0])
        if function in ("Fn::And", "Fn::Or"):
            return (all if function == "Fn::And" else any)(self.evaluate(part) for part in content)
        raise invalid(f"Template format error: {function} is no condition function")

    def resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for one in node if (value := self.resolve(one)) is not ABSENT]
        if not isinstance(node, dict):
            return node
        if len(node) == 1 and (next(iter(node)) == "Ref" or next(iter(node)).startswith("Fn::")):
            return self.call(*next(iter(node.items())))
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not ABSENT}

    def call(self, function: str, content: Any) -> Any:
        if function == "Ref":
            return self.reference(content)
        if function == "Fn::GetAtt":
            return self.attribute(*content)
        if function == "Fn::If":
            return self.resolve(content[1] if self.evaluate(content[0]) else content[2])
        if function == "Fn::Join":
            return content[0].join(str(one) for one in self.resolve(content[1]))
        if function == "Fn::Split":
            return str(self.resolve(content[1])).split(content[0])
        if function == "Fn::Select":
            return self.resolve(content[1])[int(self.resolve(content[0]))]
        if function == "Fn::Base64":
            return base64.b64encode(str(self.resolve(content)).encode()).decode()
        if function == "Fn::Sub":
            return self.substitute(*(content if isinstance(content, list) else (content, {})))
        raise invalid(f"Template format error: this emulation does not know {function}")

    def reference(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return ABSENT
        return self.values[name] if name in self.values else self.physical(name)

    def substitute(self, text: str, own: dict) -> str:
        def place(match: re.Match) -> str:
            literal, name = match.groups()
            if literal:
                return f"${{{name}}}"
            if name in own:
                return str(self.resolve(own[name]))
            return str(self.attribute(*name.split(".", 1)) if "." in name else self.reference(name))

        return PLACE.sub(place, text)


def references(node: Any) -> Iterator[str]:
    """Every name that a part of a template refers to."""
    if isinstance(node, list):
        for one in node:
            yield from references(one)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0]
            elif key == "Fn::Sub":
                text = value[0] if isinstance(value, list) else value
                yield from (match[2].split(".")[0] for match in PLACE.finditer(text))
            yield from references(value)


def ordered(resources: dict[str, dict]) -> list[str]:
    """The resources' names, each behind those that it refers to."""
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise invalid(f"Circular dependency between resources: [{', '.join(above)}]")
        if name in order:
            return
        for other in dependencies(resources[name]):
            if other in resources:
                visit(other, (*above, name))
        order.append(name)

    for name in resources:
        visit(name, ())
    return order


def throttled(resources: dict[str, dict], kind: str, most: int) -> set[str]:
    """Resources of one type that would be made at the same moment as `most` others: all begin as soon as what they wait for is there."""
    rounds: dict[str, int] = {}
    for name in ordered(resources):
        before = [other for other in dependencies(resources[name]) if other in resources]
        rounds[name] = 1 + max((rounds[other] for other in before), default=0)
    at_once: dict[int, list[str]] = {}
    for name in (one for one in resources if resources[one].get("Type") == kind):
        at_once.setdefault(rounds[name], []).append(name)
    return {name for names in at_once.values() for name in names[most:]}


def dependencies(resource: dict) -> list[str]:
    """The names that a resource depends on."""
    after = resource.get("DependsOn", [])
    return [*([after] if isinstance(after, str) else after), *references(resource.get("Properties", {}))]


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
