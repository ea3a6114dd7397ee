"""Rows of one optimizer step laid end to end, in as few packs as fit: without padding, and nothing is computed twice.

A pack begins with what all its rows begin with, the task's instruction, once; then comes the rest of each row. Positions and
attention (see `attention`) continue from the shared beginning into each rest, so a row gives the same as alone, and
autograd sums the gradients of all rows in their shared beginning.
"""

from dataclasses import dataclass

import torch

from trainer.rows.prompt import Example
from trainer.rows.sampler import common_prefix_length


@dataclass(frozen=True)
class Pack:
    tokens: torch.Tensor  # 1 x length
    positions: torch.Tensor  # 1 x length
    lengths: list[int]  # of the shared beginning (may be 0), then of each rest; on the host: attention must not ask the device
    supervised: torch.Tensor  # indices whose next token has loss
    labels: torch.Tensor  # those next tokens
    rows: list[Example]  # whose tokens these are, in this order


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; the host does not wait for a copy to a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def packs(examples: list[Example], limit: int | None) -> list[Pack]:
    """All rows, in packs of at most `limit` tokens, filled with the longest rows first.

    A longer row is a pack alone; without a limit every row is.
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
    shared = common_prefix_length(rows)
    tokens, positions, supervised, labels, lengths = rows[0].prompt[:shared], list(range(shared)), [], [], [shared]
    for row in rows:
        rest = (row.prompt + row.completion)[shared:]
        first = len(tokens) - shared  # where the row's first token is, or would be
        for start, end in row.turns:
            supervised += range(first + start - 1, first + end - 1)  # a position predicts the next token
            labels += (row.prompt + row.completion)[start:end]
        tokens = tokens + rest
        positions += range(shared, len(row))
        lengths.append(len(rest))
    return Pack(torch.tensor([tokens]), torch.tensor([positions]), lengths, torch.tensor(supervised), torch.tensor(labels), rows)
