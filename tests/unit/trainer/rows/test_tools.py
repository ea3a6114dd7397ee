"""Rows with tools, calls and weights in a model's own template; a template that leaves any of it out is refused."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from conf.problem import Problem
from conf.schema import LossOn
from data.rows import normalise
from trainer.rows import description, prompt, tokens

# As Qwen2.5 writes it (tokenizer_config.json of Qwen/Qwen2.5-1.5B-Instruct), without its default system turn.
START = (
    "{%- if tools %}<|im_start|>system\n# Tools\n<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools>"
    "<|im_end|>\n{% endif %}"
)
CALLS = (
    "{% for message in messages %}{%- if message.tool_calls %}<|im_start|>assistant"
    "{% if message.content %}{{ '\\n' + message.content }}{% endif %}{%- for call in message.tool_calls %}"
    "{{ '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}{% endfor %}<|im_end|>\n"
    "{%- elif message.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ message.content }}\n</tool_response><|im_end|>\n"
    "{%- else %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}" + END
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TURNS = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]
ASKED = normalise({"messages": TURNS[:2], "tools": [TOOL]}, "f:1")
TOLD = normalise({"messages": TURNS, "tools": [TOOL]}, "f:2")
WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def prompts(tiny, template):
    templates = []
    for tokenizer in (AutoTokenizer.from_pretrained(tiny), tokens.Tokens(tiny)):
        tokenizer.chat_template = template
        templates.append(prompt.Prompt(tokenizer, description.stops(tiny)))
    return templates


def test_tools_calls_and_results_are_written_by_the_models_template_here_and_there(tiny):
    theirs, ours = prompts(tiny, START + CALLS + END)
    for row in (ASKED, TOLD):
        for learn in LossOn:
            assert ours.example(row, learn) == theirs.example(row, learn)
    example = ours.example(ASKED)
    assert '"name": "weather"' in ours.text(ASKED.messages, ASKED.tools)
    whole = theirs.tokenizer.apply_chat_template([*ASKED.messages, *ASKED.calls], tokenize=False, tools=ASKED.tools)
    assert ours.tokenizer.decode(example.prompt + example.completion) == ours.tokenizer.decode(ours.encode(whole.rstrip("\n")))
    assert example.row.completion == WRITTEN
    assert ours.answer(example.completion) == (WRITTEN, True)
    learned = ours.example(TOLD, LossOn.every_answer)
    texts = [ours.tokenizer.decode((learned.prompt + learned.completion)[start:end]) for start, end in learned.turns]
    assert texts == [f"{WRITTEN}<|im_end|>", "It rains.<|im_end|>"]


@pytest.mark.parametrize("row", [ASKED, TOLD, replace(ASKED, calls=[], completion="x"), replace(TOLD, tools=[])])
def test_a_template_that_leaves_out_tools_or_calls_or_results_is_refused(tiny, row):
    for template in prompts(tiny, PLAIN):
        with pytest.raises(Problem, match="does not write `tools`|leaves out what a turn"):
            template.example(row)


def calling(written):
    """A template that writes each call so."""
    return START + CALLS.replace("{{ '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}", written) + END


NAMED, ARGUMENTS = "{{ '\\n' + call.function.name + ' ' }}", "{{ call.function.arguments | tojson }}"
NESTED = '{"city": "Rome", "days": 1e1, "where": {"näher": ["am Fluß", "say \\"hi\\"", true, null]}}'
INCOMPLETE = {
    "names alone": (calling(NAMED), "leaves out what a turn of `assistant` says: 'city'"),
    "as Python": (calling(NAMED + "{{ call.function.arguments }}"), "writes a call's arguments as Python, not as JSON: {'city'"),
    "the first call": (calling("{% if loop.first %}" + NAMED + ARGUMENTS + "{% endif %}"), "leaves out what a turn of `assistant` says"),
    "values alone": (
        calling(NAMED + "{% for value in call.function.arguments.values() %}{{ value | tojson }}{% endfor %}"),
        "says: 'city'",
    ),
    "text beside a call": (START + CALLS.replace("{{ '\\n' + message.content }}", "") + END, "says: 'Let me look.'"),
    "the first tool": ((START + CALLS + END).replace("in tools %}", "in tools[:1] %}"), "leaves out the tool 'clock'"),
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


def two_calls(second: str, content: str = "Let me look."):
    function = {"name": "weather", "arguments": second}
    answer = {"role": "assistant", "content": content, "tool_calls": [CALL, {"type": "function", "function": function}]}
    return normalise({"messages": [TURNS[0], answer], "tools": [TOOL, CLOCK]}, "f:1")


@pytest.mark.parametrize(("template", "what"), INCOMPLETE.values(), ids=INCOMPLETE)
@pytest.mark.parametrize("second", [NESTED, CALL["function"]["arguments"]], ids=["nested", "the same twice"])
def test_a_template_that_writes_a_part_of_the_calls_or_tools_is_refused(tiny, template, what, second):
    for ours in prompts(tiny, template):
        with pytest.raises(Problem) as caught:
            ours.example(two_calls(second))
        assert what in caught.value.what and caught.value.hint


@pytest.mark.parametrize(
    "call",
    [
        "{{ '\\n' + call.function | tojson }}",
        NAMED + ARGUMENTS,
        NAMED + "{% for key, one in call.function.arguments.items() %}<{{ key }}>{{ one if one is string else one | tojson }}{% endfor %}",
        NAMED + "{{ call.function.arguments | tojson(ensure_ascii=true) }}",
    ],
    ids=["JSON", "a name and JSON", "XML", "ASCII"],
)
@pytest.mark.parametrize("content", ["Let me look.", ""])
def test_whole_calls_are_learned_however_a_template_writes_them(tiny, call, content):
    theirs, ours = prompts(tiny, calling(call))
    assert theirs.example(two_calls(NESTED, content)) == ours.example(two_calls(NESTED, content))


def test_a_weight_decides_whether_an_earlier_answer_is_learned(tiny):
    turns = [{"role": role, "content": text} for role, text in (("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b"))]
    (_, ours) = prompts(tiny, PLAIN)
    expected = {None: {LossOn.last_answer: 1, LossOn.every_answer: 2}, 0: dict.fromkeys(LossOn, 1), 1: dict.fromkeys(LossOn, 2)}
    for weight, counts in expected.items():
        row = normalise({"messages": [turns[0], turns[1] | {"weight": weight}, *turns[2:]]}, "f:1")
        for learn in LossOn:
            assert len(ours.example(row, learn).turns) == counts[learn]
