"""Answers with the scaffold filled in: what stands in every row's answer is put there, and the model writes the values alone.

    {"cancer_type  ":"breast",  "stage  ":null  ,"gene ...       the first, third and fifth part are filled in

A part ends before the quote that closes its key: many tokenizers have one token for `":"`, and the model must be free to choose
it as it did in training. It saves forward passes, and it forgives: an answer that is filled in has all keys, in their order. So
its scores are reported apart and are never those of a run.
"""

import json
import re
from contextlib import nullcontext

import torch
from transformers import DynamicCache

from conf.problem import Problem
from trainer.rows.prompt import Example, Prompt, value_spans

COLON = re.compile(r'"[ \t\r\n]*:[ \t\r\n]*')  # behind a key: its closing quote, and all up to the value
HINT = "score them without: `inv evaluate --split FILE`"


def parts(examples: list[Example]) -> list[str]:
    """What stands before each value in every row's answer, and behind the last one."""
    unstructured = next((example for example in examples if example.row.output is None), None)
    if unstructured:
        raise Problem(f"the answer of row {unstructured.row.id} is no JSON object: there is no scaffold to fill in", HINT, "bad_data")
    first, *others = examples
    wanted = _parts(first.row.completion)
    for other in others:
        if _parts(other.row.completion) != wanted:
            what = f"rows {first.row.id} and {other.row.id} have other keys, or other ones first: their answers have no common scaffold"
            raise Problem(what, HINT, "bad_data")
    return wanted


def _parts(answer: str) -> list[str]:
    spans, found, place = value_spans(answer), [], 0
    for start, end in spans.values():
        found.append(answer[place:start].rpartition('"')[0])
        place = end
    return [*found, answer[place:]]


def missing(text: str, scaffold: list[str]) -> str | None:
    """What the scaffold puts behind an answer that has begun so; "" where the model is to write, None where the answer is complete.

    A model that leaves the scaffold writes on by itself, until it stops.
    """
    place = 0
    for index, part in enumerate(scaffold):
        written = text[place : place + len(part)]
        if not part.startswith(written):
            return ""
        if written != part:
            return part[len(written) :]
        place += len(part)
        if index == len(scaffold) - 1:
            return None
        end = _end_of_value(text, place)
        if end is None:
            return ""
        place = end
    return None


def _end_of_value(text: str, place: int) -> int | None:
    """Where the value ends whose key's closing quote stands at `place`; None where it has not ended."""
    colon = COLON.match(text, place)
    if not colon:
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(text, colon.end())
    except (ValueError, RecursionError):
        return None
    open_ended = isinstance(value, (int, float)) and not isinstance(value, bool) and end == len(text)  # 1 may become 12
    return None if open_ended else end


@torch.inference_mode()
def answers(model, prompt: Prompt, prompts: list[list[int]], max_new_tokens: int, scaffold: list[str]) -> list[tuple[str, bool]]:
    """Greedy answers to prompts in tokens: of each the text, and whether it ended. No more than `max_new_tokens` are put into one.

    All rows go through the model side by side. What one row has to read may be longer than what another has: the others are
    padded on the left, and the mask hides the padding from every later token.
    """
    device, pad = next(model.parameters()).device, prompt.tokenizer.pad_token_id
    opening = prompt.encode(prompt.frame.lead + scaffold[0])
    given, reads = [list(opening) for _ in prompts], [tokens + opening for tokens in prompts]
    ended = [False] * len(prompts)
    cache, mask = DynamicCache(), torch.zeros(len(prompts), 0, dtype=torch.long, device=device)
    while any(reads):
        width = max(map(len, reads))
        tokens = torch.tensor([[pad] * (width - len(read)) + read for read in reads], device=device)
        seen = torch.tensor([[0] * (width - len(read)) + [1] * len(read) for read in reads], device=device)
        mask = torch.cat([mask, seen], dim=1)
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -width:]
        with torch.autocast(device.type, torch.bfloat16) if model.dtype is torch.bfloat16 else nullcontext():
            output = model(
                input_ids=tokens, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        chosen = output.logits[:, -1].argmax(-1).tolist()
        for row, token in enumerate(chosen):
            if reads[row]:
                reads[row], ended[row] = _next(prompt, given[row], token, scaffold, max_new_tokens)
    return [(prompt.answer(tokens)[0], done) for tokens, done in zip(given, ended, strict=True)]


def _next(prompt: Prompt, given: list[int], token: int, scaffold: list[str], limit: int) -> tuple[list[int], bool]:
    """Put the model's choice and what the scaffold adds behind an answer: what the model is to read next, and whether it has ended."""
    if token in prompt.stops:
        return [], True
    given.append(token)
    added = missing(prompt.answer(given)[0], scaffold)
    if added is None:
        return [], True
    filled = prompt.encode(added) if added else []
    given += filled
    complete = len(given) <= limit and missing(prompt.answer(given)[0], scaffold) is None
    if complete or len(given) >= limit:
        del given[limit:]
        return [], complete
    return [token, *filled], False
