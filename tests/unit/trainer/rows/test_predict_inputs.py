"""What is asked of a finished run: a text, a file, many rows."""

import gzip
import io
import json

import pytest

from conf.problem import Problem
from trainer.rows import predict_inputs


def test_a_text_a_file_and_stdin_are_asked_alike(tmp_path, monkeypatch):
    note = tmp_path / "note.txt"
    note.write_text("Stage II.\nOn tamoxifen.")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Stage II.\nOn tamoxifen.")))
    expected = [json.dumps({"input": "Stage II.\nOn tamoxifen."})]
    assert (
        predict_inputs.input_lines(str(note))
        == predict_inputs.input_lines("-")
        == predict_inputs.input_lines("Stage II.\nOn tamoxifen.")
        == expected
    )


def test_a_file_of_rows_is_asked_line_by_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "a"}\n\n{"prompt": "b"}\n')
    assert predict_inputs.input_lines(str(rows)) == ['{"input": "a"}', '{"prompt": "b"}']
    with pytest.raises(Problem, match="there is no file"):
        predict_inputs.input_lines(str(tmp_path / "none.jsonl"))


def test_a_long_text_is_no_file_name_and_an_empty_file_asks_nothing(tmp_path):
    text = "Stage II. " * 1000
    assert predict_inputs.input_lines(text) == [json.dumps({"input": text})]
    other = tmp_path / "note"
    other.write_text("Stage II.")
    assert predict_inputs.input_lines(str(other)) == [json.dumps({"input": "Stage II."})]
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(Problem, match="has no text"):
        predict_inputs.input_lines(str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("line", ["not json", '["a"]', "3"])
def test_a_line_that_is_no_object_is_named_before_anything_is_sent(tmp_path, line):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"input": "a"}}\n\n{line}\n')
    with pytest.raises(Problem, match=r"rows\.jsonl:3: the line is no"):
        predict_inputs.input_lines(str(rows))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_questions_are_read_as_rows_are_however_they_are_saved(tmp_path, encoding, ends):
    lines = ends.join(['{"input": "Où?"}', '{"prompt": "b"}', ""])
    (tmp_path / "rows.jsonl").write_bytes(lines.encode(encoding))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode(encoding)))
    (tmp_path / "note.txt").write_bytes("Où?".encode(encoding))
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        assert [json.loads(line) for line in predict_inputs.input_lines(str(tmp_path / name))] == [{"input": "Où?"}, {"prompt": "b"}]
    assert predict_inputs.input_lines(str(tmp_path / "note.txt")) == [json.dumps({"input": "Où?"})]
    (tmp_path / "rows.csv").write_bytes("input;x\na;1\n".encode(encoding))
    assert [json.loads(line) for line in predict_inputs.input_lines(str(tmp_path / "rows.csv"))] == [{"input": "a", "x": "1"}]


def test_half_a_character_and_another_encoding_are_named_by_their_place(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"input": "half \\ud83d"}\n')
    with pytest.raises(Problem, match=r"rows.jsonl:1: `input` holds half a character \(\\ud83d\)"):
        predict_inputs.input_lines(str(tmp_path / "rows.jsonl"))
    (tmp_path / "note.txt").write_bytes(b"a\ncaf\xe9")
    with pytest.raises(Problem, match="note.txt: line 2: byte 0xe9 is not UTF-8"):
        predict_inputs.input_lines(str(tmp_path / "note.txt"))
    with pytest.raises(Problem, match="half a character"):
        predict_inputs.input_lines("caf\udce9")


ASKED = {
    "an input": ({"input": "x"}, ["Say it.\n\nx"]),
    "its own instruction": ({"instruction": "Count.", "input": "x", "system": "Brief."}, ["Brief.", "Count.\n\nx"]),
    "a prompt": ({"prompt": "x", "system": "s"}, ["s", "x"]),
    "history": ({"instruction": "x", "history": [["a", "b"]]}, ["a", "b", "x"]),
    "messages": ({"messages": [{"role": "user", "content": "x"}]}, ["x"]),
    "sharegpt": ({"conversations": [{"from": "human", "value": "x"}]}, ["x"]),
    "a turn's list": ({"prompt": [{"role": "user", "content": "x"}]}, ["x"]),
}


@pytest.mark.parametrize("raw, turns", ASKED.values(), ids=ASKED)
def test_a_question_is_any_kind_of_row_without_its_answer(raw, turns):
    row = predict_inputs.prompt_row(raw, "line 1", "Say it.")
    assert [turn["content"] for turn in row.messages] == turns


@pytest.mark.parametrize(
    "raw, sentence",
    [
        ([1], "line 1: the row is a list"),
        ({"text": "x"}, "of no known kind (its keys: text)"),
        ({"messages": "x"}, "of no known kind|`messages` is a string"),
        ({"input": 3}, "`input` is a number|`prompt` is a number"),
        ({"prompt": "x", "tools": [{"name": "f"}]}, "`tools` is not read"),
        ({"input": "x", "images": ["a.png"]}, "`images` is not read"),
        ({"messages": [{"role": "user", "content": "x", "thinking": "y"}]}, "`messages[0].thinking` is not read"),
    ],
)
def test_a_question_that_cannot_be_asked_is_named(raw, sentence):
    with pytest.raises(Problem) as caught:
        predict_inputs.prompt_row(raw, "line 1", "Say it.")
    assert any(part in caught.value.what for part in sentence.split("|"))


@pytest.mark.parametrize("name", ["val.csvx", "held_out.parquett", "./notes", "~/receipts/one", "/tmp/none/here", "rows.jsonl"])
def test_the_name_of_a_file_that_is_not_there_is_no_text(name):
    with pytest.raises(Problem, match="there is no file"):
        predict_inputs.input_lines(name)


@pytest.mark.parametrize("text", ["Stage II.", "and/or", "Stage II.\nb.txt", "Kiosk 24, 6.40", "e.g. this.", "6.40"])
def test_a_text_with_dots_and_slashes_is_one(text):
    assert predict_inputs.input_lines(text) == [json.dumps({"input": text})]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(Problem, match="the text is empty"):
        predict_inputs.input_lines(text)
