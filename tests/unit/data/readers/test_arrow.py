"""Columns of Parquet: numbers as they were written, and what no JSON has a form for is named where it would be said to a model."""

import datetime
import json
from decimal import Decimal

import pytest

from data.rows import scan

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
F32, TIME = pyarrow.float32(), pyarrow.timestamp("us")
SHORT = [0.1, 1e10, 3.4028235e38, 1e-45, 16777216.0, -0.3]
WHOLE = [(getattr(pyarrow, f"{sign}int{bits}")(), number) for bits in (8, 16, 32, 64) for sign, number in (("", -7), ("u", 2**bits - 1))]


def scanned(tmp_path, kind, values, key="output"):
    """The rows of a file in which this key has such a column."""
    other = {"instruction": "i"} if key == "output" else {"completion": "c"}
    columns = {name: pyarrow.array([text] * len(values)) for name, text in other.items()} | {key: pyarrow.array(values, kind)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    return scan(tmp_path / "rows.parquet", "rows.parquet")


def answers(tmp_path, kind, values):
    """What is learned of values of this type in an answer."""
    found = scanned(tmp_path, pyarrow.struct([("v", kind)]), [{"v": value} for value in values])
    assert not found.errors, found.errors
    return [row.completion for row in found.rows]


def test_short_floats_are_the_numbers_that_were_written(tmp_path):
    expected = [f'{{"v":{json.dumps(value)}}}' for value in SHORT]
    assert answers(tmp_path, F32, SHORT) == expected
    assert answers(tmp_path, pyarrow.float64(), SHORT) == expected
    nested = pyarrow.struct(
        [("a", pyarrow.list_(pyarrow.struct([("b", F32)]))), ("c", pyarrow.list_(F32, 2)), ("d", pyarrow.large_list(F32))]
    )
    value = {"a": [{"b": 0.1}, {"b": None}], "c": [0.2, 0.3], "d": [0.7]}
    assert answers(tmp_path, nested, [value]) == [json.dumps({"v": value}, separators=(",", ":"))]


@pytest.mark.parametrize(
    "kind, value",
    [
        *WHOLE,
        (pyarrow.bool_(), True),
        (pyarrow.null(), None),
        (pyarrow.list_(pyarrow.null()), [None]),
        (pyarrow.large_string(), "long"),
        (pyarrow.string_view(), "view"),
        (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "word"),
        (pyarrow.dictionary(pyarrow.int8(), pyarrow.int64()), 7),
        (pyarrow.map_(pyarrow.string(), F32), {"a": 0.1}),
    ],
    ids=str,
)
def test_values_of_every_plain_type_are_as_they_stand(kind, value, tmp_path):
    given = list(value.items()) if isinstance(value, dict) else value
    assert answers(tmp_path, kind, [given]) == [json.dumps({"v": value}, separators=(",", ":"))]


def test_decimals_are_the_numbers_that_they_are_or_named(tmp_path):
    kind = pyarrow.decimal128(30, 2)
    assert answers(tmp_path, kind, [Decimal("1.50"), Decimal("0.1")]) == ['{"v":1.5}', '{"v":0.1}']
    assert answers(tmp_path, pyarrow.decimal128(30, 0), [Decimal(10**25)]) == [f'{{"v":{10**25}}}']
    (error,) = scanned(tmp_path, pyarrow.struct([("v", kind)]), [{"v": Decimal("123456789012345678.12")}]).errors
    assert "`output.v` is a value of the type decimal128(30, 2)" in error.what


@pytest.mark.parametrize(
    "kind, value",
    [
        (TIME, 1),
        (pyarrow.timestamp("ns"), 1700000000000000001),
        (pyarrow.timestamp("us", tz="Europe/Oslo"), 1),
        (pyarrow.date32(), datetime.date(2026, 1, 5)),
        (pyarrow.time64("us"), 5),
        (pyarrow.duration("ns"), 7),
        (pyarrow.binary(), b"\xff"),
        (pyarrow.large_binary(), b"text"),
        (pyarrow.list_(TIME), [1]),
        (pyarrow.map_(pyarrow.int64(), pyarrow.string()), [(1, "a")]),
        (pyarrow.float16(), 0.5),
    ],
    ids=str,
)
def test_what_json_has_no_form_for_is_named_with_its_column_and_left_where_nobody_reads_it(kind, value, tmp_path):
    for key, what in (("output", "`output` is a "), ("prompt", "`prompt` is a ")):
        (error,) = scanned(tmp_path, kind, [value], key).errors
        assert what in error.what, error
        assert error.hint
    (error,) = scanned(tmp_path, pyarrow.struct([("when", kind)]), [{"when": value}]).errors
    assert "`output.when" in error.what and str(kind).partition("<")[0].removeprefix("list") in error.what
    columns = {"prompt": ["p"], "completion": ["c"], "made": pyarrow.array([value], kind), "none": pyarrow.nulls(1)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    found = scan(tmp_path / "rows.parquet")
    assert not found.errors and found.notes.lines() == ["keys that are not read: `made` (1 row)"]


def test_a_dataset_of_the_hub_gives_numbers_as_they_were_written():
    datasets = pytest.importorskip("datasets")
    from trainer.rows import rows

    features = {"instruction": datasets.Value("string"), "output": {"x": datasets.Value("float32")}}
    raw = [{"instruction": "i", "output": {"x": 0.1}}, {"instruction": "j", "output": {"x": 0.7}}]
    table = datasets.Dataset.from_list(raw, features=datasets.Features(features)).select([1, 0])
    assert [row.completion for row in rows._scanned(table, "hub:owner/name:train").rows] == ['{"x":0.7}', '{"x":0.1}']


def classes(datasets):
    """Features of an answer with classes: alone, in a list, and in a list of objects."""
    name = datasets.ClassLabel(names=["flu", "cold"])
    return datasets.Features(
        {
            "instruction": datasets.Value("string"),
            "output": {"kind": name, "kinds": datasets.List(name), "all": [{"kind": name, "count": datasets.Value("int64")}]},
        }
    )


CLASSES = {"kind": 1, "kinds": [0, 1], "all": [{"kind": 0, "count": 1}, {"kind": -1, "count": 0}]}
NAMED_CLASSES = '{"kind":"cold","kinds":["flu","cold"],"all":[{"kind":"flu","count":1},{"kind":null,"count":0}]}'


@pytest.mark.parametrize("place", ["the Hub", "a file"])
def test_the_number_of_a_class_is_learned_as_its_name(place, tmp_path):
    """As the Hub's pages show it, and as the labels are called in the dataset's card."""
    datasets = pytest.importorskip("datasets")
    from trainer.rows import rows

    table = datasets.Dataset.from_list([{"instruction": "i", "output": CLASSES}], features=classes(datasets))
    table.to_parquet(tmp_path / "rows.parquet")
    found = rows._scanned(table, "hub:owner/name:train") if place == "the Hub" else scan(tmp_path / "rows.parquet")
    assert [row.completion for row in found.rows] == [NAMED_CLASSES]


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b"[]",
        b'{"info": {"features": 3}}',
        b'{"info": {"features": {"output": {"_type": "ClassLabel", "names": 3}}}}',
        b'{"info": {"features": {"output": [], "instruction": null}}}',
    ],
)
def test_a_description_that_says_nothing_changes_nothing(written, tmp_path):
    table = pyarrow.table({"instruction": ["i"], "output": pyarrow.array([{"kind": 1, "kinds": [2]}])})
    parquet.write_table(table.replace_schema_metadata({"huggingface": written}), tmp_path / "rows.parquet")
    assert [row.completion for row in scan(tmp_path / "rows.parquet").rows] == ['{"kind":1,"kinds":[2]}']
