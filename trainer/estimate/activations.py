"""What a layer of each architecture keeps for its backward pass beyond what its matrices show: norms, activation functions, states.

Counted on small random models by `python -m tests.unit.trainer.activations`, which writes the table.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("activations.json")


class Beyond(NamedTuple):
    """Numbers a token: so many times the width of the model, of its MLP, and of a row of every head's attention matrix."""

    hidden: float
    inner: float
    attention: float


@dataclass(frozen=True)
class Activations:
    fp32: Beyond
    bf16: Beyond  # as on a GPU, whose attention keeps no matrix
    counted: bool  # whether a step then takes as many bytes as are planned, within 10 %; else they are estimated
    margin: float = 1.0  # times an estimate: by so much the small model needed more

    def beyond(self, width: int) -> Beyond:
        """For numbers of `width` bytes."""
        return self.bf16 if width == 2 else self.fp32


NONE = Activations(Beyond(0, 0, 0), Beyond(0, 0, 0), False, 2.0)


@cache
def table() -> dict[str, Activations]:
    """By `model_type` as a model's config.json states it."""
    entries = json.loads(TABLE.read_text(encoding="utf-8")).items()
    return {kind: Activations(Beyond(*entry["fp32"]), Beyond(*entry["bf16"]), entry["counted"], _margin(entry)) for kind, entry in entries}


def _margin(entry: dict) -> float:
    return 1.0 if entry["counted"] else max(1.0, 1 / min(entry["planned"].values()))


def of(kind: object) -> Activations:
    """Those of an architecture; nothing, estimated, for one that was never counted."""
    return table().get(str(kind), NONE)
