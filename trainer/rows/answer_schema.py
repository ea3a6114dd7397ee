"""The JSON Schema to which a finished run's answers are held: a file's, or that of the run's own fields. Torch-free, for the laptop."""

import json
from pathlib import Path

from conf import paths
from conf.problem import Problem
from data import schema as shipped
from data.readers import text

AUTO = "auto"
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array", dict: "object"}


def line(source: str, fields: list[str] | None, predictions: bytes) -> str:
    """The schema as the line that the trainer reads before all others. `source` is a file, or `auto`: the keys that are scored, each
    with the types that it has in the answers that the run was scored against, which `predictions` holds."""
    return json.dumps({"schema": of_fields(fields, _expected(predictions)) if source == AUTO else read(source)})


def of_input(text: str) -> tuple[dict | None, str]:
    """The schema in the first line, where it holds one and nothing else, and the lines behind it."""
    first, _, rest = text.partition("\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return None, text
    found = isinstance(value, dict) and value.keys() == {"schema"} and isinstance(value["schema"], dict)
    return (value["schema"], rest) if found else (None, text)


def read(source: str) -> dict:
    """The schema in a file; a Problem where there is none. Whether answers can be held to it, the trainer says."""
    path, hint = Path(source).expanduser(), "write a JSON Schema into a file; or hold answers to the keys that are scored: `--schema auto`"
    if not paths.is_file(path):
        raise Problem(f"there is no file {source}", hint, "bad_data")
    try:
        schema = json.loads(text.read(path, source))
    except (text.TextError, ValueError, RecursionError) as error:
        raise Problem(f"{source} is not JSON ({error})", hint, "bad_data") from error
    if not isinstance(schema, dict):
        raise Problem(f"{source} is JSON and no JSON Schema, which is an object", hint, "bad_data")
    return schema


def of_fields(fields: list[str] | None, expected: list[dict]) -> dict:
    """An object with exactly these keys, in the order in which the answers write them, with values of the types that they have there."""
    if fields is None:
        raise Problem(
            "the run's answers are free text (data.fields=null): they have no keys to be held to", "name a file: `--schema FILE`", "refused"
        )
    if set(fields) == set(shipped.fields()) and expected and all(shipped.fits(answer, shipped.schema()) for answer in expected):
        return shipped.schema()  # by which such answers are scored, too
    written = [key for answer in expected for key in answer]
    names = [name for name in dict.fromkeys(written) if name in fields] + [name for name in fields if name not in written]
    properties = {name: _of_values([answer[name] for answer in expected if name in answer]) for name in names}
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _of_values(values: list) -> dict:
    """What these values have in common: their types, and those of the items of lists."""
    types = sorted({TYPES[type(value)] for value in values})
    rule: dict = {"type": types} if types else {}
    if items := [item for value in values if isinstance(value, list) for item in value]:
        rule["items"] = _of_values(items)
    return rule


def _expected(predictions: bytes) -> list[dict]:
    """The answers that the run was scored against, of those that are objects."""
    try:
        answers = [json.loads(json.loads(row)["expected"]) for row in predictions.splitlines()]
    except (ValueError, LookupError, TypeError, RecursionError):  # of free text, or of a record that is none
        return []
    return [answer for answer in answers if isinstance(answer, dict)]
