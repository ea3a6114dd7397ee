"""Answers with the scaffold filled in: what every row's answer has in common is forced, and the model writes only the values.

    {"cancer_type  ":"breast",  "stage  ":null  ,"gene ...       the first, third and fifth part are filled in

A part ends before the quote that closes its key: many tokenizers have one token for `":"`, and the model must be free to choose
it as it did in training. It saves forward passes, and it helps: a forced answer has all keys in order. So its
scores are reported separately and are never those of a run.
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


def shared_scaffold(examples: list[Example]) -> list[str]:
    """The text before each value in every row's answer, and after the last one."""
    unstructured = next((example for example in examples if example.row.output is None), None)
    if unstructured:
        raise Problem(f"the answer of row {unstructured.row.id} is no JSON object: there is no scaffold to fill in", HINT, "bad_data")
    first, *others = examples
    scaffold = _scaffold(first.row.completion)
    for other in others:
        if _scaffold(other.row.completion) != scaffold:
            what = f"rows {first.row.id} and {other.row.id} have other keys, or other ones first: their answers have no common scaffold"
            raise Problem(what, HINT, "bad_data")
    return scaffold


def _scaffold(answer: str) -> list[str]:
    spans, parts, position = value_spans(answer), [], 0
    for start, end in spans.values():
        parts.append(answer[position:start].rpartition('"')[0])
        position = end
    return [*parts, answer[position:]]


def next_forced_text(text: str, scaffold: list[str]) -> str | None:
    """The forced text after this beginning of an answer; "" where the model writes, None where the answer is complete.

    A model that leaves the scaffold writes on its own until it stops.
    """
    position = 0
    for index, part in enumerate(scaffold):
        written = text[position : position + len(part)]
        if not part.startswith(written):
            return ""
        if written != part:
            return part[len(written) :]
        position += len(part)
        if index == len(scaffold) - 1:
            return None
        end = _end_of_value(text, position)
        if end is None:
            return ""
        position = end
    return None


def _end_of_value(text: str, position: int) -> int | None:
    """Where the value ends whose key's closing quote is at `position`; None where it is not complete."""
    colon = COLON.match(text, position)
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
    """Greedy answers to prompts in tokens: of each the text, and whether it ended, with at most `max_new_tokens` tokens.

    All rows are one batch. Rows with fewer tokens to read are padded on the left, and the mask hides the padding from later tokens.
    """
    device, pad = next(model.parameters()).device, prompt.tokenizer.pad_token_id
    opening = prompt.encode(prompt.frame.lead + scaffold[0])
    written, reads = [list(opening) for _ in prompts], [tokens + opening for tokens in prompts]
    ended = [False] * len(prompts)
    cache, mask = DynamicCache(), torch.zeros(len(prompts), 0, dtype=torch.long, device=device)
    while any(reads):
        width = max(map(len, reads))
        tokens = torch.tensor([[pad] * (width - len(read)) + read for read in reads], device=device)
        unpadded = torch.tensor([[0] * (width - len(read)) + [1] * len(read) for read in reads], device=device)
        mask = torch.cat([mask, unpadded], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -width:]
        with torch.autocast(device.type, torch.bfloat16) if model.dtype is torch.bfloat16 else nullcontext():
            output = model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        chosen = output.logits[:, -1].argmax(-1).tolist()
        for row, token in enumerate(chosen):
            if reads[row]:
                reads[row], ended[row] = _next(prompt, written[row], token, scaffold, max_new_tokens)
    return [(prompt.answer(tokens)[0], done) for tokens, done in zip(written, ended, strict=True)]


def _next(prompt: Prompt, written: list[int], token: int, scaffold: list[str], limit: int) -> tuple[list[int], bool]:
    """Append the model's token and the forced text to an answer; returns the tokens to read next, and whether the answer has ended."""
    if token in prompt.stops:
        return [], True
    written.append(token)
    added = next_forced_text(prompt.answer(written)[0], scaffold)
    if added is None:
        return [], True
    filled = prompt.encode(added) if added else []
    written += filled
    complete = len(written) <= limit and next_forced_text(prompt.answer(written)[0], scaffold) is None
    if complete or len(written) >= limit:
        del written[limit:]
        return [], complete
    return [token, *filled], False
