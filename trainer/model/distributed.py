"""The processes that train together: this one alone, or as many as `launch` has started on this machine, one a GPU.

Each takes its share of a step's rows and computes their gradients; the sum over all processes is the step's gradient, so every
process ends the step with the same adapter. Held-out rows are measured and answered in the packs and batches of one process, each by one
of them. Only the main process writes: checkpoints, record, adapter, scores.
"""

import json
import os
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.problem import Problem
from trainer.rows.prompt import Example

if TYPE_CHECKING:
    from torch import Tensor  # imported where it is used: a process that only writes the record needs no torch

RENDEZVOUS = "TRAINER_RENDEZVOUS"  # names the folder in which the processes of a run meet; set in them, and nowhere else
TIMEOUT = timedelta(hours=2)  # how long one process waits for the others: the main one may be scoring or saving
GRACE = 3  # seconds that a process has to end by itself when the main one has


class ProcessGroup:
    """This process among those that train together."""

    def __init__(self, world_size: int | None = None, rank: int | None = None):
        self.world_size = int(os.environ.get("WORLD_SIZE", "1")) if world_size is None else world_size
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self.lockstep = False  # whether a pass through the model needs all processes at once, as a sharded one does
        if self.world_size > 1 and world_size is None:
            self._join()

    def _join(self) -> None:
        if RENDEZVOUS not in os.environ:
            what = "the trainer starts its processes itself, and another launcher has started this one"
            raise Problem(what, "start it without one: `python -m trainer train.processes=2 ...`", "refused")
        import torch

        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group(
            "nccl" if gpu else "gloo",
            init_method=f"file://{Path(os.environ[RENDEZVOUS], 'processes')}",  # a port would be open to the network
            rank=self.rank,
            world_size=self.world_size,
            timeout=TIMEOUT,
        )
        main = self.broadcast(os.getpid())
        threading.Thread(target=_end_with, args=(os.getppid(), None if self.is_main_process else main), daemon=True).start()

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def shard(self, rows: list[Example]) -> list[Example]:
        """This process's rows of a step."""
        return self.shares(rows)[self.rank]

    def shares(self, rows: list[Example]) -> list[list[Example]]:
        """Each process's rows of a step. The longest first, each to the process with the fewest tokens, so that all finish together."""
        shares: list[list[Example]] = [[] for _ in range(self.world_size)]
        tokens = [0] * self.world_size
        for row in sorted(rows, key=len, reverse=True):
            least = tokens.index(min(tokens))
            shares[least].append(row)
            tokens[least] += len(row)
        return shares

    def share(self, items: list) -> list:
        """This process's part of what all of them work off: every `world_size`-th."""
        return items[self.rank :: self.world_size]

    def idle(self, count: int) -> int:
        """How often this process must pass through the model besides its share of `count`, where all do it together."""
        return (-(-count // self.world_size) - len(range(self.rank, count, self.world_size))) * self.lockstep

    def collect(self, results: list) -> list:
        """The results of all processes' shares, in the order of what was shared."""
        parts = self.gather(results)
        return [parts[index % self.world_size][index // self.world_size] for index in range(sum(map(len, parts)))]

    def all_reduce(self, values: list["Tensor"]) -> None:
        """Make each value its sum over all processes, in one message."""
        if self.world_size == 1:
            return
        import torch

        together = torch.cat([value.reshape(-1).float() for value in values])
        torch.distributed.all_reduce(together)
        for value, total in zip(values, together.split([value.numel() for value in values]), strict=True):
            value.copy_(total.view_as(value))

    def gather(self, value) -> list:
        """The values of all processes, in every process."""
        if self.world_size == 1:
            return [value]
        import torch

        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value):
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


ALONE = ProcessGroup(1, 0)


class NullRecord:
    """The record of every process but the main one: it writes nothing."""

    folder = None

    def event(self, kind: str, **values) -> None:
        pass

    def heartbeat(self) -> None:
        pass

    def phase(self, phase: str, *words: str | None) -> None:
        pass


def is_one_of_several() -> bool:
    """Whether `launch` has started this process."""
    return RENDEZVOUS in os.environ


def report(problem: Problem) -> None:
    """Leave why this process ends for the one that has started it."""
    rank = os.environ.get("RANK", "0")
    words = {"what": problem.what, "hint": problem.hint, "reason": problem.reason}
    Path(os.environ[RENDEZVOUS], f"failed-{rank}.json").write_text(json.dumps(words), encoding="utf-8")


def _end_with(parent: int, main: int | None) -> None:
    """End this process when the one that started it is gone, or the main one: it may be waiting for that one in the GPU, for hours."""
    while os.getppid() == parent and (main is None or _lives(main)):
        time.sleep(0.5)
    if os.getppid() == parent:
        time.sleep(GRACE)
    os._exit(1)


def _lives(process: int) -> bool:
    with suppress(OSError):
        os.kill(process, 0)
        return True
    return False
