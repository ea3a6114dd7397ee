"""Files as programs and people leave them behind: read as they are meant, or named with what to do; never learned otherwise in silence."""

import gzip
import shlex
import subprocess

import pytest

from data.rows import scan

ONE, TWO = '{"prompt":"a","completion":"b"}', '{"prompt":"c","completion":"d"}'
HEAD = "prompt,completion\n"
PAIRS = [("a", "b"), ("c", "d")]
READ = {
    "a mark before the second of two files": ("r.jsonl", f"{ONE}\n\ufeff{TWO}\n"),
    "a mark in the middle of CSV": ("r.csv", f"{HEAD}a,b\n\ufeffc,d\n"),
    "lines that end in CR only": ("r.jsonl", f"{ONE}\r{TWO}\r"),
    "lines that end in CR only, in CSV": ("r.csv", "prompt,completion\ra,b\rc,d\r"),
    "CR and LF": ("r.jsonl", f"{ONE}\r\n{TWO}\r\n"),
    "empty lines in the middle": ("r.jsonl", f"{ONE}\n\n  \n{TWO}\n"),
    "a list": ("r.json", f"[\n{ONE},\n{TWO}]\n"),
    "cells for columns that have no name": ("r.csv", f"{HEAD}a,b,\nc,d,\n"),
}
NAMED = {
    "a list that is called JSON Lines": ("r.jsonl", f"[{ONE},{TWO}]\n", "r.jsonl:1: the file begins as one JSON list"),
    "a list over many lines": ("r.jsonl", f"[\n {ONE},\n {TWO}\n]\n", "r.jsonl:1: the file begins as one JSON list"),
    "a file that was cut off within a character": (
        "r.jsonl",
        f"{ONE}\n{TWO}é".encode()[:-1],
        "Windows-1252 it is 'Ã', or the file was cut off",
    ),
    "the same in CSV": (
        "r.csv",
        f"{HEAD}a,b\nc,é".encode()[:-1],
        "r.csv:3: byte 0xc3 is not UTF-8; in Windows-1252 it is 'Ã', or the file was cut off within a character; fetch",
    ),
    "a file that was cut off": ("r.jsonl", f'{ONE}\n{{"prompt":"c","compl', "r.jsonl:2: the line is not JSON"),
    "the names of the columns once more": (
        "r.csv",
        f"{HEAD}a,b\n{HEAD}c,d\n",
        "r.csv:3: the line holds the names of the columns once more",
    ),
    "names and nothing else": ("r.csv", HEAD, "put a line for each row below the names"),
    "U+0000 in CSV": ("r.csv", f"{HEAD}a\0b,c\n", "r.csv:2: the character U+0000"),
    "U+0000 in JSON": ("r.jsonl", '{"prompt":"a\\u0000","completion":"b"}\n', "`prompt`: the character U+0000"),
    "single quotes": ("r.csv", f"{HEAD}'a','b'\n", "r.csv:2: the line is not CSV (its cells are in single quotes"),
    "quotes behind backslashes": ("r.csv", f'{HEAD}"a \\"x\\" y","b"\n', 'write each quote within as ""'),
    "a number with its thousands apart": ("r.csv", f"{HEAD}How many?,1,234\n", "r.csv:2: the line has 3 cells"),
    "NaN": ("r.jsonl", '{"instruction":"a","output":{"x":NaN}}\n', "`output` cannot be written as JSON"),
    "a key twice": ("r.jsonl", '{"prompt":"a","prompt":"z","completion":"b"}\n', "has the key `prompt` twice"),
    "a comma behind the object": ("r.jsonl", f"{ONE},\n", "r.jsonl:1: the line is not JSON"),
    "half of a packed file": ("r.jsonl.gz", gzip.compress(f"{ONE}\n".encode() * 900)[:40], "cannot be unpacked"),
}


def scanned(tmp_path, name, body):
    (tmp_path / name).write_bytes(body if isinstance(body, bytes) else body.encode())
    return scan(tmp_path / name, name)


@pytest.mark.parametrize("name, body", READ.values(), ids=READ)
def test_what_is_meant_is_read(name, body, tmp_path):
    found = scanned(tmp_path, name, body)
    assert not found.errors and [(row.messages[-1]["content"], row.completion) for row in found.rows] == PAIRS


@pytest.mark.parametrize("name, body, told", NAMED.values(), ids=NAMED)
def test_what_is_not_is_named_with_its_place(name, body, told, tmp_path):
    errors = scanned(tmp_path, name, body).errors
    assert errors and told in str(errors[0])


def test_a_list_can_be_renamed_as_the_hint_says(tmp_path):
    for name in ("r.jsonl", "my rows.jsonl"):
        (error,) = scanned(tmp_path, name, f"[{ONE},{TWO}]").errors
        words = shlex.split(error.hint.split("`")[1])
        subprocess.run(words, cwd=tmp_path, check=True)
        assert len(scan(tmp_path / words[-1], words[-1]).rows) == 2
    (error,) = scanned(tmp_path, "r.jsonl.gz", gzip.compress(f"[{ONE}]".encode())).errors
    assert "`mv r.jsonl.gz r.json.gz`" in error.hint


def test_spaces_around_a_cell_are_told(tmp_path):
    lines = scanned(tmp_path, "r.csv", f"{HEAD}a question , b\nc,d\n").notes.lines()
    assert lines == ["cells with spaces around their text, which the model reads too: 1 row; write a,b and not a, b"]
    assert scanned(tmp_path, "r.csv", f'{HEAD}"a" , "b"\n').notes.lines() == []


def test_of_many_keys_that_are_not_read_some_are_named(tmp_path):
    body = ",".join(["prompt", "completion", *(f"c{n}" for n in range(1000))]) + "\n" + ",".join(["x"] * 1002) + "\n"
    (line,) = scanned(tmp_path, "r.csv", body).notes.lines()
    assert line.endswith("`c9` (1 row), 990 more")


def test_an_answer_with_nan_is_text(tmp_path):
    (row,) = scanned(tmp_path, "r.jsonl", '{"instruction":"a","output":"{\\"x\\": NaN}"}\n').rows
    assert row.output is None
