"""Rows: three kinds in, one shape out, and a sentence for every row that cannot be used."""

import pytest

from data.rows import Fact, Row, RowError, normalise, read, scan

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
    "role": ({"messages": [{"role": "bot", "content": "x"}]}, '`messages[0].role` is a string ("bot"); use one of system'),
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
    assert caught.value.hint


def test_a_file_is_read_in_order_with_its_blank_lines_and_strange_line_separators(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"prompt":"1","completion":"a\u2028b"}\r\n\n{"prompt":"2","completion":"c","id":"x"}\n'.encode())
    rows = read(path)
    assert [(row.id, row.completion) for row in rows] == [(f"{path}:1", "a\u2028b"), ("x", "c")]


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b'{"prompt":"1","completion":"2"}\n{"prompt":', "rows.jsonl:2: the line is not JSON"),
        (b'{"prompt":"1","completion":"2"}\n\xff', "rows.jsonl:2: byte 0xff is not UTF-8"),
        (b"\n \n", "rows.jsonl: the file holds no rows"),
        (b'{"prompt":"1","completion":"2","id":"x"}\n' * 2, "rows.jsonl:2: `id` 'x' is also the id of"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, sentence):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RowError) as caught:
        read(path)
    assert sentence in str(caught.value)


def test_every_broken_row_of_a_file_is_found_and_the_others_are_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt":"1","completion":"a"}\n{"prompt":\n\xff\n\n{"prompt":"2"}\n{"prompt":"3","completion":"c"}\n')
    rows, errors, _ = scan(path)
    assert [row.completion for row in rows] == ["a", "c"]
    assert [error.where.rpartition(":")[2] for error in errors] == ["2", "3", "5"]
    assert "byte 0xff is not UTF-8" in errors[1].what


def test_csv_is_text_with_empty_cells_absent_and_lines_counted_where_a_row_begins(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        'id,instruction,input,output,meta\n1,Sum up.,"two\nlines",NA,\n\n2,Count.,,7,"{""style"": ""letter""}"\n3,,a,b,\n',
        encoding="utf-8-sig",
    )
    rows, errors, _ = scan(path)
    assert [(row.id, row.text, row.completion, row.meta) for row in rows] == [
        ("1", "two\nlines", "NA", {}),
        ("2", "Count.", "7", {"style": "letter"}),
    ]
    assert [str(error) for error in errors] == [
        f"{path}:6: the row is of no known kind (its keys: id, input, output); "
        "use instruction/input/output, or prompt/completion, or messages, or conversations"
    ]


def test_an_answer_in_a_csv_cell_may_be_json_and_so_may_messages(tmp_path):
    path = tmp_path / "rows.csv"
    turns = '[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a""}]'
    path.write_text(f'messages,prompt,completion\n"{turns}",,\n,p,"{{""k"": 1}}"\n')
    rows = read(path)
    assert (rows[0].completion, rows[1].output) == ("a", {"k": 1})


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("prompt,completion\na,b,c\n", ":2: the line has 3 cells, and the first line names 2"),
        ('prompt,completion\na,"b\n', ":2: the line is not CSV"),
        ("messages\nhello\n", ":2: `messages` is not JSON"),
        ("prompt,completion\n", ": the file holds no rows"),
    ],
)
def test_a_broken_csv_file_is_named_with_its_line(tmp_path, text, sentence):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(RowError) as caught:
        read(path)
    assert f"rows.csv{sentence}" in str(caught.value)


def test_parquet_keeps_objects_and_lists(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    raw = [{"instruction": "i", "input": "n", "output": ANSWER}, {"instruction": "i", "input": None, "output": {"a": None, "b": ["x"]}}]
    parquet.write_table(pyarrow.Table.from_pylist(raw), path)
    assert [(row.id, row.output) for row in read(path)] == [(f"{path} row 1", ANSWER), (f"{path} row 2", {"a": None, "b": ["x"]})]
    path.write_bytes(b"not parquet at all")
    with pytest.raises(RowError, match="the file is not Parquet"):
        read(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(RowError, match="none of .jsonl, .json, .csv, .tsv, .parquet"):
        read(tmp_path / "rows.xlsx")


def test_a_file_that_lies_under_another_name_is_called_by_its_owners(tmp_path):
    (tmp_path / "c0ffee").write_text("prompt,completion\na,b\n")
    assert read(tmp_path / "c0ffee", "mine.csv")[0].id == "mine.csv:2"


def test_a_record_of_the_text_may_be_lists_or_objects():
    fact = {"field": "a", "value": "x", "status": "negated", "start": 3, "end": 4}
    rows = [normalise({"prompt": "p", "completion": "c", "meta": {"evidence": [form]}}, "f:1") for form in (fact, list(fact.values()))]
    assert rows[0].evidence == rows[1].evidence == [Fact("a", "x", "negated", 3, 4)]
