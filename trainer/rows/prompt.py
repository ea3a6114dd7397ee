"""The one place where a row becomes tokens: training, evaluation, prediction and the card all render here.

`chat_template` says what is written, `control_tokens` what in a row's own text is plain text. Prompt and completion are tokenised apart and
concatenated, so no token straddles the border where the loss begins, and the prompt's tokens are those that generation starts from.
"""

import json
import os
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from itertools import accumulate

from conf.problem import Problem
from conf.process.screen import screen
from conf.schema import Data, LossOn, TooLong
from conf.text.visible import visible
from data.readers.turns import Turn
from data.rows import Row
from trainer.rows import chat_template
from trainer.rows.control_tokens import MARK, ControlTokens

TOGETHER = 64  # rows that are tokenised in one call: enough for all cores, and little memory
ROUND_TRIP_ROWS = 1000  # rows whose answers are encoded and decoded
EACH_A_ROW = "make each answer a row of its own, with the turns before it; or learn the last ones only: `data.loss_on=last_answer`"


@dataclass(frozen=True)
class Example:
    """A row in tokens. The completion ends with the stop token."""

    row: Row
    prompt: list[int]
    completion: list[int]
    values: dict[str, range] = field(default_factory=dict)  # of a JSON answer: which completion tokens write each key's value
    earlier: tuple[tuple[int, int], ...] = ()  # spans of earlier answers with loss in the prompt

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def turns(self) -> tuple[tuple[int, int], ...]:
        """The spans of the tokens with loss."""
        return (*self.earlier, (len(self.prompt), len(self)))

    @property
    def learned(self) -> int:
        """How many tokens have loss."""
        return sum(end - start for start, end in self.turns)


@dataclass(frozen=True)
class RenderedRow:
    """A row as the model's template writes it."""

    pieces: list[tuple[str, bool]]  # the prompt's text, cut around earlier answers with loss
    answer: str  # what the model is to write, without the stop token after it
    stop: int


class Prompt:
    """Renders rows for one model."""

    def __init__(self, tokenizer, stops: list[int], data: Data | None = None):
        chat_template.normalize_chat_template(tokenizer, data)
        self.tokenizer = tokenizer
        self.spaced = tokenizer("\nb", add_special_tokens=False)["input_ids"][-1:] != tokenizer("b", add_special_tokens=False)["input_ids"]
        stops = [stop for stop in stops if tokenizer.convert_ids_to_tokens(stop) is not None]  # some name tokens that they do not have
        self.stop = _stop(tokenizer, stops)
        self.stops = sorted({self.stop, *stops})
        self._ends = {tokenizer.convert_ids_to_tokens(stop): stop for stop in self.stops}
        self.frame = chat_template.frame(tokenizer)
        self.opening, self.closing = chat_template.last_tag(self.frame.lead), self._split_at_stop(self.frame.tail, "")[0].strip()
        notes = (_untrained(tokenizer, stops), chat_template.note(tokenizer, self.frame))
        self.warning = "; ".join(note for note in notes if note)
        self.split = data is None or data.split_special_tokens
        self.controls = ControlTokens(tokenizer, chat_template.turn_tokens(tokenizer) | self._ends.keys())
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(self.stop)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def text(self, messages: list[Turn], tools: list[dict] | None = None) -> str:
        """The prompt as the model reads it."""
        return chat_template.generation_prompt(self.tokenizer, messages, tools)

    def tokens(self, messages: list[Turn], tools: list[dict] | None = None) -> list[int]:
        as_text = self.controls.as_text if self.split else lambda value: value
        return self._encoded([self.text(as_text(messages), as_text(tools))])[0]

    def example(self, row: Row, loss_on: LossOn = LossOn.last_answer) -> Example:
        (example,) = self._tokenised([row], loss_on)
        return replace(example, values=self._values(example))

    def examples(self, rows: list[Row], data: Data, loss_on: LossOn = LossOn.last_answer) -> list[Example]:
        """The rows in tokens; none is ever cut. One that is too long stops the run or is left out, as `data.too_long` says."""
        return _within_max_length(self._tokenised(rows, loss_on), data, self.tokenizer.model_max_length)

    def held_out(self, rows: list[Row], data: Data) -> list[Example]:
        """The same for rows to evaluate, with the tokens of each value."""
        fitting = _within_max_length(self._tokenised(rows, LossOn.last_answer), data, self.tokenizer.model_max_length)
        return [replace(example, values=self._values(example)) for example in fitting]

    def notes(self, rows: list[Row]) -> list[str]:
        """Notes about control tokens of the model in these rows, and about answers that its tokenizer changes."""
        return [*self.controls.notes(rows, self.split), *self._round_trip_notes(rows)]

    def _round_trip_notes(self, rows: list[Row]) -> list[str]:
        plain = [row for row in rows[:ROUND_TRIP_ROWS] if not row.calls and not self.controls.pattern.search(row.completion)]
        decoded = ((row, self.tokenizer.decode(self.encode(row.completion), skip_special_tokens=True)) for row in plain)
        changed = [(row, text) for row, text in decoded if text.strip() != row.completion.strip()]
        if not changed:
            return []
        (row, text), rest = changed[0], f" and {len(changed) - 1:,} more" * (len(changed) > 1)
        start = len(os.path.commonprefix([text.strip(), row.completion.strip()]))  # noqa: RUF071 (of texts, not of paths)
        context = slice(max(start - 10, 0), start + 20)
        what = f"{row.completion.strip()[context]!r} of row {row.id}{rest} becomes {text.strip()[context]!r}"
        return [f"the model's tokenizer does not preserve answers: {what}; that is what is learned and scored"]

    def _check_unknown(self, row: Row, completion: list[int]) -> None:
        """A Problem where the answer holds text that the model has no token for."""
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown not in self.stops and unknown in completion and self.tokenizer.unk_token not in row.completion:
            decoded = self.tokenizer.decode(completion[:-1])
            what = f"row {row.id}: the model's tokenizer has no token for a part of the answer, which it would learn as {decoded[:60]!r}"
            raise Problem(what, "take such characters out, or choose another model: `model.id=owner/name`", "bad_data")

    def _tokenised(self, rows: list[Row], loss_on: LossOn) -> list[Example]:
        return [example for start in range(0, len(rows), TOGETHER) for example in self._batch(rows[start : start + TOGETHER], loss_on)]

    def _batch(self, rows: list[Row], loss_on: LossOn) -> list[Example]:
        rendered_rows = [self._render(row, loss_on) for row in rows]
        tokenised = iter(self._tokenise_pieces([[*(piece for piece, _ in rendered.pieces), rendered.answer] for rendered in rendered_rows]))
        examples = []
        for row, rendered in zip(rows, rendered_rows, strict=True):
            prompt, earlier = [], []
            for _, learned in rendered.pieces:
                tokens = next(tokenised)
                if learned:
                    earlier.append((len(prompt), len(prompt) + len(tokens)))
                prompt += tokens
            completion = [*next(tokenised), rendered.stop]
            self._check_unknown(row, completion)
            if rendered.answer != row.completion:  # what the model's text is compared with
                row = replace(row, completion=self.answer(completion)[0])
            examples.append(Example(row, prompt, completion, earlier=tuple(earlier)))
        return examples

    def answer(self, tokens: list[int]) -> tuple[str, bool]:
        """The text of a generated answer, and whether it ended by itself; without what the template writes around it."""
        end = next((index for index, token in enumerate(tokens) if token in self.stops), None)
        answer_tokens = tokens[:end]
        if self.opening and (times := self.tokenizer.decode(answer_tokens).count(self.opening)):
            answer_tokens = answer_tokens[
                bisect_left(
                    range(len(answer_tokens)), times, key=lambda size: self.tokenizer.decode(answer_tokens[:size]).count(self.opening)
                ) :
            ]
        text = self.tokenizer.decode(answer_tokens, skip_special_tokens=True)
        text = text.lstrip() if self.frame.lead else text
        return text.removesuffix(self.closing) if end is not None else text, end is not None

    def _render(self, row: Row, loss_on: LossOn) -> RenderedRow:
        marked = self.controls.row_as_text(row) if self.split else row
        answer = chat_template.answer_turn(marked)
        before, behind = chat_template.prompt_and_answer(self.tokenizer, marked.messages, answer, marked.tools)
        answer_text, stop = self._split_at_stop(behind, answer["content"])
        learned_turns = [
            index
            for index, turn in enumerate(row.messages)
            if turn["role"] == "assistant" and row.weights.get(index, loss_on is LossOn.every_answer)
        ]
        return RenderedRow(self._pieces(marked, before, learned_turns), answer_text, stop)

    def _split_at_stop(self, behind: str, answer: str) -> tuple[str, int]:
        """What the model is to write, and the token at which it stops: the first stop that the template writes after the answer."""
        start = behind.find(answer) + len(answer) if answer in behind else 0
        ends = [(position, token) for text, token in self._ends.items() if (position := behind.find(text, start)) >= 0]
        if not ends:
            return behind.removesuffix(self.frame.tail), self.stop
        position, token = min(ends)
        return behind[:position], token

    def _pieces(self, row: Row, before: str, learned_turns: list[int]) -> list[tuple[str, bool]]:
        """The prompt's text, cut around the answers of these turns, each with its stop token."""
        if not learned_turns:
            return [(before, False)]
        spans, position, pieces = self._spans(row, before, learned_turns), 0, []
        for start, end in spans:
            pieces += [(before[position:start], False), (before[start:end], True)]
            position = end
        return [*pieces, (before[position:], False)]

    def _spans(self, row: Row, before: str, learned_turns: list[int]) -> list[tuple[int, int]]:
        """Where these earlier answers are: where the template marks them, else where generation would have written them."""
        marked = chat_template.assistant_spans(self.tokenizer, [*row.messages, chat_template.answer_turn(row)], row.tools)
        if marked:
            turns = [index for index, turn in enumerate(row.messages) if turn["role"] == "assistant"]
            return [span for index, span in zip(turns, marked, strict=False) if index in learned_turns]
        return [self._span(row, before, index) for index in learned_turns]

    def _span(self, row: Row, whole: str, index: int) -> tuple[int, int]:
        turn = row.messages[index]
        before, behind = chat_template.prompt_and_answer(self.tokenizer, row.messages[:index], turn, row.tools)
        answer_text, stop = self._split_at_stop(behind, turn["content"])
        if not whole.startswith(before + answer_text):
            what = f"row {row.id}: the model's chat template changes an earlier answer"
            raise Problem(what, EACH_A_ROW, "bad_data")
        end, text = len(before) + len(answer_text), self.tokenizer.convert_ids_to_tokens(stop)
        return len(before), end + len(text) * whole.startswith(text, end)

    def encode(self, text: str) -> list[int]:
        """A text in tokens as it is tokenised within others: nothing is put before or after it."""
        if not self.spaced:
            return self._encoded([text])[0]
        return self._encoded(["\n" + text])[0][len(self._encoded(["\n"])[0]) :]

    def _tokenise_pieces(self, rows: list[list[str]]) -> list[list[int]]:
        """The pieces of each row in tokens, row after row."""
        if not self.spaced:
            return self._encoded([piece for pieces in rows for piece in pieces])
        return [tokens for pieces in rows for tokens in self._tokenise_in_order(pieces)]

    def _tokenise_in_order(self, pieces: list[str]) -> list[list[int]]:
        """Each piece as it is tokenised after the ones before it; on its own it would begin with a space that is not in the text."""
        tokenised, before = [], []
        for piece, tokens in zip(pieces, self._encoded(list(accumulate(pieces))), strict=True):
            tokenised.append(tokens[len(before) :] if tokens[: len(before)] == before else self.encode(piece))
            before = before + tokenised[-1]
        return tokenised

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        """Each text in tokens; the texts between marks are tokenised separately."""
        parts = [text.split(MARK) for text in texts]
        if self.spaced and any(len(segments) > 1 for segments in parts):
            firsts = self._encoded([first for first, *_ in parts])
            return [sum(map(self.encode, rest), first) for first, (_, *rest) in zip(firsts, parts, strict=True)]
        tokenised = iter(self.tokenizer([part for segments in parts for part in segments], add_special_tokens=False)["input_ids"])
        return [[token for _ in segments for token in next(tokenised)] for segments in parts]

    def _values(self, example: Example) -> dict[str, range]:
        """Which tokens of a JSON answer write each key's value. Only fast tokenizers map tokens to characters."""
        row = example.row
        if row.output is None or not self.tokenizer.is_fast or self.controls.pattern.search(row.completion):
            return {}
        rendered = self._render(row, LossOn.last_answer)
        before = rendered.pieces[0][0] if self.spaced else ""
        offsets = self.tokenizer(before + rendered.answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        offsets = offsets[len(example.prompt) * self.spaced :]
        begins, values = len(before) + rendered.answer.index(row.completion), {}
        for name, (start, end) in value_spans(row.completion).items():
            inside = [index for index, (first, last) in enumerate(offsets) if first < begins + end and last > begins + start]
            values[name] = range(inside[0], inside[-1] + 1)
        return values


def _within_max_length(examples: list[Example], data: Data, most: int) -> list[Example]:
    """Those that are not too long. `most`: the tokenizer's `model_max_length`, which is huge where it is not known."""
    long = [example for example in examples if len(example) > data.max_length]
    if long and data.too_long is TooLong.refuse:
        what = f"row {long[0].row.id} has {len(long[0])} tokens, more than data.max_length={data.max_length} ({len(long)} such rows)"
        longest, leave_out = max(map(len, long)), "leave such rows out: `data.too_long=drop`"
        hint = leave_out if longest > most else f"set `data.max_length={longest}`, or {leave_out}"
        raise Problem(what, hint, "bad_data")
    if len(long) == len(examples):
        raise Problem(f"every row has more than data.max_length={data.max_length} tokens", "raise `data.max_length`", "bad_data")
    if long:
        screen.note(f"left out: {len(long)} of {len(examples)} rows, of more than {data.max_length} tokens; {first_ids(long)}")
    return [example for example in examples if len(example) <= data.max_length]


def value_spans(text: str) -> dict[str, tuple[int, int]]:
    """The span of each key's value in the text of a JSON object."""
    decoder, spans, position = json.JSONDecoder(), {}, text.index("{") + 1
    while (position := _past(text, position, " \t\r\n,")) < len(text) and text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        start = _past(text, position, " \t\r\n:")
        _, position = decoder.raw_decode(text, start)
        spans[key] = (start, position)
    return spans


def _past(text: str, position: int, skipped: str) -> int:
    while position < len(text) and text[position] in skipped:
        position += 1
    return position


def format_first_row(prompt: Prompt, examples: list[Example], colour: bool = False) -> str:
    """The first row as the model sees it, and the size of all: it shows most mistakes in data."""
    first, lengths = examples[0], sorted(map(len, examples))
    supervised = sum(example.learned for example in examples)
    before, behind = ("\033[32m", "\033[0m") if colour else ("[[", "]]")
    tokens, position, text = first.prompt + first.completion, 0, ""

    def decoded(start: int, end: int) -> str:  # rows and template may come from others
        return visible(prompt.tokenizer.decode(tokens[start:end]))

    for start, end in first.turns:
        text += f"{decoded(position, start)}{before}{decoded(start, end)}{behind}"
        position = end
    marked = "is green" if colour else "stands between [[ and ]]"
    return (
        f"--- the first training row, {visible(first.row.id)}; the loss is on what {marked} ---\n"
        f"{text}\n"
        f"--- {len(lengths)} rows, {sum(lengths)} tokens ({supervised} with loss); a row has {lengths[0]} to {lengths[-1]}, "
        f"half have {lengths[len(lengths) // 2]} or fewer; every answer ends with {prompt.tokenizer.decode([prompt.stop])!r} ---"
    )


def _stop(tokenizer, stops: list[int]) -> int:
    """The token that ends an answer: the one that the template writes after it if the model stops there, else the tokenizer's."""
    candidates = [*tokenizer(chat_template.after_answer(tokenizer), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id, *stops]
    for token in candidates:
        if token in stops:
            return token
    if tokenizer.eos_token_id is not None:
        return tokenizer.eos_token_id
    raise Problem("the model names no token at which it stops", "choose another model: `model.id=owner/name`", "model_unavailable")


def _untrained(tokenizer, stops: list[int]) -> str | None:
    """A note where the template ends an answer with a token at which the model does not stop, as for most base models."""
    behind = chat_template.after_answer(tokenizer).strip()
    tokens = tokenizer(behind, add_special_tokens=False)["input_ids"]
    if not stops or set(tokens) & set(stops) or tokenizer.decode(tokens, skip_special_tokens=True).strip() == behind:
        return None
    return f"the chat template ends an answer with {behind!r}, and the model does not stop there: a base model may never have learned it"


def first_ids(examples: list[Example]) -> str:
    """The first few of these rows, by id."""
    ids = [example.row.id for example in examples[:3]]
    return ", ".join(ids) + (" and so on" if len(examples) > 3 else "")
