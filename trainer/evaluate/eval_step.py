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
from trainer.model.distributed import ALONE, ProcessGroup
from trainer.model.packing import on_device, packs
from trainer.rows.prompt import Example


@torch.no_grad()
def measure(
    tuned: PeftModel,
    examples: list[Example],
    pack_tokens: int | None,
    fields: list[str] | None,
    beat: Callable[[], None],
    processes: ProcessGroup = ALONE,
) -> dict:
    """The figures above; without `fields` only those of tokens. At most the logits of one pack are in memory at once.

    Each process takes some of the packs, and all get the figures, which are those that one process gets.
    """
    tuned.eval()
    every, results = packs(examples, pack_tokens), []
    for pack in processes.share(every):
        logits, labels = model.logits(tuned, pack), on_device(pack.labels, tuned.device)
        loss = functional.cross_entropy(logits.float(), labels, reduction="sum").item()
        results.append((loss, [match.tolist() for match in _split_by_row(logits.argmax(-1) == labels, pack.rows)]))
        beat()
    for pack in every[:1] * processes.idle(len(every)):
        model.logits(tuned, pack)
    results = processes.collect(results)
    matches = [row_match for pack, (_, found) in zip(every, results, strict=True) for row_match in zip(pack.rows, found, strict=True)]
    tokens = sum(len(example.completion) for example in examples)
    figures = {"loss": sum(loss for loss, _ in results) / tokens, "token_match": sum(sum(match) for _, match in matches) / tokens}
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
