"""What a model's chat template writes: the prompt that generation starts from, and behind it the finished answer.

The answer is not put behind the prompt by us: the template writes the finished conversation, which must begin with the prompt, and
what follows is learned. So an answer stands where serving has it: behind a thought that is closed, in the channel for final answers,
behind a space. A template that starts generation otherwise than it writes a finished answer is refused.

What a template leaves open is closed once, in `settle`, and saved with the adapter, so whoever loads the adapter's tokenizer renders the
same bytes:

  - a base model without a template gets a plain one: paragraphs, no roles, and it stops with the end token it was trained with
  - the user's own template and `data.chat_template_kwargs` become a part of it
  - one BOS at the start if the tokenizer would put one there itself, never two
  - a template that writes today's date gets a fixed one
"""

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches

from jinja2 import TemplateError

from conf.problem import Problem
from conf.schema import Data
from data.readers.turns import Turn
from data.rows import Row
from trainer.rows import template_sandbox

PLAIN = "{% for message in messages %}{{ message['content'] + '\\n\\n' }}{% endfor %}"
# Llama's templates take `date_string` or ask `strftime_now`: a prompt must be the same tomorrow.
DATE = "{% set date_string = '26 Jul 2024' %}{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
QUESTION, ANSWER = "a", "an answer"
OTHER_MODEL = "train a model whose template knows tools: `model.id=owner/name`; or write them into the text of the turns"
OWN = "give a template of your own: `data.chat_template=FILE.jinja`; docs/TEMPLATES.md shows how one is mended"
THINKING = ({"enable_thinking": False}, {"enable_thinking": True}, {"thinking": False}, {"thinking": True})  # usual names of one switch
TAG = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")  # `</think>`, `<|message|>`, `[/INST]`
# `{% generation %}`, around what the model writes. A lone surrogate marks it: no text of a row or of a template can hold one.
GENERATION, MARK = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}"), "\udffe"


@dataclass(frozen=True)
class Frame:
    """What stands around the text of an answer."""

    lead: str  # from where generation starts
    tail: str  # up to the stop token, or to the end where there is none


def settle(tokenizer, data: Data | None = None) -> None:
    """Close what the tokenizer's chat template leaves open; a settled one stays as it is."""
    named = tokenizer.chat_template
    template = (data and data.chat_template) or (named.get("default") if isinstance(named, dict) else named) or PLAIN
    if "strftime_now" in template or "date_string" in template:
        template = DATE * (DATE not in template) + template
    template = _with(template, data.chat_template_kwargs if data else {})
    tokenizer.chat_template = template
    if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] and not _sample(tokenizer, answered=True).startswith(tokenizer.bos_token):
        tokenizer.chat_template = "{{ bos_token }}" + template


def _with(template: str, options: dict) -> str:
    """The template with the values that the user gives what it reads; a row's own tools come before those of all rows."""
    values = "".join(f"{{% set {name} = {name} or {value!r} %}}" for name, value in options.items() if name == "tools")
    values += "".join(f"{{% set {name} = {value!r} %}}" for name, value in options.items() if name != "tools")
    if values in template:
        return template
    try:
        known = template_sandbox.reads(template)
    except TemplateError as error:
        raise Problem(f"the chat template is no Jinja template: {error}", "give another: `data.chat_template=FILE.jinja`") from error
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            what = f"data.chat_template_kwargs has `{name}`, which the model's chat template does not read"
            raise Problem(what, f"did you mean `{close[0]}`?" if close else f"it reads {', '.join(sorted(known))}")
    return values + template


def written(tokenizer, messages: list[Turn], tools: list[dict] | None = None, asked: bool = False, template: str | None = None) -> str:
    """The conversation as the template writes it; `asked` for an answer, it ends where the model begins."""
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    values = {"messages": messages, "tools": tools or None, "documents": None, "add_generation_prompt": asked, **named}
    try:
        return template_sandbox.render(template or tokenizer.chat_template, values)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        what = f"the model's chat template refuses a prompt with the roles {roles}: {error}"
        hint = "put a system turn's text into the first user turn" if roles.startswith("system") and "tool" not in roles else OTHER_MODEL
        raise Problem(what, hint, "bad_data") from error


def prompt(tokenizer, messages: list[Turn], tools: list[dict] | None = None) -> str:
    """What generation starts from; a Problem where the template leaves out a part of it."""
    text = written(tokenizer, messages, tools, asked=True)
    for message in messages:  # an earlier answer may be written without what was thought before it
        _unsaid(text, message, _calls(message) if message["role"] == "assistant" else [message["content"].strip()])
    if tools and text == written(tokenizer, messages, None, asked=True):
        raise Problem("the model's chat template does not write `tools`", OTHER_MODEL, "bad_data")
    return text


def finished(tokenizer, messages: list[Turn], answer: Turn, tools: list[dict] | None = None) -> tuple[str, str]:
    """What generation starts from, and what the template writes behind it for a finished answer."""
    before, whole = prompt(tokenizer, messages, tools), written(tokenizer, [*messages, answer], tools)
    if not whole.startswith(before):
        raise _apart(tokenizer, before, whole)
    behind = whole[len(before) :]
    _unsaid(behind, answer, _calls(answer) or [answer["content"].rpartition("</think>")[2].strip()])
    return before, behind


def _apart(tokenizer, before: str, whole: str) -> Problem:
    start = next((place for place, (one, other) in enumerate(zip(before, whole, strict=False)) if one != other), len(whole))
    start = max(start - 10, 0)  # a little of what both have
    what = f"the model's chat template starts generation with {before[start:]!r} where a finished answer has {whole[start : start + 40]!r}"
    fitting = [f"`{asked(options)}`" for options in THINKING if _begins(tokenizer, options)]
    return Problem(f"{what}: nothing that is trained would be what is served", " or ".join(fitting) or OWN, "bad_data")


def asked(options: dict) -> str:
    """The override that gives the template these values."""
    values = ", ".join(f"{name}: {json.dumps(value)}" for name, value in options.items())
    return f"'data.chat_template_kwargs={{{values}}}'"


def _begins(tokenizer, options: dict) -> bool:
    """Whether with these values a finished answer begins with what generation starts from."""
    try:
        template = _with(tokenizer.chat_template, options)
        return _sample(tokenizer, True, template).startswith(_sample(tokenizer, False, template))
    except Problem:
        return False


def frame(tokenizer) -> Frame:
    """What the template writes around an answer; nothing where it starts generation otherwise, which each row is refused for."""
    before, whole = _sample(tokenizer, answered=False), _sample(tokenizer, answered=True)
    lead, _, tail = whole[len(before) :].partition(ANSWER)
    return Frame(lead, tail) if whole.startswith(before) else Frame("", "")


def behind(tokenizer) -> str:
    """What the template puts behind an answer."""
    return _sample(tokenizer, answered=True).rpartition(ANSWER)[2]


def turn_tokens(tokenizer) -> set[str]:
    """Added tokens with which the template writes a question: whoever may write them can forge a turn."""
    text = _sample(tokenizer, answered=False)
    return {token.content for token in tokenizer.added_tokens_decoder.values() if token.content in text and "think" not in token.content}


def last_tag(lead: str) -> str | None:
    """What says that the answer itself begins, such as `</think>`."""
    return TAG.findall(lead)[-1] if TAG.search(lead) else None


def note(tokenizer, found: Frame) -> str | None:
    """What to say where something of the template stands before each answer."""
    if not found.lead.strip():
        return None
    what = f"the chat template writes {found.lead!r} before each answer: it is learned with the answer, and taken off what is scored"
    without = [options for options in THINKING if _begins(tokenizer, options) and _lead(tokenizer, options) == ""]
    return f"{what}; `{asked(without[0])}` puts it into the prompt" if without else what


def _lead(tokenizer, options: dict) -> str:
    template = _with(tokenizer.chat_template, options)
    return _sample(tokenizer, True, template)[len(_sample(tokenizer, False, template)) :].partition(ANSWER)[0]


def _sample(tokenizer, answered: bool, template: str | None = None) -> str:
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        return written(tokenizer, turns if answered else turns[:1], asked=not answered, template=template)
    except Problem as error:
        if error.__cause__ is None:  # it takes too much to render anything
            raise
        what = f"the model's chat template does not render a question and its answer: {error.__cause__}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable") from error


def generated(tokenizer, messages: list[Turn], tools: list[dict] | None = None) -> list[tuple[int, int]] | None:
    """From where to where the template's own marks say that the model wrote, turn by turn; None where it has none, or other ones."""
    template = tokenizer.chat_template
    # A block before and behind, so that white space is cut as it is around the mark that stood here.
    marked = GENERATION.sub(lambda tag: f"{{%{tag[1]} set _ = 0 %}}{{{{ '{MARK}' }}}}{{% set _ = 0 {tag[2]}%}}", template)
    if marked == template:
        return None
    *parts, last = written(tokenizer, messages, tools, template=marked).split(MARK)
    answers = sum(message["role"] == "assistant" for message in messages)
    if "".join([*parts, last]) != written(tokenizer, messages, tools) or len(parts) != 2 * answers:
        return None
    ends = [sum(map(len, parts[: count + 1])) for count in range(len(parts))]
    return list(zip(ends[::2], ends[1::2], strict=True))


def answer_turn(row: Row) -> Turn:
    return row.calls[0] if row.calls else {"role": "assistant", "content": row.completion}


def _unsaid(text: str, message: Turn, parts: list[str]) -> None:
    """Nothing, or a Problem where the template leaves out a part of what a turn says."""
    for part in parts:
        if part not in text and not any(json.dumps(part, ensure_ascii=ascii_only)[1:-1] in text for ascii_only in (True, False)):
            what = f"the model's chat template leaves out what a turn of `{message['role']}` says: {part[:60]!r}"
            raise Problem(what, OTHER_MODEL if message["role"] == "tool" or message.get("tool_calls") else OWN, "bad_data")


def _calls(message: Turn) -> list[str]:
    return [call["function"]["name"] for call in message.get("tool_calls", ())]
