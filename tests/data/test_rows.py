"""Rows: three kinds in, one shape out, and a sentence for every row that cannot be used."""

import pytest

from data.rows import Row, RowError, normalise, read_jsonl

ANSWER = {"a": "é", "b": []}


def test_an_instruction_row_becomes_one_user_turn_and_compact_json():
    row = normalise({"instruction": "Extract.", "input": "A note.", "output": ANSWER, "id": 7}, "f:1")
    assert row == Row("7", [{"role": "user", "content": "Extract.\n\nA note."}], '{"a":"é","b":[]}', ANSWER, {}, "A note.")


@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": None}])
def test_an_input_may_be_missing_or_empty(extra):
    row = normalise({"instruction": "Say hello.", "output": "Hello.", **extra}, "f:3")
    assert row == Row("f:3", [{"role": "user", "content": "Say hello."}], "Hello.", None, {}, "Say hello.")


def test_a_completion_that_is_an_object_is_also_an_output_and_stays_as_written():
    row = normalise({"prompt": "p", "completion": '{"a": 1}', "meta": {"source": "x"}}, "f:1")
    assert (row.completion, row.output, row.meta) == ('{"a": 1}', {"a": 1}, {"source": "x"})


def test_messages_keep_system_and_earlier_turns_and_learn_the_last():
    turns = [("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2")]
    row = normalise({"messages": [{"role": role, "content": text} for role, text in turns]}, "f:1")
    assert [turn["content"] for turn in row.messages] == ["s", "u1", "a1", "u2"]
    assert row.completion == "a2"


def test_null_columns_of_another_kind_do_not_matter():
    assert normalise({"prompt": "p", "completion": "c", "messages": None, "output": None}, "f:1").completion == "c"


BROKEN = {
    "a list": ([1], "the row is a list"),
    "no kind": ({"text": "x"}, "no known kind (its keys: text)"),
    "two kinds": ({"prompt": "p", "completion": "c", "messages": []}, "more than one kind"),
    "number": ({"instruction": "i", "output": 3}, "`output` is a number (3); make it an object or a string"),
    "input": ({"instruction": "i", "input": ["x"], "output": "o"}, "`input` is a list"),
    "empty": ({"prompt": "p", "completion": " "}, "`completion` is empty"),
    "not json": ({"instruction": "i", "output": {"a": float("nan")}}, "`output` cannot be written as JSON"),
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, '`messages[0].role` is a string ("tool"); use one of system'),
    "content": ({"messages": [{"role": "user"}]}, "`messages[0].content` is missing or null"),
    "last": ({"messages": [{"role": "user", "content": "x"}]}, "end it with a user turn and the assistant's answer"),
    "turn": ({"messages": ["hello"]}, "`messages[0]` is a string"),
    "messages": ({"messages": "hello"}, "`messages` is a string"),
    "id": ({"prompt": "p", "completion": "c", "id": [1]}, "`id` is a list"),
    "meta": ({"prompt": "p", "completion": "c", "meta": "m"}, "`meta` is a string"),
}


@pytest.mark.parametrize("raw, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_with_its_place_and_what_is_wrong(raw, sentence):
    with pytest.raises(RowError) as caught:
        normalise(raw, "train.jsonl:17")
    assert str(caught.value).startswith("train.jsonl:17: ")
    assert sentence in str(caught.value)
    assert caught.value.mend


def test_a_file_is_read_in_order_with_its_blank_lines_and_strange_line_separators(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"prompt":"1","completion":"a\u2028b"}\r\n\n{"prompt":"2","completion":"c","id":"x"}\n'.encode())
    rows = read_jsonl(path)
    assert [(row.id, row.completion) for row in rows] == [(f"{path}:1", "a\u2028b"), ("x", "c")]


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b'{"prompt":"1","completion":"2"}\n{"prompt":', "rows.jsonl:2: the line is not JSON"),
        (b'{"prompt":"1","completion":"2"}\n\xff', "rows.jsonl:2: byte 0xff is not UTF-8"),
        (b"\n \n", "rows.jsonl: the file holds no rows"),
        (b'{"prompt":"1","completion":"2","id":"x"}\n' * 2, "rows.jsonl:2: `id` 'x' is also the id of line 1"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, sentence):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RowError) as caught:
        read_jsonl(path)
    assert sentence in str(caught.value)
