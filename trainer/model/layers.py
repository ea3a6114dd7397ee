"""Which linear layers of a model are not computed from text to text: an adapter on "all linear layers" leaves them as they are."""

import re

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel

from trainer.estimate.shape import UNREACHED

ROUTER = re.compile(r"(^|[._])(gate|router|routers|shared_expert_gate)([._]|$)")  # what chooses experts, by transformers' names for it


def apart(model: PreTrainedModel) -> list[str]:
    """The names of linear layers that see, hear or choose experts, of further heads, and of what no gradient reaches."""
    own, counts = set(map(id, model.get_decoder().modules())), _experts(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    head = model.get_output_embeddings()
    linear.pop(next((name for name, module in linear.items() if module is head), None), None)
    if not any(id(module) in own for module in linear.values()):  # a head that is called decoder (ModernBERT)
        own = set(map(id, linear.values()))
    return [name for name, module in linear.items() if id(module) not in own or UNREACHED.search(name) or _chooses(name, module, counts)]


def leave_routers(config: LoraConfig, model: PreTrainedModel) -> None:
    """Take out of "all linear layers" what chooses experts: PEFT counts in what was a linear layer before transformers 5."""
    convert_peft_config_for_transformers(config, model, None)
    config.target_parameters = [name for name in config.target_parameters or [] if not ROUTER.search(name)] or None


def _chooses(name: str, module: torch.nn.Linear, counts: set[int]) -> bool:
    """Whether the layer decides which experts take part: by its name, and by what it gives for each of them."""
    return bool(ROUTER.search(name)) and module.out_features in counts


def _experts(model: PreTrainedModel) -> set[int]:
    values = vars(model.config.get_text_config())
    counts = {value for name, value in values.items() if "expert" in name and type(value) is int}
    return counts | {1} if counts else set()
