"""Numbers of JSON as their author wrote them: 1e5, 1.10 and -0 are learned so, where Python would write 100000.0, 1.1 and 0."""

import json
import math

DIGITS = 4000  # of a whole number: Python refuses to read 4300


class TooLargeError(ValueError):
    """A number that every reader of JSON takes for infinity."""


class WrittenNumber(float):
    """A number that Python would write in another way."""

    written: str

    def __new__(cls, written: str) -> "WrittenNumber":
        number = super().__new__(cls, written)
        number.written = written
        return number


def loads(text: str, object_pairs_hook=None) -> object:
    """What JSON text holds; a ValueError where it is no JSON."""
    return json.loads(text, parse_float=_float, parse_int=_integer, object_pairs_hook=object_pairs_hook)


def dumps(value: object) -> str:
    """Compact JSON of a value; a ValueError or TypeError for what JSON has no form for."""
    if isinstance(value, WrittenNumber):
        if math.isinf(value):
            raise TooLargeError(value.written[:40])
        return value.written
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _float(written: str) -> float:
    number = float(written)
    return number if repr(number) == written else WrittenNumber(written)


def _integer(written: str) -> int | float:
    return WrittenNumber(written) if written == "-0" or len(written) > DIGITS else int(written)
