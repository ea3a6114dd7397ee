"""The processes that train together: this one alone, or as many as `accelerate launch` started.

Each takes its share of a step's rows and computes their gradients; the sum over all processes is the step's gradient, so every
process ends the step with the same adapter. Only the main process writes: checkpoints, record, adapter, scores.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from trainer.rows.prompt import Example

if TYPE_CHECKING:
    from torch import Tensor  # imported where it is used: a process that only writes the record needs no torch

TIMEOUT = timedelta(hours=2)  # how long one process waits for the others: the main one may be scoring or saving


class ProcessGroup:
    """This process among those that train together."""

    def __init__(self):
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.world_size > 1:
            from accelerate import PartialState  # picks NCCL or gloo, and this process's own device

            PartialState(timeout=TIMEOUT)

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def shard(self, rows: list[Example]) -> list[Example]:
        """This process's rows of a step. The longest first, each to the process with the fewest tokens, so that all finish together."""
        shares: list[list[Example]] = [[] for _ in range(self.world_size)]
        tokens = [0] * self.world_size
        for row in sorted(rows, key=len, reverse=True):
            least = tokens.index(min(tokens))
            shares[least].append(row)
            tokens[least] += len(row)
        return shares[self.rank]

    def all_reduce(self, values: list["Tensor"]) -> None:
        """Make each value its sum over all processes, in one message."""
        if self.world_size == 1:
            return
        import torch

        together = torch.cat([value.reshape(-1).float() for value in values])
        torch.distributed.all_reduce(together)
        for value, total in zip(values, together.split([value.numel() for value in values]), strict=True):
            value.copy_(total.view_as(value))

    def broadcast(self, value):
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


class NullRecord:
    """The record of every process but the main one: it writes nothing."""

    folder = None

    def event(self, kind: str, **values) -> None:
        pass

    def heartbeat(self) -> None:
        pass

    def phase(self, phase: str, *words: str | None) -> None:
        pass
