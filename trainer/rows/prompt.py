"""The one place where a row becomes tokens: training, evaluation, prediction and the card all render here.

`template` says what is written, `control` what in a row's own text is no control token. Prompt and completion are tokenised apart and
concatenated, so no token straddles the border where the loss begins, and the prompt's tokens are those that generation starts from.
"""

import json
import os
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from itertools import accumulate

from conf.problem import Problem
from conf.schema import Data, LossOn, TooLong
from conf.text.visible import visible
from data.readers.turns import Turn
from data.rows import Row
from trainer.rows import chat_template
from trainer.rows.control_tokens import MARK, Controls

TOGETHER = 64  # rows that are tokenised in one call: all cores take part, and little is held besides the tokens
LOOKED = 1000  # rows whose answers are read back
EACH_A_ROW = "make each answer a row of its own, with the turns before it; or learn the last ones only: `data.loss_on=last_answer`"


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


@dataclass(frozen=True)
class Written:
    """A row as the model's template writes it."""

    pieces: list[tuple[str, bool]]  # the prompt's text, cut around earlier answers that are learned
    said: str  # what the model is to write, without the stop token behind it
    stop: int


class Prompt:
    """Renders rows for one model."""

    def __init__(self, tokenizer, stops: list[int], data: Data | None = None):
        chat_template.settle(tokenizer, data)
        self.tokenizer = tokenizer
        self.spaced = tokenizer("\nb", add_special_tokens=False)["input_ids"][-1:] != tokenizer("b", add_special_tokens=False)["input_ids"]
        stops = [stop for stop in stops if tokenizer.convert_ids_to_tokens(stop) is not None]  # some name tokens that they do not have
        self.stop = _stop(tokenizer, stops)
        self.stops = sorted({self.stop, *stops})
        self._ends = {tokenizer.convert_ids_to_tokens(stop): stop for stop in self.stops}
        self.frame = chat_template.frame(tokenizer)
        self.opening, self.closing = chat_template.last_tag(self.frame.lead), self._ended(self.frame.tail, "")[0].strip()
        notes = (_untrained(tokenizer, stops), chat_template.note(tokenizer, self.frame))
        self.warning = "; ".join(note for note in notes if note)
        self.split = data is None or data.split_special_tokens
        self.controls = Controls(tokenizer, chat_template.turn_tokens(tokenizer) | self._ends.keys())
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(self.stop)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def text(self, messages: list[Turn], tools: list[dict] | None = None) -> str:
        """The prompt as the model reads it."""
        return chat_template.prompt(self.tokenizer, messages, tools)

    def tokens(self, messages: list[Turn], tools: list[dict] | None = None) -> list[int]:
        mine = self.controls.as_text if self.split else lambda value: value
        return self._encoded([self.text(mine(messages), mine(tools))])[0]

    def example(self, row: Row, loss_on: LossOn = LossOn.last_answer) -> Example:
        (example,) = self._made([row], loss_on)
        return replace(example, values=self._values(example))

    def examples(self, rows: list[Row], data: Data, loss_on: LossOn = LossOn.last_answer) -> list[Example]:
        """The rows in tokens; none is ever cut. One that is too long stops the run or is left out, as `data.too_long` says."""
        return _fitting(self._made(rows, loss_on), data, self.tokenizer.model_max_length)

    def held_out(self, rows: list[Row], data: Data) -> list[Example]:
        """The same of rows to measure: each knows which tokens write which value."""
        fitting = _fitting(self._made(rows, LossOn.last_answer), data, self.tokenizer.model_max_length)
        return [replace(example, values=self._values(example)) for example in fitting]

    def notes(self, rows: list[Row]) -> list[str]:
        """What to say about control tokens of the model in these rows, and about answers that its tokenizer gives back otherwise."""
        return [*self.controls.notes(rows, self.split), *self._altered(rows)]

    def _altered(self, rows: list[Row]) -> list[str]:
        plain = [row for row in rows[:LOOKED] if not row.calls and not self.controls.pattern.search(row.completion)]
        back = ((row, self.tokenizer.decode(self.encode(row.completion), skip_special_tokens=True)) for row in plain)
        found = [(row, text) for row, text in back if text.strip() != row.completion.strip()]
        if not found:
            return []
        (row, text), rest = found[0], f" and {len(found) - 1:,} more" * (len(found) > 1)
        place = len(os.path.commonprefix([text.strip(), row.completion.strip()]))  # noqa: RUF071 (of texts, not of paths)
        here = slice(max(place - 10, 0), place + 20)
        made = f"{row.completion.strip()[here]!r} of row {row.id}{rest} comes back as {text.strip()[here]!r}"
        return [f"the model's tokenizer does not give answers back as they are written: {made}; that is what is learned and scored"]

    def _unwritten(self, row: Row, completion: list[int]) -> None:
        """Nothing, or a Problem where the answer holds what the model has no token for."""
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown not in self.stops and unknown in completion and self.tokenizer.unk_token not in row.completion:
            said = self.tokenizer.decode(completion[:-1])
            what = f"row {row.id}: the model's tokenizer has no token for a part of the answer, which it would learn as {said[:60]!r}"
            raise Problem(what, "take such characters out, or choose another model: `model.id=owner/name`", "bad_data")

    def _made(self, rows: list[Row], loss_on: LossOn) -> list[Example]:
        return [example for start in range(0, len(rows), TOGETHER) for example in self._batch(rows[start : start + TOGETHER], loss_on)]

    def _batch(self, rows: list[Row], loss_on: LossOn) -> list[Example]:
        written = [self._written(row, loss_on) for row in rows]
        found = iter(self._together([[*(piece for piece, _ in each.pieces), each.said] for each in written]))
        made = []
        for row, each in zip(rows, written, strict=True):
            prompt, earlier = [], []
            for _, learned in each.pieces:
                tokens = next(found)
                if learned:
                    earlier.append((len(prompt), len(prompt) + len(tokens)))
                prompt += tokens
            completion = [*next(found), each.stop]
            self._unwritten(row, completion)
            if each.said != row.completion:  # what the model's text is compared with
                row = replace(row, completion=self.answer(completion)[0])
            made.append(Example(row, prompt, completion, earlier=tuple(earlier)))
        return made

    def answer(self, tokens: list[int]) -> tuple[str, bool]:
        """The text of a generated answer, and whether it ended by itself; what the template writes around one is no part of it."""
        end = next((index for index, token in enumerate(tokens) if token in self.stops), None)
        said = tokens[:end]
        if self.opening and (times := self.tokenizer.decode(said).count(self.opening)):
            said = said[bisect_left(range(len(said)), times, key=lambda size: self.tokenizer.decode(said[:size]).count(self.opening)) :]
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        text = text.lstrip() if self.frame.lead else text
        return text.removesuffix(self.closing) if end is not None else text, end is not None

    def _written(self, row: Row, loss_on: LossOn) -> Written:
        marked = self.controls.row_as_text(row) if self.split else row
        answer = chat_template.answer_turn(marked)
        before, behind = chat_template.finished(self.tokenizer, marked.messages, answer, marked.tools)
        said, stop = self._ended(behind, answer["content"])
        wanted = [
            place
            for place, turn in enumerate(row.messages)
            if turn["role"] == "assistant" and row.weights.get(place, loss_on is LossOn.every_answer)
        ]
        return Written(self._pieces(marked, before, wanted), said, stop)

    def _ended(self, behind: str, answer: str) -> tuple[str, int]:
        """What the model is to write, and the token at which it stops: the first stop that the template puts behind the answer."""
        start = behind.find(answer) + len(answer) if answer in behind else 0
        ends = [(place, token) for text, token in self._ends.items() if (place := behind.find(text, start)) >= 0]
        if not ends:
            return behind.removesuffix(self.frame.tail), self.stop
        place, token = min(ends)
        return behind[:place], token

    def _pieces(self, row: Row, before: str, wanted: list[int]) -> list[tuple[str, bool]]:
        """The prompt's text, cut around the answers of these turns, each with its stop token."""
        if not wanted:
            return [(before, False)]
        spans, place, pieces = self._spans(row, before, wanted), 0, []
        for start, end in spans:
            pieces += [(before[place:start], False), (before[start:end], True)]
            place = end
        return [*pieces, (before[place:], False)]

    def _spans(self, row: Row, before: str, wanted: list[int]) -> list[tuple[int, int]]:
        """Where these earlier answers stand: as the template itself marks them, else where the model would have given them."""
        marked = chat_template.generated(self.tokenizer, [*row.messages, chat_template.answer_turn(row)], row.tools)
        if marked:
            turns = [place for place, turn in enumerate(row.messages) if turn["role"] == "assistant"]
            return [span for place, span in zip(turns, marked, strict=False) if place in wanted]
        return [self._span(row, before, place) for place in wanted]

    def _span(self, row: Row, whole: str, place: int) -> tuple[int, int]:
        turn = row.messages[place]
        before, behind = chat_template.finished(self.tokenizer, row.messages[:place], turn, row.tools)
        said, stop = self._ended(behind, turn["content"])
        if not whole.startswith(before + said):
            what = f"row {row.id}: the model's chat template writes an earlier answer otherwise than the model gave it"
            raise Problem(what, EACH_A_ROW, "bad_data")
        end, text = len(before) + len(said), self.tokenizer.convert_ids_to_tokens(stop)
        return len(before), end + len(text) * whole.startswith(text, end)

    def encode(self, text: str) -> list[int]:
        """A text in tokens as it is tokenised within others: nothing is put before or behind it."""
        if not self.spaced:
            return self._encoded([text])[0]
        return self._encoded(["\n" + text])[0][len(self._encoded(["\n"])[0]) :]

    def _together(self, rows: list[list[str]]) -> list[list[int]]:
        """The pieces of each row in tokens, row after row."""
        if not self.spaced:
            return self._encoded([piece for pieces in rows for piece in pieces])
        return [tokens for pieces in rows for tokens in self._behind(pieces)]

    def _behind(self, pieces: list[str]) -> list[list[int]]:
        """Each piece as it is tokenised behind those before it; on its own it would begin with a space that nobody wrote."""
        found, before = [], []
        for piece, tokens in zip(pieces, self._encoded(list(accumulate(pieces))), strict=True):
            found.append(tokens[len(before) :] if tokens[: len(before)] == before else self.encode(piece))
            before = before + found[-1]
        return found

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        """Each text in tokens; what a mark parts is tokenised apart."""
        parts = [text.split(MARK) for text in texts]
        if self.spaced and any(len(each) > 1 for each in parts):
            firsts = self._encoded([first for first, *_ in parts])
            return [sum(map(self.encode, rest), first) for first, (_, *rest) in zip(firsts, parts, strict=True)]
        found = iter(self.tokenizer([part for each in parts for part in each], add_special_tokens=False)["input_ids"])
        return [[token for _ in each for token in next(found)] for each in parts]

    def _values(self, example: Example) -> dict[str, range]:
        """Which tokens of a JSON answer write each key's value. Only fast tokenizers tell which characters a token stands for."""
        row = example.row
        if row.output is None or not self.tokenizer.is_fast or self.controls.pattern.search(row.completion):
            return {}
        written = self._written(row, LossOn.last_answer)
        before = written.pieces[0][0] if self.spaced else ""
        places = self.tokenizer(before + written.said, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        places = places[len(example.prompt) * self.spaced :]
        begins, found = len(before) + written.said.index(row.completion), {}
        for name, (start, end) in value_spans(row.completion).items():
            inside = [index for index, (first, last) in enumerate(places) if first < begins + end and last > begins + start]
            found[name] = range(inside[0], inside[-1] + 1)
        return found


def _fitting(made: list[Example], data: Data, most: int) -> list[Example]:
    """Those that are not too long. `most`: tokens that the model reads, as its tokenizer states them, or a number past all reason."""
    long = [example for example in made if len(example) > data.max_length]
    if long and data.too_long is TooLong.refuse:
        what = f"row {long[0].row.id} has {len(long[0])} tokens, more than data.max_length={data.max_length} ({len(long)} such rows)"
        longest, leave_out = max(map(len, long)), "leave such rows out: `data.too_long=drop`"
        hint = leave_out if longest > most else f"set `data.max_length={longest}`, or {leave_out}"
        raise Problem(what, hint, "bad_data")
    if len(long) == len(made):
        raise Problem(f"every row has more than data.max_length={data.max_length} tokens", "raise `data.max_length`", "bad_data")
    if long:
        print(f"left out: {len(long)} of {len(made)} rows, of more than {data.max_length} tokens; {named(long)}", flush=True)
    return [example for example in made if len(example) <= data.max_length]


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


def show(prompt: Prompt, examples: list[Example], colour: bool = False) -> str:
    """The first row as the model sees it, and the size of all: a glance at this finds most mistakes in data."""
    first, lengths = examples[0], sorted(map(len, examples))
    supervised = sum(example.learned for example in examples)
    before, behind = ("\033[32m", "\033[0m") if colour else ("[[", "]]")
    tokens, place, text = first.prompt + first.completion, 0, ""

    def said(start: int, end: int) -> str:  # rows and template may be a stranger's
        return visible(prompt.tokenizer.decode(tokens[start:end]))

    for start, end in first.turns:
        text += f"{said(place, start)}{before}{said(start, end)}{behind}"
        place = end
    marked = "is green" if colour else "stands between [[ and ]]"
    return (
        f"--- the first training row, {visible(first.row.id)}; the loss is on what {marked} ---\n"
        f"{text}\n"
        f"--- {len(lengths)} rows, {sum(lengths)} tokens ({supervised} with loss); a row has {lengths[0]} to {lengths[-1]}, "
        f"half have {lengths[len(lengths) // 2]} or fewer; every answer ends with {prompt.tokenizer.decode([prompt.stop])!r} ---"
    )


def _stop(tokenizer, stops: list[int]) -> int:
    """The token that ends an answer: the one the template puts behind it if the model stops there, else the tokenizer's."""
    candidates = [*tokenizer(chat_template.behind(tokenizer), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id, *stops]
    for token in candidates:
        if token in stops:
            return token
    if tokenizer.eos_token_id is not None:
        return tokenizer.eos_token_id
    raise Problem("the model names no token at which it stops", "choose another model: `model.id=owner/name`", "model_unavailable")


def _untrained(tokenizer, stops: list[int]) -> str | None:
    """What to say where the template ends an answer with a token of its own at which the model does not stop: most base models."""
    behind = chat_template.behind(tokenizer).strip()
    tokens = tokenizer(behind, add_special_tokens=False)["input_ids"]
    if not stops or set(tokens) & set(stops) or tokenizer.decode(tokens, skip_special_tokens=True).strip() == behind:
        return None
    return f"the chat template ends an answer with {behind!r}, and the model does not stop there: a base model may never have learned it"


def named(examples: list[Example]) -> str:
    """The first few of these rows, by id."""
    ids = [example.row.id for example in examples[:3]]
    return ", ".join(ids) + (" and so on" if len(examples) > 3 else "")
