"""What an eval step measures on held-out rows, from one forward pass in packs: no answer is generated.

    loss         mean over all answer tokens
    token_match  share of the answer tokens that the model puts first, given the right tokens before them
    fields       the same of each field: share of rows in which every token of its value is put first
    field_match  mean over `fields`

A match is teacher-forced: the model never continues from a mistake of its own, so it is cheap and optimistic. It shows whether
training still helps; the scores of a run are those of generated answers.
"""

from collections.abc import Callable

import torch
from peft import PeftModel
from torch.nn import functional

from trainer.model import model
from trainer.model.packing import on_device, packs
from trainer.rows.prompt import Example


@torch.no_grad()
def measure(tuned: PeftModel, examples: list[Example], pack_tokens: int | None, fields: list[str] | None, beat: Callable[[], None]) -> dict:
    """The figures above; without `fields` only those of tokens. At most the logits of one pack are in memory at once."""
    tuned.eval()
    total, matches = torch.zeros((), device=tuned.device), []
    for pack in packs(examples, pack_tokens):
        logits, labels = model.logits(tuned, pack), on_device(pack.labels, tuned.device)
        total += functional.cross_entropy(logits.float(), labels, reduction="sum")
        matches += [
            (row, match.tolist()) for row, match in zip(pack.rows, _split_by_row(logits.argmax(-1) == labels, pack.rows), strict=True)
        ]
        beat()
    tokens = sum(len(example.completion) for example in examples)
    figures = {"loss": total.item() / tokens, "token_match": sum(sum(match) for _, match in matches) / tokens}
    return figures | (_field_match(matches, fields) if fields else {})


def _split_by_row(flags: torch.Tensor, rows: list[Example]) -> tuple[torch.Tensor, ...]:
    """The flags of each row's answer tokens."""
    return flags.split([len(row.completion) for row in rows])


def _field_match(matches: list[tuple[Example, list[bool]]], fields: list[str]) -> dict:
    shares = {}
    for name in fields:
        matched = [all(match[index] for index in row.values[name]) for row, match in matches if name in row.values]
        shares[name] = sum(matched) / len(matched) if matched else None
    measured = [share for share in shares.values() if share is not None]
    return {"fields": shares, "field_match": sum(measured) / len(measured) if measured else None}
