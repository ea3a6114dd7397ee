"""The values of an Arrow table (Parquet, datasets of the Hub) as their author wrote them.

The number of a class (datasets' ClassLabel) becomes its name. A float of 32 bits becomes the shortest decimal with its value: 0.1, where
Python would make it 0.10000000149011612. A value without a form in JSON, such as a time or bytes, becomes a `Foreign`: it is counted where
its key is not read, and refused by name where it is part of a prompt or an answer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

NO_CLASS = -1  # in datasets: a class is not known


@dataclass(frozen=True)
class Foreign:
    """A value that is no text, number, list or object."""

    kind: str  # as Arrow calls it, such as timestamp[us]


def rows(table: Any) -> Iterator[dict]:
    """The rows of a pyarrow.Table."""
    columns = [_values(table[name]) for name in table.column_names]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def foreign(value: object, path: str) -> tuple[str, Foreign] | None:
    """The path of the first `Foreign` in a value, and the `Foreign`; None where there is none."""
    if isinstance(value, Foreign):
        return path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((inner for key, item in items if (inner := foreign(item, f"{path}.{key}"))), None)


def with_class_names(value: object, feature: object) -> object:
    """The value with the names of its classes, where `datasets` keeps their numbers. `feature` describes it, as `Features.to_dict` does."""
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if isinstance(names, list) and type(value) is int:
        return None if value == NO_CLASS else names[value] if 0 <= value < len(names) else value
    if isinstance(value, dict) and isinstance(feature, dict):
        return {key: with_class_names(item, feature.get(key)) for key, item in value.items()}
    if isinstance(value, list) and feature:
        inner = feature.get("feature") if isinstance(feature, dict) else feature[0] if isinstance(feature, list) else None
        return [with_class_names(item, inner) for item in value]
    return value


def features(metadata: dict[bytes, bytes] | None) -> dict:
    """What `datasets` has written into a Parquet file about its columns; empty where it has not."""
    try:
        described = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def _values(column: Any) -> list:
    import pyarrow

    short = _with_floats(column.type, pyarrow.string())
    if short != column.type:
        column = column.cast(short).cast(_with_floats(column.type, pyarrow.float64()))
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, KeyError):  # times that Python has no form for, names that a struct has twice
        return [Foreign(str(column.type)) if scalar.is_valid else None for scalar in column]
    return values if _plain(column.type) else [_as_json(value, column.type) for value in values]


def _with_floats(kind: Any, leaf: Any) -> Any:
    """The type with each float of 32 bits replaced by `leaf`."""
    import pyarrow
    from pyarrow import types

    if types.is_float32(kind):
        return leaf
    if types.is_struct(kind):
        return pyarrow.struct([pyarrow.field(field.name, _with_floats(field.type, leaf), field.nullable) for field in kind])
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(_with_floats(kind.value_type, leaf), kind.list_size)
    if types.is_list(kind):
        return pyarrow.list_(_with_floats(kind.value_type, leaf))
    if types.is_large_list(kind):
        return pyarrow.large_list(_with_floats(kind.value_type, leaf))
    if types.is_map(kind):
        return pyarrow.map_(_with_floats(kind.key_type, leaf), _with_floats(kind.item_type, leaf))
    return kind


def _nested_types(kind: Any) -> list:
    """The child types of a nested one."""
    return [kind.field(number).type for number in range(kind.num_fields)]


def _plain(kind: Any) -> bool:
    """Whether Python's values of this type are those of JSON."""
    from pyarrow import types

    if types.is_map(kind):
        return False
    if kind.num_fields:
        return all(map(_plain, _nested_types(kind)))
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    numbers = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    return texts or numbers or types.is_boolean(kind) or types.is_null(kind)


def _as_json(value: object, kind: Any) -> object:
    """The value in JSON's forms."""
    from pyarrow import types

    if value is None or _plain(kind):
        return value
    if types.is_map(kind):
        pairs = [(key, _as_json(item, kind.item_type)) for key, item in value]  # type: ignore[attr-defined]
        texts = all(isinstance(key, str) for key, _ in pairs) and len(dict(pairs)) == len(pairs)
        return dict(pairs) if texts else Foreign(str(kind))
    if types.is_struct(kind):
        return {field.name: _as_json(value[field.name], field.type) for field in kind}  # type: ignore[index]
    if isinstance(value, list):
        return [_as_json(item, kind.value_type) for item in value]
    if isinstance(value, Decimal):
        number = int(value) if types.is_decimal(kind) and kind.scale <= 0 else float(value)
        return number if Decimal(repr(number)) == value else Foreign(str(kind))
    return value if isinstance(value, str) else Foreign(str(kind))
