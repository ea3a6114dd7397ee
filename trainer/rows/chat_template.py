"""What a model's chat template writes: the prompt that generation starts from, and after it the finished answer.

The answer is not appended to the prompt here: the template writes the finished conversation, which must begin with the prompt, and
the rest has loss. So an answer is where serving has it: after a closed thought, in the channel for final answers, after a space.
 A template whose generation prompt differs from the beginning of a finished answer is refused.

`normalize_chat_template` closes once what a template leaves open. The result is saved with the adapter, so that the adapter's tokenizer
renders the same bytes everywhere:

  - a base model without a template gets a plain one: paragraphs, no roles, and it stops with the end token it was trained with
  - the user's own template and `data.chat_template_kwargs` become a part of it
  - one BOS at the start if the tokenizer would put one there itself, never two
  - a template that writes today's date gets a fixed one
"""

import json
import re
from collections import Counter
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
CALLS_ALONE = "take the text out of turns that call tools; or give a template that writes it: `data.chat_template=FILE.jinja`"
OWN_TEMPLATE = "give a template of your own: `data.chat_template=FILE.jinja`; docs/TEMPLATES.md shows how one is mended"
THINKING = ({"enable_thinking": False}, {"enable_thinking": True}, {"thinking": False}, {"thinking": True})  # usual names of one switch
TAG = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")  # `</think>`, `<|message|>`, `[/INST]`
# `{% generation %}`, around what the model writes. A lone surrogate marks it: no text of a row or of a template can hold one.
GENERATION, MARK = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}"), "\udffe"


@dataclass(frozen=True)
class Frame:
    """The template's text around an answer."""

    lead: str  # from where generation starts
    tail: str  # up to the stop token, or to the end where there is none


def normalize_chat_template(tokenizer, data: Data | None = None) -> None:
    """Complete the tokenizer's chat template; a complete one stays as it is."""
    stored = tokenizer.chat_template
    template = (data and data.chat_template) or (stored.get("default") if isinstance(stored, dict) else stored) or PLAIN
    if "strftime_now" in template or "date_string" in template:
        template = DATE * (DATE not in template) + template
    template = _with_kwargs(template, data.chat_template_kwargs if data else {})
    tokenizer.chat_template = template
    if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] and not _sample(tokenizer, answered=True).startswith(tokenizer.bos_token):
        tokenizer.chat_template = "{{ bos_token }}" + template


def _with_kwargs(template: str, options: dict) -> str:
    """The template with the user's values of its variables; a row's own tools come before those of all rows."""
    values = "".join(f"{{% set {name} = {name} or {value!r} %}}" for name, value in options.items() if name == "tools")
    values += "".join(f"{{% set {name} = {value!r} %}}" for name, value in options.items() if name != "tools")
    if values in template:
        return template
    try:
        variables = template_sandbox.variables(template)
    except TemplateError as error:
        raise Problem(f"the chat template is no Jinja template: {error}", "give another: `data.chat_template=FILE.jinja`") from error
    for name in options:
        if name not in variables:
            close = get_close_matches(name, variables, n=1)
            what = f"data.chat_template_kwargs has `{name}`, which the model's chat template does not read"
            raise Problem(what, f"did you mean `{close[0]}`?" if close else f"it reads {', '.join(sorted(variables))}")
    return values + template


def render(
    tokenizer, messages: list[Turn], tools: list[dict] | None = None, add_generation_prompt: bool = False, template: str | None = None
) -> str:
    """The conversation as the template writes it; with `add_generation_prompt` it ends where the model begins."""
    special_tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    values = {
        "messages": messages,
        "tools": tools or None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **special_tokens,
    }
    try:
        return template_sandbox.render(template or tokenizer.chat_template, values)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        what = f"the model's chat template refuses a prompt with the roles {roles}: {error}"
        hint = "put a system turn's text into the first user turn" if roles.startswith("system") and "tool" not in roles else OTHER_MODEL
        raise Problem(what, hint, "bad_data") from error


def generation_prompt(tokenizer, messages: list[Turn], tools: list[dict] | None = None) -> str:
    """What generation starts from; a Problem where the template leaves out a part of it."""
    text = render(tokenizer, messages, tools, add_generation_prompt=True)
    for message in messages:  # an earlier answer may be written without its thoughts
        _check_written(text, message, [] if message["role"] == "assistant" else [message["content"].strip()])
    if tools and text == render(tokenizer, messages, None, add_generation_prompt=True):
        raise Problem("the model's chat template does not write `tools`", OTHER_MODEL, "bad_data")
    if unnamed := next((name for tool in tools or [] if (name := str(tool["function"]["name"])) not in text), None):
        raise Problem(f"the model's chat template leaves out the tool {unnamed!r}", OTHER_MODEL, "bad_data")
    return text


def prompt_and_answer(tokenizer, messages: list[Turn], answer: Turn, tools: list[dict] | None = None) -> tuple[str, str]:
    """What generation starts from, and what the template writes behind it for a finished answer."""
    before, whole = generation_prompt(tokenizer, messages, tools), render(tokenizer, [*messages, answer], tools)
    if not whole.startswith(before):
        raise _generation_differs(tokenizer, before, whole)
    behind = whole[len(before) :]
    _check_written(behind, answer, [answer["content"].rpartition("</think>")[2].strip()])
    return before, behind


def _generation_differs(tokenizer, before: str, whole: str) -> Problem:
    start = next((index for index, (one, other) in enumerate(zip(before, whole, strict=False)) if one != other), len(whole))
    start = max(start - 10, 0)  # some context that both have
    what = f"the model's chat template starts generation with {before[start:]!r} where a finished answer has {whole[start : start + 40]!r}"
    fitting = [f"`{kwargs_override(options)}`" for options in THINKING if _starts_generation(tokenizer, options)]
    return Problem(f"{what}: nothing that is trained would be what is served", " or ".join(fitting) or OWN_TEMPLATE, "bad_data")


def kwargs_override(options: dict) -> str:
    """The override that gives the template these values."""
    values = ", ".join(f"{name}: {json.dumps(value)}" for name, value in options.items())
    return f"'data.chat_template_kwargs={{{values}}}'"


def _starts_generation(tokenizer, options: dict) -> bool:
    """Whether with these values a finished answer begins with what generation starts from."""
    try:
        template = _with_kwargs(tokenizer.chat_template, options)
        return _sample(tokenizer, True, template).startswith(_sample(tokenizer, False, template))
    except Problem:
        return False


def frame(tokenizer) -> Frame:
    """What the template writes around an answer; empty where its generation prompt differs, for which each row is refused."""
    before, whole = _sample(tokenizer, answered=False), _sample(tokenizer, answered=True)
    lead, _, tail = whole[len(before) :].partition(ANSWER)
    return Frame(lead, tail) if whole.startswith(before) else Frame("", "")


def after_answer(tokenizer) -> str:
    """What the template writes after an answer."""
    return _sample(tokenizer, answered=True).rpartition(ANSWER)[2]


def turn_tokens(tokenizer) -> set[str]:
    """Added tokens with which the template writes a question: a row that contains them could forge a turn."""
    text = _sample(tokenizer, answered=False)
    return {token.content for token in tokenizer.added_tokens_decoder.values() if token.content in text and "think" not in token.content}


def last_tag(lead: str) -> str | None:
    """The tag after which the answer itself begins, such as `</think>`."""
    return TAG.findall(lead)[-1] if TAG.search(lead) else None


def note(tokenizer, answer_frame: Frame) -> str | None:
    """A note where the template writes something before each answer."""
    if not answer_frame.lead.strip():
        return None
    what = f"the chat template writes {answer_frame.lead!r} before each answer: it is learned with the answer, and taken off what is scored"
    without = [options for options in THINKING if _starts_generation(tokenizer, options) and _lead(tokenizer, options) == ""]
    return f"{what}; `{kwargs_override(without[0])}` puts it into the prompt" if without else what


def _lead(tokenizer, options: dict) -> str:
    template = _with_kwargs(tokenizer.chat_template, options)
    return _sample(tokenizer, True, template)[len(_sample(tokenizer, False, template)) :].partition(ANSWER)[0]


def _sample(tokenizer, answered: bool, template: str | None = None) -> str:
    turns: list[Turn] = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        return render(tokenizer, turns if answered else turns[:1], add_generation_prompt=not answered, template=template)
    except Problem as error:
        if error.__cause__ is None:  # rendering takes too much time or memory
            raise
        what = f"the model's chat template does not render a question and its answer: {error.__cause__}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable") from error


def assistant_spans(tokenizer, messages: list[Turn], tools: list[dict] | None = None) -> list[tuple[int, int]] | None:
    """The spans of the assistant's turns by the template's own `{% generation %}` marks; None where it has none, or others."""
    template = tokenizer.chat_template
    # A block before and after, so that white space is trimmed as around the original mark.
    marked = GENERATION.sub(lambda tag: f"{{%{tag[1]} set _ = 0 %}}{{{{ '{MARK}' }}}}{{% set _ = 0 {tag[2]}%}}", template)
    if marked == template:
        return None
    *parts, last = render(tokenizer, messages, tools, template=marked).split(MARK)
    answers = sum(message["role"] == "assistant" for message in messages)
    if "".join([*parts, last]) != render(tokenizer, messages, tools) or len(parts) != 2 * answers:
        return None
    ends = [sum(map(len, parts[: count + 1])) for count in range(len(parts))]
    return list(zip(ends[::2], ends[1::2], strict=True))


def answer_turn(row: Row) -> Turn:
    return row.calls[0] if row.calls else {"role": "assistant", "content": row.completion}


def _check_written(text: str, message: Turn, parts: list[str]) -> None:
    """A Problem where the template leaves out one of these parts of a turn, or a part of its calls."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    for arguments in [call["arguments"] for call in calls if call["arguments"]]:
        if str(arguments) in text:
            what = f"the model's chat template writes a call's arguments as Python, not as JSON: {str(arguments)[:60]}"
            raise Problem(what, OWN_TEMPLATE, "bad_data")
    for part, count in Counter([*parts, *(part for call in calls for part in [call["name"], *_texts(call["arguments"])])]).items():
        if max(text.count(written) for written in (part, *(json.dumps(part, ensure_ascii=only)[1:-1] for only in (True, False)))) < count:
            what = f"the model's chat template leaves out what a turn of `{message['role']}` says: {part[:60]!r}"
            hint = CALLS_ALONE if calls and part in parts else OTHER_MODEL if message["role"] == "tool" or calls else OWN_TEMPLATE
            raise Problem(what, hint, "bad_data")


def _texts(value: object) -> list[str]:
    """The keys and texts of a call's arguments, which every template writes in one way; numbers and null have several."""
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *_texts(item)]]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value.strip()] if isinstance(value, str) else []
