"""The loss of a pack with the logits of a few tokens in memory at a time, by torch's `linear_cross_entropy`.

For a GPU: with a large vocabulary the logits take more memory than anything else, 12 bytes each with their gradients. On a CPU the head
takes 1.3 times as long in fp32 and 2.2 times in bf16 (SmolLM2-135M, 400 tokens, chunks of 128): there all logits are computed at once.
Not run on a GPU yet; the proof before step 1 holds it to the plain loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional

from trainer.model import model
from trainer.model.packing import Pack, on_device

CHUNK = 256  # tokens whose logits are in memory at once: enough work for a matrix product


def loss(tuned: PeftModel, pack: Pack, noise: float = 0.0, chunk: int = CHUNK) -> torch.Tensor:
    """The sum of the losses of the pack's supervised tokens, as `model.loss`.

    In bf16 the sum of `reduction="sum"` is added up in bf16, 0.2 to 0.9 % off; of "none" the loss of each token is rounded once.
    """
    head: Any = tuned.get_base_model().get_output_embeddings()
    with _head_skipped(head):
        hidden = model.logits(tuned, pack, noise)
    chunks = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk, chunking_method=None)
    inputs = hidden.to(head.weight.dtype), head.weight, on_device(pack.labels, tuned.device)
    return functional.linear_cross_entropy(*inputs, linear_bias=head.bias, reduction="none", options=chunks).float().sum()


def refusal(tuned: PeftModel) -> str | None:
    """Why this is not tried: there must be a plain head that is not trained, and that the process holds whole."""
    if isinstance(tuned.get_base_model(), FSDPModule):
        return "the head is cut up over the cards"
    head = tuned.get_base_model().get_output_embeddings()
    return None if type(head) is torch.nn.Linear and not head.weight.requires_grad else "the head is trained, or is no plain one"


@contextmanager
def _head_skipped(head: Any) -> Iterator[None]:
    """Within this the model's logits are what its head would be given."""
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward
