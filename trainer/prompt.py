"""The one place where a row becomes text and tokens: training, evaluation, prediction and the card all render here.

The tokenizer's own chat template renders the prompt. What a template leaves open is closed once, in `settle`, and saved with
the adapter, so whoever loads the adapter's tokenizer renders the same bytes:

  - a base model without a template gets a plain one: paragraphs, no roles, and it stops with the end token it was trained with
  - one BOS at the start if the tokenizer would put one there itself, never two
  - a template that writes today's date gets a fixed one

Prompt and completion are tokenised apart and concatenated, so no token straddles the border where the loss begins.
"""

import json
from dataclasses import dataclass, field, replace

from jinja2 import TemplateError

from conf.problem import Problem
from conf.schema import Data, Learn, TooLong
from data.rows import Row
from data.turns import Turn

PLAIN = "{% for message in messages %}{{ message['content'] + '\\n\\n' }}{% endfor %}"
# Llama's templates take `date_string` or ask `strftime_now`: a prompt must be the same tomorrow.
DATE = "{% set date_string = '26 Jul 2024' %}{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
ANSWER = "an answer"
OTHER_MODEL = "train a model whose template knows tools: `model.id=owner/name`; or write them into the text of the turns"
TOGETHER = 64  # rows that are tokenised in one call: all cores take part, and little is held besides the tokens


@dataclass(frozen=True)
class Example:
    """A row in tokens. The completion ends with the stop token."""

    row: Row
    prompt: list[int]
    completion: list[int]
    values: dict[str, range] = field(default_factory=dict)  # of a JSON answer: which completion tokens write each key's value
    earlier: tuple[tuple[int, int], ...] = ()  # from where to where earlier answers that have loss stand in the prompt

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def turns(self) -> tuple[tuple[int, int], ...]:
        """From where to where the tokens with loss stand."""
        return (*self.earlier, (len(self.prompt), len(self)))

    @property
    def learned(self) -> int:
        """How many tokens have loss."""
        return sum(end - start for start, end in self.turns)


class Prompt:
    """Renders rows for one model."""

    def __init__(self, tokenizer, stops: list[int]):
        settle(tokenizer)
        self.tokenizer = tokenizer
        self.stop = _stop(tokenizer, stops)
        self.warning = _untrained(tokenizer, stops)
        self.stops = sorted({self.stop, *stops})
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(self.stop)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def text(self, messages: list[Turn], tools: list[dict] | None = None) -> str:
        """The prompt as the model reads it."""
        written = self._written(messages, tools, True)
        _read_by_template(written, messages)
        if tools and written == self._written(messages, None, True):
            raise Problem("the model's chat template does not write `tools`", OTHER_MODEL, "bad_data")
        return written

    def _written(self, messages: list[Turn], tools: list[dict] | None, asked: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False, add_generation_prompt=asked)
        except (TemplateError, TypeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            what = f"the model's chat template refuses a prompt with the roles {roles}: {error}"
            hint = (
                "put a system turn's text into the first user turn" if roles.startswith("system") and "tool" not in roles else OTHER_MODEL
            )
            raise Problem(what, hint, "bad_data") from error

    def tokens(self, messages: list[Turn], tools: list[dict] | None = None) -> list[int]:
        return [token for text, *_ in self._pieces(messages, tools) for token in self.encode(text)]

    def example(self, row: Row, learn: Learn = Learn.last_answer) -> Example:
        (example,) = self._made([row], learn)
        return replace(example, values=self._values(example.row))

    def examples(self, rows: list[Row], data: Data, learn: Learn = Learn.last_answer) -> list[Example]:
        """The rows in tokens; none is ever cut. One that is too long stops the run or is left out, as `data.too_long` says."""
        return _fitting(self._made(rows, learn), data)

    def held_out(self, rows: list[Row], data: Data) -> list[Example]:
        """The same of rows to measure: each knows which tokens write which value."""
        return [replace(example, values=self._values(example.row)) for example in _fitting(self._made(rows, Learn.last_answer), data)]

    def _made(self, rows: list[Row], learn: Learn) -> list[Example]:
        return [example for start in range(0, len(rows), TOGETHER) for example in self._batch(rows[start : start + TOGETHER], learn)]

    def _batch(self, rows: list[Row], learn: Learn) -> list[Example]:
        rows = [self._with_calls(row) for row in rows]
        pieces = [self._pieces(row.messages, row.tools) for row in rows]
        texts = [[*(text for text, *_ in each), _text(row)] for each, row in zip(pieces, rows, strict=True)]
        found, made = iter(self._encoded([text for each in texts for text in each])), []
        for row, each in zip(rows, pieces, strict=True):
            prompt, earlier = [], []
            for _, place in each:
                tokens = next(found)
                if place is not None and row.weights.get(place, learn is Learn.every_answer):
                    earlier.append((len(prompt), len(prompt) + len(tokens)))
                prompt += tokens
            made.append(Example(row, prompt, [*next(found), self.stop], earlier=tuple(earlier)))
        return made

    def answer(self, tokens: list[int]) -> tuple[str, bool]:
        """The text of a generated answer, and whether it ended by itself."""
        end = next((index for index, token in enumerate(tokens) if token in self.stops), None)
        return self.tokenizer.decode(tokens[:end], skip_special_tokens=True), end is not None

    def _with_calls(self, row: Row) -> Row:
        """The row; an answer that calls tools is what the template writes for it, as the model's text will be read."""
        if not row.calls:
            return row
        whole, before = self._written([*row.messages, *row.calls], row.tools, False), self.text(row.messages, row.tools)
        text = self._called(whole, before)
        _read_by_template(text, row.calls)
        return replace(row, completion=self.tokenizer.decode(self.encode(text), skip_special_tokens=True), calls=[{"text": text}])

    def _called(self, whole: str, before: str) -> str:
        """An answer with tool calls as the template writes it behind the prompt."""
        if not whole.startswith(before):
            raise Problem("the model's chat template writes a tool call otherwise than where the model makes it", OTHER_MODEL, "bad_data")
        text, stop, _ = whole[len(before) :].partition(self.tokenizer.decode([self.stop]))
        return text if stop else text.rstrip("\n")

    def _pieces(self, messages: list[Turn], tools: list[dict] | None = None) -> list[tuple[str, int | None]]:
        """The prompt's text, cut around the answers that earlier turns gave, each with its stop token and its turn's place. They are
        tokenised apart, too."""
        whole, place, pieces = self.text(messages, tools), 0, []
        stop = self.tokenizer.decode([self.stop])
        for index, turn in enumerate(messages):
            if turn["role"] == "assistant":
                before = self.text(messages[:index], tools)
                start = len(before)
                answer = self._answer(whole, before, turn)
                answer += stop if whole[start + len(answer) :].startswith(stop) else ""
                pieces += [(whole[place:start], None), (answer, index)]
                place = start + len(answer)
        return [*pieces, (whole[place:], None)]

    def _answer(self, whole: str, before: str, turn: Turn) -> str:
        """An earlier answer as the template writes it, at the place where the model gave it."""
        if turn.get("tool_calls"):
            return self._called(whole, before)
        content = turn["content"]
        written = next((text for text in (content, content.strip()) if whole.startswith(text, len(before))), None)
        if written is None or not whole.startswith(before):
            what = "the model's chat template writes an earlier answer otherwise than the model gave it"
            raise Problem(what, "make each answer a row of its own, with the turns before it", "bad_data")
        return written

    def encode(self, text: str) -> list[int]:
        """A piece of text in tokens, nothing put before or behind it."""
        return self._encoded([text])[0]

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def _values(self, row: Row) -> dict[str, range]:
        if row.output is None or not self.tokenizer.is_fast:  # only fast tokenizers tell which characters a token stands for
            return {}
        places = self.tokenizer(row.completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        found = {}
        for name, (start, end) in value_spans(row.completion).items():
            inside = [index for index, (first, last) in enumerate(places) if first < end and last > start]
            found[name] = range(inside[0], inside[-1] + 1)
        return found


def _text(row: Row) -> str:
    """What the model is to write."""
    return row.calls[0]["text"] if row.calls else row.completion


def _fitting(made: list[Example], data: Data) -> list[Example]:
    long = [example for example in made if len(example) > data.max_length]
    if long and data.too_long is TooLong.refuse:
        what = f"row {long[0].row.id} has {len(long[0])} tokens, more than data.max_length={data.max_length} ({len(long)} such rows)"
        raise Problem(what, f"set `data.max_length={max(map(len, long))}`, or leave such rows out: `data.too_long=drop`", "bad_data")
    if len(long) == len(made):
        raise Problem(f"every row has more than data.max_length={data.max_length} tokens", "raise `data.max_length`", "bad_data")
    if long:
        print(f"left out: {len(long)} of {len(made)} rows, of more than {data.max_length} tokens; {named(long)}", flush=True)
    return [example for example in made if len(example) <= data.max_length]


def _read_by_template(text: str, messages: list[Turn]) -> None:
    """Nothing, or a Problem where the template leaves out a tool's call or its result."""
    for message in messages:
        names = [call["function"]["name"] for call in message.get("tool_calls", ())]
        said = [message["content"].strip()] if message["role"] == "tool" else []
        for part in (*names, *said):
            if part not in text and json.dumps(part)[1:-1] not in text and json.dumps(part, ensure_ascii=False)[1:-1] not in text:
                what = f"the model's chat template leaves out what a turn of `{message['role']}` says: {part[:60]!r}"
                raise Problem(what, OTHER_MODEL, "bad_data")


def value_spans(text: str) -> dict[str, tuple[int, int]]:
    """From where to where each key's value stands in the text of a JSON object."""
    decoder, spans, place = json.JSONDecoder(), {}, text.index("{") + 1
    while (place := _past(text, place, " \t\r\n,")) < len(text) and text[place] != "}":
        key, place = decoder.raw_decode(text, place)
        start = _past(text, place, " \t\r\n:")
        _, place = decoder.raw_decode(text, start)
        spans[key] = (start, place)
    return spans


def _past(text: str, place: int, skipped: str) -> int:
    while place < len(text) and text[place] in skipped:
        place += 1
    return place


def settle(tokenizer) -> None:
    """Close what the tokenizer's chat template leaves open; a settled one stays as it is."""
    named = tokenizer.chat_template
    template = (named.get("default") if isinstance(named, dict) else named) or PLAIN
    if ("strftime_now" in template or "date_string" in template) and not template.startswith(DATE):
        template = DATE + template
    tokenizer.chat_template = template
    if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] and not _starts_with_bos(tokenizer):
        tokenizer.chat_template = "{{ bos_token }}" + template


def show(prompt: Prompt, examples: list[Example], colour: bool = False) -> str:
    """The first row as the model sees it, and the size of all: a glance at this finds most mistakes in data."""
    first, lengths = examples[0], sorted(map(len, examples))
    supervised = sum(example.learned for example in examples)
    before, behind = ("\033[32m", "\033[0m") if colour else ("[[", "]]")
    tokens, place, text = first.prompt + first.completion, 0, ""
    for start, end in first.turns:
        text += f"{prompt.tokenizer.decode(tokens[place:start])}{before}{prompt.tokenizer.decode(tokens[start:end])}{behind}"
        place = end
    return (
        f"--- the first training row, {first.row.id}; the loss is on what {'is green' if colour else 'stands between [[ and ]]'} ---\n"
        f"{text}\n"
        f"--- {len(lengths)} rows, {sum(lengths)} tokens ({supervised} with loss); a row has {lengths[0]} to {lengths[-1]}, "
        f"half have {lengths[len(lengths) // 2]} or fewer; every answer ends with {prompt.tokenizer.decode([prompt.stop])!r} ---"
        + (f"\nnote     {prompt.warning}" if prompt.warning else "")
    )


def _starts_with_bos(tokenizer) -> bool:
    return _rendered(tokenizer, {"role": "user", "content": "a"}).startswith(tokenizer.bos_token)


def _stop(tokenizer, stops: list[int]) -> int:
    """The token that ends an answer: the one the template puts behind it if the model stops there, else the tokenizer's."""
    candidates = [*tokenizer(_behind(tokenizer), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id, *stops]
    for token in candidates:
        if token in stops:
            return token
    if tokenizer.eos_token_id is not None:
        return tokenizer.eos_token_id
    raise Problem("the model names no token at which it stops", "choose another model: `model.id=owner/name`", "model_unavailable")


def _untrained(tokenizer, stops: list[int]) -> str | None:
    """What to say where the template ends an answer with a token of its own at which the model does not stop: most base models."""
    behind = _behind(tokenizer).strip()
    tokens = tokenizer(behind, add_special_tokens=False)["input_ids"]
    if not stops or set(tokens) & set(stops) or tokenizer.decode(tokens, skip_special_tokens=True).strip() == behind:
        return None
    return f"the chat template ends an answer with {behind!r}, and the model does not stop there: a base model may never have learned it"


def _behind(tokenizer) -> str:
    """What the template puts behind an answer."""
    return _rendered(tokenizer, {"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}).rpartition(ANSWER)[2]


def _rendered(tokenizer, *turns: dict[str, str]) -> str:
    try:
        return tokenizer.apply_chat_template(list(turns), tokenize=False)
    except (TemplateError, TypeError) as error:
        what = f"the model's chat template does not render a question and its answer: {error}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable") from error


def named(examples: list[Example]) -> str:
    """The first few of these rows, by id."""
    ids = [example.row.id for example in examples[:3]]
    return ", ".join(ids) + (" and so on" if len(examples) > 3 else "")
