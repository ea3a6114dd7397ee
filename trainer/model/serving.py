"""Before the first step: what is trained is what serving does, on the very model and by transformers' own way through it.

Of some rows of the run, transformers renders and tokenises the prompt and the finished conversation by itself: the prompt's tokens are
those that are trained behind, and prompt and answer read as the conversation does. Then the model's `generate` is led through an answer:
it must take every token of it, and stop at the last one.
"""

import time
from contextlib import nullcontext

import torch
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList

from conf.problem import Problem
from trainer.model import model
from trainer.model.model import Base
from trainer.rows import chat_template
from trainer.rows.prompt import Example, Prompt

ROWS, SEEN, WRITTEN, MORE = 8, 16, 8, 4  # rows that are looked at; tokens before an answer's end, of that end, and behind it


def prove(tuned: PeftModel, base: Base, prompt: Prompt, examples: list[Example]) -> tuple[str, float]:
    """What was shown, in words, and how long it took; a Problem where training and serving differ."""
    begun = time.monotonic()
    rows = examples[:: -(-len(examples) // ROWS)]
    for example in rows:
        _rendered(prompt, example)
    _stops(tuned, base, prompt, min(rows, key=len))
    stop = prompt.tokenizer.decode([prompt.stop])
    told = f"prompts and answers of {len(rows)} rows are what transformers renders, and generation stops at {stop!r}"
    return told, time.monotonic() - begun


def _rendered(prompt: Prompt, example: Example) -> None:
    tokenizer, row = prompt.tokenizer, example.row
    if prompt.controls.notes([row], prompt.split):
        return  # its control tokens are text here, and transformers reads them as control tokens
    asked = tokenizer.apply_chat_template(row.messages, tools=row.tools or None, add_generation_prompt=True)["input_ids"]
    if (example.prompt if not example.earlier else prompt.tokens(row.messages, row.tools)) != asked:
        raise _differs(row.id, "the tokens that generation starts from are not those that are trained")
    whole = chat_template.written(tokenizer, [*row.messages, chat_template.answer_turn(row)], row.tools)
    written = tokenizer.decode(tokenizer(whole, add_special_tokens=False)["input_ids"])
    if not written.startswith(tokenizer.decode(example.prompt + example.completion[:-1])):
        raise _differs(row.id, "prompt and answer are not what the template writes for the finished conversation")


def _differs(name: str, what: str) -> Problem:
    return Problem(f"row {name}: {what}", "choose another model: `model.id=owner/name`, or give a template: `data.chat_template=FILE`")


@torch.inference_mode()
def _stops(tuned: PeftModel, base: Base, prompt: Prompt, example: Example) -> None:
    own, training = base.model.generation_config, tuned.training
    wanted = example.completion[-WRITTEN:]
    before = (example.prompt + example.completion[:-WRITTEN])[-SEEN:]
    led = LogitsProcessorList([_Led(len(before), wanted)])
    try:
        model.greedy(base, prompt.stops)
        tuned.eval()
        low = base.model.dtype is torch.bfloat16
        with torch.autocast(tuned.device.type, torch.bfloat16) if low else nullcontext():
            tokens = torch.tensor([before], device=tuned.device)
            found = tuned.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=len(wanted) + MORE, logits_processor=led
            )
    finally:
        base.model.generation_config = own
        tuned.train(training)
    made = found[0, len(before) :].tolist()
    if made != wanted:
        what = f"led through the answer {prompt.tokenizer.decode(wanted)!r}, generation gives {prompt.tokenizer.decode(made)!r}"
        raise Problem(what, "choose another model: `model.id=owner/name`", "model_unavailable")


class _Led(LogitsProcessor):
    """Lets nothing be said but these tokens, over and over."""

    def __init__(self, start: int, tokens: list[int]):
        self.start, self.tokens = start, tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self.tokens[(input_ids.shape[1] - self.start) % len(self.tokens)]
        return torch.full_like(scores, float("-inf")).index_fill_(1, torch.tensor([token], device=scores.device), 0.0)
