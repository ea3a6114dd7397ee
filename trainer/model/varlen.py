"""Attention within a pack on a GPU: torch's `varlen_attn`, one flash-attention kernel for all rows of the pack.

No mask and no padding: the kernel is told where each row's queries and keys begin. Where the rows share a beginning, the keys of each
are that beginning and its own; the kernel aligns queries and keys at their ends, as flash attention does from 2.1 on. A run uses it
after the proof has shown on its own model that it gives what each row gives alone; not run on a GPU yet.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from trainer.model.packing import on_device

VARLEN = "packed_varlen"
CAPABILITY = (8, 0)  # of the flash-attention kernels in torch: Ampere


@dataclass(frozen=True)
class Layout:
    """Where each row's queries and keys begin, on the device."""

    queries: torch.Tensor  # int32, one more than there are rows
    keys: torch.Tensor
    longest_query: int
    longest_key: int
    order: torch.Tensor | None  # of the pack's keys, where rows share a beginning; None: as they are


def refusal(model: PreTrainedModel) -> str | None:
    """Why the kernel is not tried for this model; what the kernel itself refuses, as a size of heads, the proof sees."""
    config, device = model.config.get_text_config(), model.device
    dropout = [name for name, value in vars(config).items() if "att" in name and "drop" in name and value]
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than flash attention's kernels"
    if model.dtype is not torch.bfloat16:
        return f"flash attention does not compute in {model.dtype}"
    return f"{dropout[0]} is not 0" if dropout else None


def attend(
    _module, query, key, value, _mask, *, lengths: list[int], scaling: float | None = None, sliding_window: int | None = None, **options
):
    """Attention of a pack whose shared beginning and rests have these lengths, as transformers asks for it."""
    if options.get("dropout") or options.get("softcap") or options.get("s_aux") is not None:
        raise ValueError("varlen_attn has no dropout, no softcap and no sinks")
    layout = _layout(tuple(lengths), query.device)
    # Custom operators are not cast by autocast: a model that leaves one of the three in fp32 would fail.
    queries, keys, values = (states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value))
    if layout.order is not None:
        keys, values = keys.index_select(0, layout.order), values.index_select(0, layout.order)
    output: Any = varlen_attn(
        queries,
        keys,
        values,
        layout.queries,
        layout.keys,
        layout.longest_query,
        layout.longest_key,
        scale=scaling,
        # transformers counts the token itself into a window, flash attention only those before it
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    return output.unsqueeze(0), None


@lru_cache(maxsize=1)  # the same in every layer of a pack
def _layout(lengths: tuple[int, ...], device: torch.device) -> Layout:
    shared, *rests = lengths
    if not shared:
        starts = _starts(rests, device)
        return Layout(starts, starts, max(rests), max(rests), None)
    # The beginning is a row of its own: its queries see it alone.
    queries, keys = [shared, *rests], [shared, *(shared + rest for rest in rests)]
    beginning, ends = range(shared), list(accumulate(queries))
    order = [*beginning, *(index for start, end in pairwise(ends) for index in (*beginning, *range(start, end)))]
    indices = on_device(torch.tensor(order), device)
    return Layout(_starts(queries, device), _starts(keys, device), max(queries), max(keys), indices)


def _starts(lengths: list[int], device: torch.device) -> torch.Tensor:
    return on_device(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


AttentionInterface.register(VARLEN, attend)
