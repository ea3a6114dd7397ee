"""Whether an answer has the shape that `schema.json` asks for.

The few keywords of JSON Schema that the file uses (type, enum, items, properties, required, additionalProperties: false)
are checked here, so that scoring needs no library.
"""

import json
from functools import cache
from pathlib import Path

TYPES = {"object": dict, "array": list, "string": str, "null": type(None)}


@cache
def schema() -> dict:
    """The JSON Schema of the shipped task's answer."""
    return json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))


def fields() -> list[str]:
    """The answer's keys, in the order in which they are written."""
    return list(schema()["properties"])


def fits(value: object, rule: dict) -> bool:
    """Whether `value` obeys `rule`, a schema or a part of one."""
    types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    if not isinstance(value, tuple(TYPES[name] for name in types)):
        return False
    if "enum" in rule and value not in rule["enum"]:
        return False
    if isinstance(value, list):
        return all(fits(item, rule["items"]) for item in value)
    if isinstance(value, dict):
        properties = rule["properties"]
        return set(rule["required"]) <= set(value) <= set(properties) and all(fits(value[key], properties[key]) for key in value)
    return True
