"""Attention within a pack: each row sees the beginning that all rows share, and itself.

transformers can build a block-diagonal mask from the positions, and then computes every pair of tokens of the pack to throw
most away. Row by row, a step of 8 rows of 220 tokens took about half the time on a busy 2-core CPU (SmolLM2-135M's shapes).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainer.model.varlen import VARLEN

PACKED = "packed"


def packed(model: PreTrainedModel, implementation: str = PACKED) -> AbstractContextManager:
    """Within this, `model` takes packs (with `lengths=`); outside it takes batches with a mask, as `generate` needs."""
    return _with_implementation(model, implementation)


def for_pack_tokens(model: PreTrainedModel, pack_tokens: int | None, implementation: str = PACKED) -> AbstractContextManager:
    """Within this, `model` takes packs of `pack_tokens`; where that is None, one row at a time in the model's own attention."""
    return packed(model, implementation) if pack_tokens else nullcontext()


def unpacked(model: PreTrainedModel, implementation: str) -> AbstractContextManager:
    """Within this, inside `packed`, `generate` works: in the model's own attention."""
    return _with_implementation(model, implementation)


def is_packed(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation in (PACKED, VARLEN)


def implementations(model: PreTrainedModel) -> set[str]:
    """The attention that each part of the model says it computes with: some ignore the configured one."""
    return {part.config.get_text_config()._attn_implementation for part in model.modules() if isinstance(part, PreTrainedModel)}


@contextmanager
def _with_implementation(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _within_rows(module, query, key, value, attention_mask, *, lengths: list[int], sliding_window: int | None = None, **options):
    queries, keys, values = (states.split(lengths, 2) for states in (query, key, value))
    masks = _masks(tuple(lengths), sliding_window, query.dtype, query.device)
    outputs = []
    for row in range(0 if lengths[0] else 1, len(lengths)):
        seen, answered = (torch.cat([states[0], states[row]], 2) if row and lengths[0] else states[row] for states in (keys, values))
        outputs.append(sdpa_attention_forward(module, queries[row], seen, answered, masks[row], **options)[0])
    return torch.cat(outputs, dim=1), None


@lru_cache(maxsize=1)  # the same in every layer of a pack; masks of earlier packs would only take memory
def _masks(lengths: tuple[int, ...], window: int | None, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor | None]:
    """Which tokens attend to which, in the shared beginning and in each row after it; None where plain causal attention is right.

    As floats to add: from a boolean mask every layer would make floats of its own, and save them for its gradients.
    """
    shared, *rests = lengths
    return [_mask(shared, 0, window, dtype, device), *(_mask(rest, shared, window, dtype, device) for rest in rests)]


def _mask(length: int, before: int, window: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
    if not before and (window is None or length <= window):
        return None
    distance = torch.arange(before, before + length, device=device)[:, None] - torch.arange(before + length, device=device)
    visible = (distance >= 0) & (distance < (window or before + length))
    return torch.zeros_like(distance, dtype=dtype).masked_fill(~visible, float("-inf"))[None, None]


AttentionInterface.register(PACKED, _within_rows)
