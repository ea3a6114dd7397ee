"""The processes that train together: this one alone, or as many as `accelerate launch` started.

Each takes its share of a step's rows and computes their gradients; the sum over all processes is the step's gradient, so every
process ends the step with the same adapter. Only the first one writes: checkpoints, record, adapter, scores.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from trainer.rows.prompt import Example

if TYPE_CHECKING:
    from torch import Tensor  # taken from where it is used: a process that only writes the record needs no torch

PATIENCE = timedelta(hours=2)  # how long one process waits for the others: the first one may be scoring or saving


class Team:
    """Who this process is among those that train together."""

    def __init__(self):
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.index = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            from accelerate import PartialState  # picks NCCL or gloo, and this process's own device

            PartialState(timeout=PATIENCE)

    @property
    def first(self) -> bool:
        return self.index == 0

    def share(self, rows: list[Example]) -> list[Example]:
        """This process's rows of a step. The longest first, each to whoever has the fewest tokens: all finish at about the same time."""
        shares: list[list[Example]] = [[] for _ in range(self.size)]
        tokens = [0] * self.size
        for row in sorted(rows, key=len, reverse=True):
            least = tokens.index(min(tokens))
            shares[least].append(row)
            tokens[least] += len(row)
        return shares[self.index]

    def add_up(self, values: list["Tensor"]) -> None:
        """Make each value the sum of what all processes have for it; they travel as one message."""
        if self.size == 1:
            return
        import torch

        together = torch.cat([value.reshape(-1).float() for value in values])
        torch.distributed.all_reduce(together)
        for value, total in zip(values, together.split([value.numel() for value in values]), strict=True):
            value.copy_(total.view_as(value))

    def agree(self, value):
        """The first process's value, for all."""
        if self.size == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


class Listener:
    """Stands for the record in every process but the first: takes all that is told, keeps nothing."""

    folder = None

    def event(self, kind: str, **values) -> None:
        pass

    def beat(self) -> None:
        pass

    def phase(self, phase: str, *words: str | None) -> None:
        pass
