"""Rows of one optimizer step laid end to end, in as few packs as fit, so that nothing is computed twice and no padding at all.

A pack begins with what all its rows begin with, the task's instruction, once; then comes the rest of each row. Positions and
attention (see `attention`) go from the shared beginning straight into each rest, so a row gives what it gives alone, and
autograd adds up the gradients that all rows send into the beginning they share.
"""

from dataclasses import dataclass

import torch

from trainer.rows.prompt import Example
from trainer.rows.sampler import beginning


@dataclass(frozen=True)
class Pack:
    tokens: torch.Tensor  # 1 x length
    positions: torch.Tensor  # 1 x length
    lengths: list[int]  # of the shared beginning (may be 0), then of each rest; on the host: attention must not ask the device
    supervised: torch.Tensor  # indices whose next token is learned
    labels: torch.Tensor  # those next tokens
    rows: list[Example]  # whose tokens these are, in this order


def packs(examples: list[Example], limit: int | None) -> list[Pack]:
    """All rows, in packs that stand for at most `limit` tokens. Longest rows find their place first.

    A row that is longer is a pack alone; without a limit every row is.
    """
    limit, bins = limit or 0, []
    for example in sorted(examples, key=len, reverse=True):
        room = next((rows for rows in bins if sum(map(len, rows)) + len(example) <= limit), None)
        if room is None:
            bins.append([example])
        else:
            room.append(example)
    return [_pack(rows) for rows in bins]


def _pack(rows: list[Example]) -> Pack:
    shared = beginning(rows)
    tokens, positions, supervised, labels, lengths = rows[0].prompt[:shared], list(range(shared)), [], [], [shared]
    for row in rows:
        rest = (row.prompt + row.completion)[shared:]
        first = len(tokens) - shared  # where the row's first token stands, or would stand
        for start, end in row.turns:
            supervised += range(first + start - 1, first + end - 1)  # a position predicts the token behind it
            labels += (row.prompt + row.completion)[start:end]
        tokens = tokens + rest
        positions += range(shared, len(row))
        lengths.append(len(rest))
    return Pack(torch.tensor([tokens]), torch.tensor([positions]), lengths, torch.tensor(supervised), torch.tensor(labels), rows)
