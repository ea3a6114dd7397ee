"""Base weights in 4-bit NF4, in a layout that gradients can pass.

On a CPU with AVX512-BF16, bitsandbytes repacks a layer's weights the first time that it computes without gradients (Linear4bit.forward,
0.50.2): from then on no gradient goes through the layer, and its constants are rounded to bf16. A run evaluates before its first step.
"""

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import BitsAndBytesConfig, PreTrainedModel

from conf import schema
from conf.problem import Problem

REPACKS = "support_avx512bf16_for_cpu"  # what each layer asks before it repacks; set from the CPU when the layer is made
SMALL = 0.02  # of all weights: convolutions, routers and the like are not reported


def config(quant: schema.Quant, dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=quant.double_quant, bnb_4bit_compute_dtype=dtype
    )


def layers(model: torch.nn.Module) -> dict[str, Linear4bit]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def sizes(model: torch.nn.Module) -> dict[str, torch.Size]:
    """The shape of each layer's weight as if it were not quantised. The state is the weight's. The layer has a copy of it only where the
    weight was quantised as a part of the layer (Params4bit._quantize, 0.50.2), and alone has it where the weight is cut up over cards."""
    states = {name: getattr(layer.weight, "quant_state", None) or layer.quant_state for name, layer in layers(model).items()}
    return {name: state.shape for name, state in states.items()}


def describe(model: PreTrainedModel) -> str:
    """How much of the base weights is in 4 bits, in words: experts that share one tensor are not quantised."""
    quantised = sum(size.numel() for size in sizes(model).values())
    apart = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None}
    rest = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1 and id(weight) not in apart}
    plain = sum(weight.numel() for weight in rest.values() if not isinstance(weight, Params4bit))
    if plain <= SMALL * (quantised + plain):
        return "base weights in 4-bit NF4"
    share = plain / (quantised + plain)
    return f"base weights in 4-bit NF4, but for {share:.0%} of them ({plain:,}), which bitsandbytes leaves as they are"


def disable_repacking(model: torch.nn.Module) -> None:
    """From here on no layer repacks its weights, in training or out of it."""
    for name, layer in layers(model).items():
        if not hasattr(layer, REPACKS):
            what = f"bitsandbytes' {type(layer).__name__} has no `{REPACKS}`: it is unknown whether {name} keeps its weights as they are"
            raise Problem(what, "install the pinned packages: `pip install -r trainer/requirements.txt`, or use `quant=none`")
        setattr(layer, REPACKS, False)
