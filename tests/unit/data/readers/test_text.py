"""Text as people save it, in files of rows: read, or named with its line; never taken for something else."""

import gzip
import itertools
import json
import random

import pytest
from backports import zstd

from data.readers import text
from data.rows import RowError, read, scan

ROWS = [{"prompt": "Où est 東京? 😀", "completion": "Là-bas."}, {"prompt": "q", "completion": "a"}]
ENCODINGS = {"utf-8": b"", "utf-8-sig": b"", "utf-16": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff", "utf-32": b""}
WITHOUT_MARK = ["utf-16-le", "utf-16-be"]


def jsonl(rows, ends="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + ends for row in rows)


def table(rows, ends="\n"):
    return ends.join(["prompt,completion", *(f'"{row["prompt"]}","{row["completion"]}"' for row in rows)]) + ends


@pytest.mark.parametrize(
    "ending, written", [(".jsonl", jsonl), (".csv", table), (".json", lambda rows, ends: json.dumps(rows)), (".json", jsonl)]
)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_the_same_rows_are_read_however_they_are_saved(tmp_path, ending, written, encoding, ends, packed):
    path = tmp_path / f"rows{ending}{packed}"
    data = ENCODINGS[encoding] + written(ROWS, ends).encode(encoding)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}[packed]
    path.write_bytes(pack(data))
    assert [(row.messages[0]["content"], row.completion) for row in read(path)] == [tuple(row.values()) for row in ROWS]


@pytest.mark.parametrize("encoding", WITHOUT_MARK)
def test_letters_of_two_bytes_are_seen_without_a_mark(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(ROWS).encode(encoding))
    assert read(path)[0].completion == "Là-bas."


@pytest.mark.parametrize("ending, written", [(".jsonl", jsonl), (".csv", table)])
def test_another_encoding_is_named_with_its_line_the_letter_and_a_command(tmp_path, ending, written):
    path = tmp_path / f"my rows{ending}"
    path.write_bytes(written([ROWS[1], {"prompt": "Où?", "completion": "a"}]).encode("cp1252"))
    with pytest.raises(RowError) as caught:
        read(path, path.name)
    assert caught.value.where == f"my rows{ending}:{2 if ending == '.jsonl' else 3}"
    assert "byte 0xf9 is not UTF-8; in Windows-1252 it is 'ù'" in caught.value.what
    assert f"iconv -f CP1252 -t UTF-8 'my rows{ending}' > 'utf8-my rows{ending}'" in caught.value.hint


HALVES = {
    "a value": (r'{"prompt": "funny \ud83d", "completion": "y"}', "`prompt` holds half a character (\\ud83d)"),
    "a turn": (
        r'{"messages": [{"role": "user", "content": "\uDC00"}, {"role": "assistant", "content": "a"}]}',
        "`messages[0].content` holds half a character (\\udc00)",
    ),
    "a key": (r'{"prompt": "p", "completion": "c", "\ud83d": 1}', "a key in `the row` holds half"),
    "an answer": (r'{"instruction": "p", "output": {"a": {"b": ["\ud83d"]}}}', "`output.a.b[0]` holds half"),
    "meta": (r'{"prompt": "p", "completion": "c", "meta": {"k": "\ud83d"}}', "`meta.k` holds half"),
}


@pytest.mark.parametrize("line, sentence", HALVES.values(), ids=HALVES)
def test_half_a_character_is_named_by_line_and_key(tmp_path, line, sentence):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00", "completion": "whole"}\n' + line + "\n")
    rows, errors, _ = scan(path, "rows.jsonl")
    assert rows[0].messages[0]["content"] == "😀"
    assert [error.where for error in errors] == ["rows.jsonl:2"]
    assert sentence in errors[0].what


DEEP = {
    "lists": '{"prompt": "p", "completion": "c", "meta": {"a": ' + "[" * 100 + "]" * 100 + "}}",
    "lists without end": '{"prompt": "p", "completion": "c", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "objects": '{"instruction": "p", "output": ' + '{"a": ' * 90 + "1" + "}" * 91,
}


@pytest.mark.parametrize("line", DEEP.values(), ids=DEEP)
def test_values_nested_without_end_are_refused_with_their_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl(ROWS[:1]) + line)
    rows, errors, _ = scan(path, "rows.jsonl")
    assert (len(rows), [error.where for error in errors]) == (1, ["rows.jsonl:2"])
    assert "nested" in errors[0].what or "recursion" in errors[0].what


def test_a_line_and_a_file_of_any_length_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl(ROWS[1:]) + jsonl([{"prompt": "x" * 5000, "completion": "y"}]) + jsonl(ROWS[:1]))
    rows, errors, _ = scan(path, "rows.jsonl")
    assert [row.completion for row in rows] == ["a", "Là-bas."]
    assert [error.where for error in errors] == ["rows.jsonl:2"]
    monkeypatch.setattr(text, "LARGEST", 10_000)
    for name in ("rows.jsonl.gz", "rows.csv.gz"):  # a little file that is a large one
        (tmp_path / name).write_bytes(gzip.compress(("prompt,completion\n" + "a,b\n" * 20_000).encode()))
        assert any("the file holds more than" in error.what for error in scan(tmp_path / name, name).errors)


def _zstd(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


PACKED = list(itertools.product([".gz", ".zst"], ["cut", "changed", "other"]))


@pytest.mark.parametrize("ending, harm", PACKED)
def test_a_damaged_packed_file_is_a_sentence_and_never_a_shorter_one(tmp_path, ending, harm):
    pack = {".gz": gzip.compress, ".zst": _zstd}[ending]
    draw = random.Random(1)
    data = pack(jsonl([{"prompt": f"{draw.random()}", "completion": "a"} for _ in range(3000)]).encode())
    middle = len(data) // 2
    harmed = {"cut": data[:middle], "changed": data[:middle] + bytes(50) + data[middle + 50 :], "other": b"hello, this is not packed\n"}
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(harmed[harm])
    errors = scan(path, path.name).errors
    assert errors
    assert "cannot be unpacked" in errors[-1].what or harm == "changed"
    path.write_bytes(data + data)  # two that were put together are one
    assert len(scan(path, path.name).errors) == 0


@pytest.mark.parametrize(
    "head, kind",
    [
        (b"PK\x03\x04", "Excel"),
        (b"\xd0\xcf\x11\xe0", "Excel"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PAR1", "Parquet"),
    ],
)
@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_file_under_a_wrong_name_is_named_by_what_it_is(tmp_path, head, kind, ending):
    (tmp_path / f"rows{ending}").write_bytes(head + b"\xff\xfe\x80 \n" * 5)
    (error,) = scan(tmp_path / f"rows{ending}", f"rows{ending}").errors
    assert kind in error.what


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".json"])
def test_a_pointer_of_git_lfs_is_named_though_it_is_text(tmp_path, ending):
    (tmp_path / f"rows{ending}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    (error,) = scan(tmp_path / f"rows{ending}", f"rows{ending}").errors
    assert "`git lfs pull`" in error.what


def test_one_object_is_one_row_in_a_json_file_too(tmp_path):
    (tmp_path / "row.json").write_text(json.dumps(ROWS[0], indent=2))
    assert [row.completion for row in read(tmp_path / "row.json")] == [ROWS[0]["completion"]]


def test_a_key_that_an_object_has_twice_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "completion": "a", "completion": "b"}\n{"instruction": "p", "output": {"k": 1, "k": 2}}\n')
    assert [error.what for error in scan(path).errors] == ["the line has the key `completion` twice", "the line has the key `k` twice"]
