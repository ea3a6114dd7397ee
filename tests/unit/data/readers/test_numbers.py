"""An answer's numbers are learned as its file has them."""

import copy
import gzip
import json
import pickle

import pytest

from data.readers import numbers
from data.rows import scan

NUMBERS = [
    "1e5",
    "1E5",
    "1.10",
    "100000.0",
    "-0",
    "-0.0",
    "1e-7",
    "1e-400",
    "0.1",
    "0.10000000000000000001",
    "2.50e+3",
    "12345678901234567890123",
]
ANSWERS = ['{"x":NUMBER}', '{"x":[NUMBER,null]}', '{"x":{"y":NUMBER,"é\\"":"1e5"},"z":true}']


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz"])
def test_a_number_is_learned_as_it_is_written(number, answer, ending, tmp_path):
    written = answer.replace("NUMBER", number)
    line = f'{{"instruction": "How many?", "output": {written}}}'
    path = tmp_path / f"rows{ending}"
    path.write_bytes(gzip.compress(line.encode()) if ending.endswith("gz") else line.encode())
    (row,) = scan(path).rows
    assert row.completion == written and row.output == json.loads(written)


@pytest.mark.parametrize("number", ["1E400", "-1e999", "9" * 5000, "1" + "0" * 400 + ".0"])
def test_a_number_that_nobody_reads_back_is_refused_with_its_line(number, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"instruction": "How many?", "output": {{"x": {number}}}}}\n')
    (error,) = scan(path).errors
    assert error.where.endswith(":1") and f"`output` has the number {number[:40]}, too large to be read back" in error.what
    path.write_text(f'{{"instruction": "How many?", "output": "{number}", "meta": {{"count": {number}}}}}\n')
    assert scan(path).rows[0].completion == number


@pytest.mark.parametrize("number", ["1e5", "-0"])
def test_a_number_where_text_belongs_is_named_as_it_is_written(number, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"prompt": "a", "completion": {number}}}\n')
    assert f"`completion` is a number ({number})" in scan(path).errors[0].what


def test_a_written_number_counts_and_is_copied_as_a_number():
    value = numbers.loads("[1e5, -0]")
    for other in (value, copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == [100000, 0] and numbers.dumps(other) == "[1e5,-0]"
