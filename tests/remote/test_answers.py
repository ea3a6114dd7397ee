"""What is asked of a finished run: a text, a file, many rows; and which of it the box is asked."""

import io
import json

import pytest

from conf.problem import Problem
from remote import answers


def test_a_text_a_file_and_stdin_are_asked_alike(tmp_path, monkeypatch):
    note = tmp_path / "note.txt"
    note.write_text("Stage II.\nOn tamoxifen.")
    monkeypatch.setattr("sys.stdin", io.StringIO("Stage II.\nOn tamoxifen."))
    expected = [json.dumps({"input": "Stage II.\nOn tamoxifen."})]
    assert answers.asked(str(note)) == answers.asked("-") == answers.asked("Stage II.\nOn tamoxifen.") == expected


def test_a_file_of_rows_is_asked_line_by_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "a"}\n\n{"prompt": "b"}\n')
    assert answers.asked(str(rows)) == ['{"input": "a"}', '{"prompt": "b"}']
    with pytest.raises(Problem, match="there is no file"):
        answers.asked(str(tmp_path / "none.jsonl"))


def test_a_long_text_is_no_file_name_and_an_empty_file_asks_nothing(tmp_path):
    text = "Stage II. " * 1000
    assert answers.asked(text) == [json.dumps({"input": text})]
    other = tmp_path / "note"
    other.write_text("Stage II.")
    assert answers.asked(str(other)) == [json.dumps({"input": "Stage II."})]
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(Problem, match="has no text"):
        answers.asked(str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("line", ["not json", '["a"]', "3"])
def test_a_line_that_is_no_object_is_named_before_anything_is_sent(tmp_path, line):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"input": "a"}}\n\n{line}\n')
    with pytest.raises(Problem, match=r"rows\.jsonl:3: the line is no JSON object"):
        answers.asked(str(rows))


def test_answers_are_taken_out_of_s3_with_what_a_killed_command_has_left(aws, store, capsys):
    answers.ask(aws, "me", ['{"input": "left"}'])
    theirs = answers.ask(aws, "mine", ['{"input": "a"}'])["asked"]
    mine = answers.ask(aws, "me", ['{"input": "a"}'])["asked"]
    store.put(f"{mine}.answers", b'{"output": "b"}\n')
    answers.collect(aws, f"{mine}.answers")
    assert capsys.readouterr().out == "b\n"
    assert list(store.names("questions/")) == [theirs]
