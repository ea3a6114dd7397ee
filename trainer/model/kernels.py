"""What computes the attention and the loss of packs: on a GPU kernels that torch brings, where the run's own model shows them right."""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.model import attention, chunked_loss, model


@dataclass(frozen=True)
class Kernels:
    """The choice of a run, made by the proof before step 1. Those that are right everywhere are the default."""

    attention: str = attention.PACKED
    chunked_loss: bool = False
    told: str = ""  # the choice and its reasons, in words

    @property
    def loss(self) -> Callable:
        return chunked_loss.loss if self.chunked_loss else model.loss
