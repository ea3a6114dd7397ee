"""Which number format tests compute in: one that they name, or the one that this machine computes natively."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from trainer.model import model

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
native = model.precision  # as the trainer chooses it


@contextmanager
def computed_in(name: str) -> Iterator[None]:
    """Within this, models are computed in that format, whatever the machine computes natively; in its own with "native"."""
    chosen = native if name == "native" else lambda _place: (FORMATS[name], f"{name}, as the test asks for it")
    with mock.patch.object(model, "precision", chosen):
        yield


def current() -> str:
    """The name that `computed_in` was given; "native" outside of it."""
    here = model.precision
    return "native" if here is native else here(torch.device("cpu"))[1].split(",")[0]


def tolerance(dtype: torch.dtype) -> float:
    """How far the same result may be off when it is added up in another order, relative to its size.

    fp32 loses a few bits in sums of some hundred products; bf16 rounds what each operation gives by up to half of its eps, 0.4 %.
    """
    return {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]


def same_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Equal but for the rounding of sums in another order: the difference is small beside the whole gradient of each weight."""
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert gradient.norm() > 0, name
        assert (gradient - other[name]).norm() <= tolerance(dtype) * gradient.norm(), name
