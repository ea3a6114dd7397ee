"""Conversations and tasks as other people write them down: what is read, what is refused, what is told."""

import json

import pytest

from data.rows import RowError, normalise, scan

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
READ = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


def user(content="q", **more):
    return {"role": "user", "content": content} | more


def bot(content="a", **more):
    return {"role": "assistant", "content": content} | more


def row(**raw):
    return normalise(raw, "f:1")


def turns_of(row):
    return [(turn["role"], turn["content"]) for turn in row.messages]


def test_alpaca_with_system_and_history_becomes_turns():
    parsed = row(system="Norwegian.", instruction="Capital?", input="Peru", output="Lima.", history=[["Hi", "Hei!"], ["Ja?", "Ja."]])
    assert turns_of(parsed) == [
        ("system", "Norwegian."),
        ("user", "Hi"),
        ("assistant", "Hei!"),
        ("user", "Ja?"),
        ("assistant", "Ja."),
        ("user", "Capital?\n\nPeru"),
    ]
    assert (parsed.completion, parsed.text) == ("Lima.", "Peru")
    assert turns_of(row(system="", instruction="x", output="y", history=[])) == turns_of(
        row(instruction="x", output="y", history=None, system=None)
    )


def test_a_system_text_is_read_in_every_kind():
    assert turns_of(row(system="s", prompt="p", completion="c")) == [("system", "s"), ("user", "p")]
    assert turns_of(row(system="s", messages=[user(), bot()])) == [("system", "s"), ("user", "q")]
    assert turns_of(row(system="s", conversations=[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]))[0] == ("system", "s")
    with pytest.raises(RowError, match="there are two system turns"):
        row(system="s", messages=[{"role": "system", "content": "t"}, user(), bot()])


def test_sharegpt_is_read_with_tools():
    turns = [
        ("system", "s"),
        ("human", "q"),
        ("function_call", '{"name": "weather", "arguments": {"city": "Oslo"}}'),
        ("observation", "rain"),
    ]
    turns += [("gpt", "It rains.")]
    raw = {"conversations": [{"from": speaker, "value": value} for speaker, value in turns]}
    parsed = row(**raw, tools=json.dumps([{"name": "weather", "parameters": {}}]))
    assert [turn["role"] for turn in parsed.messages] == ["system", "user", "assistant", "tool"]
    assert parsed.messages[2]["tool_calls"] == [{"type": "function", "function": READ["function"]}]
    assert parsed.tools == [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    assert parsed.completion == "It rains."
    assert turns_of(row(conversations=[user(), bot()])) == [("user", "q")]  # many keep OpenAI's turns under this key


def test_openai_messages_are_read_with_tools_and_calls():
    turns = [user("Rain?"), bot(None, tool_calls=[CALL]), {"role": "tool", "tool_call_id": "c1", "content": "rain"}, bot("It rains.")]
    parsed = row(messages=turns, tools=[TOOL], parallel_tool_calls=False)
    assert parsed.messages[1] == {"role": "assistant", "content": "", "tool_calls": [READ]}
    assert parsed.messages[2] == {"role": "tool", "content": "rain", "tool_call_id": "c1"}
    assert (parsed.tools, parsed.completion, parsed.calls) == ([TOOL], "It rains.", [])
    calls = row(messages=turns[:2], tools=[TOOL])
    assert (calls.calls, calls.output) == ([{"role": "assistant", "content": "", "tool_calls": [READ]}], None)


def test_turns_in_parts_null_keys_and_openais_newer_name_of_the_system_are_read():
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    answer = bot("a", refusal=None, audio=None, annotations=[], function_call=None, tool_calls=None, weight=None)
    parsed = row(messages=[{"role": "developer", "content": "s"}, user(parts, name=None), answer])
    assert turns_of(parsed) == [("system", "s"), ("user", "What now?")]


def test_trls_conversations_of_prompt_and_completion_are_read():
    parsed = row(prompt=[user()], completion=[bot()])
    assert (turns_of(parsed), parsed.completion) == ([("user", "q")], "a")


def test_weights_are_used_and_turns_after_the_last_learned_answer_are_left_out():
    parsed = row(messages=[user("1"), bot("a", weight=0), user("2"), bot("b", weight=1), user("3"), bot("c", weight=0)])
    assert (turns_of(parsed), parsed.completion, parsed.weights) == ([("user", "1"), ("assistant", "a"), ("user", "2")], "b", {1: 0})
    parsed = row(system="s", messages=[user("1"), bot("a", weight=1), user("2"), bot("b")])
    assert (parsed.completion, parsed.weights) == ("b", {2: 1})
    with pytest.raises(RowError, match="has no answer to learn"):
        row(messages=[user(), bot(weight=0)])
    for weight in (0.5, 2, "1", True):
        with pytest.raises(RowError, match=r"`messages\[1\].weight` is .*; use 1 to learn"):
            row(messages=[user(), bot(weight=weight)])


REFUSED = {
    "system twice over": ({"instruction": "i", "output": "o", "system": ["s"]}, "`system` is a list"),
    "history": ({"instruction": "i", "output": "o", "history": [["a"]]}, "`history` is a list"),
    "nobody asks": ({"messages": [{"role": "tool", "content": "3"}, bot()]}, "`messages` has the roles tool, assistant"),
    "the system is answered": (
        {"messages": [{"role": "system", "content": "s"}, {"role": "tool", "content": "3"}, bot()]},
        "`messages` has the roles system, tool, assistant",
    ),
    "another system": ({"prompt": "p", "completion": "c", "system_prompt": "Be brief."}, "`system_prompt` is not read"),
    "another answer": ({"messages": [user(), bot()], "completion": "another"}, "`completion` is not read"),
    "a mask of its own": ({"prompt": "p", "completion": "c", "loss_mask": [0, 1]}, "`loss_mask` is not read"),
    "a question": ({"instruction": "Answer.", "output": "c", "question": "Who?"}, "`question` is not read"),
    "a context": ({"instruction": "i", "output": "c", "context": "Once."}, "`context` is not read"),
    "an instruction of messages": ({"messages": [user(), bot()], "instruction": "Be brief."}, "`instruction` is not read"),
    "an input beside a prompt": ({"prompt": "Shorten.", "input": "a text", "completion": "c"}, "`input` is in none of the turns"),
    "an input beside messages": ({"messages": [user("q"), bot()], "input": "a text"}, "`input` is in none of the turns"),
    "history of a prompt": ({"prompt": "p", "completion": "c", "history": [["a", "b"]]}, "`history` is not read"),
    "history of messages": ({"messages": [user(), bot()], "history": [["a", "b"]]}, "`history` is not read"),
    "tools of a prompt": ({"prompt": "p", "completion": "c", "tools": [TOOL]}, "`tools` is not read"),
    "tools of a task": ({"instruction": "p", "output": "c", "tools": [TOOL]}, "`tools` is not read"),
    "functions": ({"messages": [user(), bot()], "functions": [{"name": "f"}]}, "`functions` is not read"),
    "a row's weight": ({"prompt": "p", "completion": "c", "weight": 0.5}, "`weight` is not read"),
    "images": ({"prompt": "p", "completion": "c", "images": ["a.png"]}, "`images` is not read"),
    "preference": ({"prompt": "p", "completion": "c", "rejected": "d"}, "`rejected` is not read"),
    "verdict": ({"prompt": "p", "completion": "c", "label": False}, "`label` is not read"),
    "thinking": ({"messages": [user(), bot(reasoning_content="hm")]}, "`messages[1].reasoning_content` is not read"),
    "old calls": ({"messages": [user(), bot(function_call={"name": "f"})]}, "`messages[1].function_call` is not read"),
    "a turn's loss": ({"messages": [user(), bot(train=False)]}, "`messages[1].train` is not read"),
    "a user's weight": ({"messages": [user(weight=1), bot()]}, "`messages[0].weight` is not read"),
    "sharegpt's loss": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "loss": False}]},
        "[1].loss` is not",
    ),
    "sharegpt's speaker": ({"conversations": [{"from": "alice", "value": "q"}]}, "`conversations[0].from` is a string"),
    "sharegpt's call": ({"conversations": [{"from": "function_call", "value": "f()"}]}, "`conversations[0].value` is not JSON"),
    "an image part": ({"messages": [user([{"type": "image_url", "image_url": {}}]), bot()]}, "has a part that is no text"),
    "arguments": ({"messages": [user(), bot("", tool_calls=[{"function": {"name": "f", "arguments": "x"}}])]}, "arguments` is not JSON"),
    "a list of arguments": (
        {"messages": [user(), bot("", tool_calls=[{"function": {"name": "f", "arguments": [1]}}])]},
        "arguments` is a list",
    ),
    "no name": ({"messages": [user(), bot("", tool_calls=[{}])]}, "`messages[1].tool_calls[0]` is no call"),
    "calls": ({"messages": [user(), bot("", tool_calls={"a": 1})]}, "`messages[1].tool_calls` is an object"),
    "tools": ({"messages": [user(), bot()], "tools": "weather"}, "`tools` is not JSON"),
    "a nameless tool": ({"messages": [user(), bot()], "tools": [{"type": "function", "function": {}}]}, "`tools` has one without a name"),
    "two kinds": ({"messages": [user(), bot()], "conversations": []}, "more than one kind"),
}


@pytest.mark.parametrize("raw, sentence", REFUSED.values(), ids=REFUSED)
def test_what_changes_the_question_is_read_or_refused_and_never_dropped(raw, sentence):
    with pytest.raises(RowError) as caught:
        normalise(raw, "f:1")
    assert sentence in caught.value.what
    assert caught.value.hint


def test_keys_that_are_not_read_are_reported_once_with_their_count(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{n}", "completion": "c", "source": "web", **({"split": "x"} if n == 1 else {}), "lang": None} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert scan(path).notes.lines() == ["keys that are not read: `source` (3 rows), `split` (1 row)"]


def test_all_answers_of_a_completion_are_learned():
    prompt, turns = [user("a"), bot("before")], [bot("one"), user("more"), bot("two")]
    row = normalise({"prompt": [*prompt, user("b")], "completion": turns}, "f:1")
    assert (row.completion, row.weights) == ("two", {3: 1})
    assert normalise({"prompt": [user("a")], "completion": [bot("one", weight=0), user("more"), bot("two")]}, "f:1").weights == {1: 0}


def test_what_a_prompt_was_made_of_may_be_beside_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": 'Once.\n\n"Who?"', "completion": "c", "question": '"Who?"', "context": "Once."}))
    assert scan(path).notes.lines() == ["keys that are not read: `question` (1 row), `context` (1 row)"]


def test_nulls_that_a_tables_columns_may_have_made_are_reported(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    raw = [{"instruction": "i", "output": {"person": "Kari", "age": 3}}, {"instruction": "j", "output": {"city": "Oslo"}}]
    parquet.write_table(pyarrow.Table.from_pylist(raw), tmp_path / "rows.parquet")
    (note,) = scan(tmp_path / "rows.parquet").notes.lines()
    assert "answers, calls or tools with null, which in a table's columns also stands for a key that is absent: 2 rows" in note
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    assert scan(tmp_path / "rows.jsonl").notes.lines() == []
    whole = [{"instruction": "i", "output": {"a": "x", "b": ["y"]}}] * 2
    parquet.write_table(pyarrow.Table.from_pylist(whole), tmp_path / "rows.parquet")
    assert scan(tmp_path / "rows.parquet").notes.lines() == []
    calls = [{"messages": [user(), bot("", tool_calls=[{"function": {"name": "f", "arguments": each}}])]} for each in ({"a": 1}, {"b": 2})]
    parquet.write_table(pyarrow.Table.from_pylist(calls), tmp_path / "rows.parquet")
    (note,) = scan(tmp_path / "rows.parquet").notes.lines()
    assert "absent: 2 rows" in note


def test_a_column_that_a_table_has_twice_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array([each]) for each in "abc"], names=["prompt", "completion", "completion"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    (error,) = scan(tmp_path / "rows.parquet").errors
    assert "has the column `completion` twice" in error.what


def test_damaged_parquet_is_a_sentence(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"prompt": [f"{n} {n * 7919}" for n in range(5000)], "completion": ["c"] * 5000}), path)
    whole = path.read_bytes()
    for place in range(8, len(whole) - 400, max(1, len(whole) // 25)):
        path.write_bytes(whole[:place] + bytes(each ^ 0xA5 for each in whole[place : place + 400]) + whole[place + 400 :])
        for error in scan(path, "rows.parquet").errors[:1]:
            assert "the file is not Parquet" in error.what or "the file cannot be read" in error.what
    for cut in (0, 3, 100, len(whole) - 5):
        path.write_bytes(whole[:cut])
        (error,) = scan(path, "rows.parquet").errors
        assert "rows.parquet: the file" in str(error)


@pytest.mark.parametrize("label", ["false", "True", " FALSE "])
def test_a_verdict_on_the_answer_is_refused_as_text_too(label, tmp_path):
    """CSV has only text: rows that say which answers are bad are not learned as if all were good."""
    (tmp_path / "rows.csv").write_text(f"prompt,completion,label\np,c,{label}\n")
    assert "`label` is not read" in scan(tmp_path / "rows.csv").errors[0].what


@pytest.mark.parametrize(
    ("labels", "rated"), [([0, 1], True), (["1", "0"], True), ([1, 1], True), ([0, 1, 2], False), (["2", "0"], False), ([-1, 7], False)]
)
def test_a_number_under_label_is_said_not_to_be_learned(labels, rated, tmp_path):
    """It is a class, whose name the answer has, or a verdict of 0 or 1 on the answer: nobody can tell which from a row."""
    lines = [json.dumps({"prompt": "p", "completion": "c", "label": label}) for label in labels]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = scan(tmp_path / "rows.jsonl")
    keys, numbers = found.notes.lines()
    assert not found.errors and keys.startswith("keys that are not read: `label`")
    assert numbers.startswith("`label` holds numbers, and answers are learned as their text stands")
    assert ("where 0 says that an answer is bad" in numbers) == rated


def test_other_labels_are_counted_like_any_key(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "p", "completion": "c", "label": "flu"}\n{"prompt": "p", "completion": "c", "label": null}\n'
    )
    assert scan(tmp_path / "rows.jsonl").notes.lines() == ["keys that are not read: `label` (1 row)"]
