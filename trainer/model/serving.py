"""Checks before the first step, on the run's own model: training and transformers' own serving agree.

For some rows of the run, transformers renders and tokenises the prompt and the finished conversation: its prompt has the trained tokens,
and prompt and answer are the conversation. Then `generate` is forced through an answer: it must emit each of its tokens, and stop at
the last one.
"""

import time
from contextlib import nullcontext

import torch
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList

from conf.problem import Problem
from trainer.model import model
from trainer.model.model import BaseModel
from trainer.rows import chat_template
from trainer.rows.prompt import Example, Prompt

ROWS, SEEN, WRITTEN, MORE = 8, 16, 8, 4  # rows that are checked; tokens before an answer's end, of that end, and after it


def verify_generation(tuned: PeftModel, base: BaseModel, prompt: Prompt, examples: list[Example]) -> tuple[str, float]:
    """What was checked, in words, and the seconds it took; a Problem where training and serving differ."""
    started = time.monotonic()
    rows = examples[:: -(-len(examples) // ROWS)]
    for example in rows:
        _check_rendering(prompt, example)
    _check_stop(tuned, base, prompt, min(rows, key=len))
    stop = prompt.tokenizer.decode([prompt.stop])
    summary = f"prompts and answers of {len(rows)} rows are what transformers renders, and generation stops at {stop!r}"
    return summary, time.monotonic() - started


def _check_rendering(prompt: Prompt, example: Example) -> None:
    tokenizer, row = prompt.tokenizer, example.row
    if prompt.controls.notes([row], prompt.split):
        return  # its control tokens are text here, and transformers reads them as control tokens
    prompt_tokens = tokenizer.apply_chat_template(row.messages, tools=row.tools or None, add_generation_prompt=True)["input_ids"]
    if (example.prompt if not example.earlier else prompt.tokens(row.messages, row.tools)) != prompt_tokens:
        raise _problem(row.id, "the tokens that generation starts from are not those that are trained")
    whole = chat_template.render(tokenizer, [*row.messages, chat_template.answer_turn(row)], row.tools)
    written = tokenizer.decode(tokenizer(whole, add_special_tokens=False)["input_ids"])
    if not written.startswith(tokenizer.decode(example.prompt + example.completion[:-1])):
        raise _problem(row.id, "prompt and answer are not what the template writes for the finished conversation")


def _problem(name: str, what: str) -> Problem:
    return Problem(f"row {name}: {what}", "choose another model: `model.id=owner/name`, or give a template: `data.chat_template=FILE`")


@torch.no_grad()  # what inference mode gathers of a model that is cut up could not be trained with later
def _check_stop(tuned: PeftModel, base: BaseModel, prompt: Prompt, example: Example) -> None:
    generation_config, training = base.model.generation_config, tuned.training
    answer_end = example.completion[-WRITTEN:]
    before = (example.prompt + example.completion[:-WRITTEN])[-SEEN:]
    forced = LogitsProcessorList([_ForcedTokens(len(before), answer_end)])
    try:
        model.use_greedy_decoding(base, prompt.stops)
        tuned.eval()
        low = base.model.dtype is torch.bfloat16
        with torch.autocast(tuned.device.type, torch.bfloat16) if low else nullcontext():
            tokens = torch.tensor([before], device=tuned.device)
            output = tuned.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=len(answer_end) + MORE, logits_processor=forced
            )
    finally:
        base.model.generation_config = generation_config
        tuned.train(training)
    generated = output[0, len(before) :].tolist()
    if generated != answer_end:
        what = f"led through the answer {prompt.tokenizer.decode(answer_end)!r}, generation gives {prompt.tokenizer.decode(generated)!r}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable")


class _ForcedTokens(LogitsProcessor):
    """Allows only these tokens, in this order, over and over."""

    def __init__(self, start: int, tokens: list[int]):
        self.start, self.tokens = start, tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self.tokens[(input_ids.shape[1] - self.start) % len(self.tokens)]
        return torch.full_like(scores, float("-inf")).index_fill_(1, torch.tensor([token], device=scores.device), 0.0)
