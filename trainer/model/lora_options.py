"""Options of PEFT's LoraConfig that a run may have: those whose effect is proved and exported. PEFT takes others and heeds them silently,
partly or not at all, and a name that matches nothing as well.
"""

import re
from collections.abc import Iterable

import torch
from transformers import PreTrainedModel

from conf import schema
from conf.problem import Problem
from trainer.estimate.shape import ADAPTED_EXPERTS

OPTIONS = {
    *("modules_to_save", "trainable_token_indices", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("bias", "lora_bias", "use_dora", "use_rslora", "init_lora_weights", "rank_pattern", "alpha_pattern", "ensure_weight_tying"),
}
NAMES = ("modules_to_save", "exclude_modules", "rank_pattern", "alpha_pattern")  # options that name modules


def check(options: dict) -> None:
    """A Problem for an option that no run is made with."""
    if other := sorted(options.keys() - OPTIONS):
        what = f"lora.options.{other[0]} is PEFT's, and nothing here proves, exports or merges what it does"
        raise Problem(what, f"`lora.options` may hold: {', '.join(sorted(OPTIONS))}")


def check_merged(settings: schema.Recipe) -> None:
    """A Problem for what cannot be merged, before it is trained."""
    if settings.publish.merged and settings.lora.options.get("lora_bias"):
        what = "lora.options.lora_bias cannot be merged into layers that have no bias"
        raise Problem(what, "publish the adapter alone, `publish.merged=false`, or leave out lora.options.lora_bias")


def check_names(lora: schema.Lora, model: PreTrainedModel) -> None:
    """A Problem for a name in the settings that matches nothing of the model, and for a token or a layer that it does not have."""
    modules, parameters = [name for name, _ in model.named_modules()], [name for name, _ in model.named_parameters()]
    if isinstance(lora.targets, list):  # PEFT takes experts by the names that they had as layers
        _each("lora.targets", lora.targets, [*modules, *parameters, *ADAPTED_EXPERTS.get(model.config.model_type, ())], model)
    for option in NAMES:
        named = lora.options.get(option) or ()
        _each(f"lora.options.{option}", [named] if isinstance(named, str) else named, modules, model)
    _each("lora.options.target_parameters", lora.options.get("target_parameters") or (), parameters, model)
    listed = lora.options.get("trainable_token_indices") or []
    for tokens in [listed] if isinstance(listed, list) else listed.values():
        _within("lora.options.trainable_token_indices", tokens, model.get_input_embeddings().weight.shape[0], "tokens")
    layers = lora.options.get("layers_to_transform")
    if layers is not None:
        count = model.config.get_text_config().num_hidden_layers
        _within("lora.options.layers_to_transform", layers if isinstance(layers, list) else [layers], count, "layers")


def _each(setting: str, named: Iterable[str], known: list[str], model: PreTrainedModel) -> None:
    for name in named:
        try:
            found = any(each == name or each.endswith(f".{name}") or re.fullmatch(rf"(.*\.)?({name})", each) for each in known)
        except re.error:
            found = False
        if not found:
            raise Problem(
                f"{setting} has {name!r}, which matches no layer of the model", f"use some of: 'lora.targets=[{linear_names(model)}]'"
            )


def linear_names(model: PreTrainedModel) -> str:
    """The last parts of the names of its linear layers, but for the head."""
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return ",".join(sorted(linear - {"lm_head"}))


def _within(setting: str, numbers: list, size: int, what: str) -> None:
    for number in numbers:
        if type(number) is not int or not 0 <= number < size:
            raise Problem(f"{setting} has {number!r}, and the model has {size} {what}", f"use whole numbers from 0 to {size - 1}")
