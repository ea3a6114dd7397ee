"""Linear layers that an adapter on "all linear layers" leaves out: those of other modalities, routers, heads."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel

from trainer.estimate.shape import ROUTER, UNREACHED


def non_text_layers(model: PreTrainedModel) -> list[str]:
    """The names of linear layers of other modalities, of routers, of further heads, and of layers that no gradient reaches."""
    decoder, counts = set(map(id, model.get_decoder().modules())), _expert_counts(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    head = model.get_output_embeddings()
    linear.pop(next((name for name, module in linear.items() if module is head), None), None)
    if not any(id(module) in decoder for module in linear.values()):  # a head that is called decoder (ModernBERT)
        decoder = set(map(id, linear.values()))
    return [
        name for name, module in linear.items() if id(module) not in decoder or UNREACHED.search(name) or _is_router(name, module, counts)
    ]


def exclude_routers(config: LoraConfig, model: PreTrainedModel) -> None:
    """Take routers out of "all linear layers": PEFT counts in what was a linear layer before transformers 5."""
    convert_peft_config_for_transformers(config, model, None)
    config.target_parameters = [name for name in config.target_parameters or [] if not ROUTER.search(name)] or None


@contextmanager
def without_expert_pattern_warning() -> Iterator[None]:
    """Hide PEFT's warning that it ignored the rank pattern of experts. They are parameters, not modules; the pattern works."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys did not match .*\['\.\*\\\\\.gate_up_proj'\]")
        yield


def skipped_layers(tuned: PeftModel, stand_apart: list[str]) -> list[str]:
    """The last parts of the names of linear layers that "all linear layers" should adapt and PEFT does not, as it takes their names for
    those of experts.
    """
    base = tuned.get_base_model()
    adapted = {name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)}
    plain = {
        name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and module is not base.get_output_embeddings()
    }
    within = tuple(f"{name}." for name in adapted)
    return sorted({name.rpartition(".")[2] for name in plain - adapted - set(stand_apart) if not name.startswith(within)})


def _is_router(name: str, module: torch.nn.Linear, counts: set[int]) -> bool:
    """Whether the layer decides which experts take part: by its name, and by its number of outputs."""
    return bool(ROUTER.search(name)) and module.out_features in counts


def _expert_counts(model: PreTrainedModel) -> set[int]:
    values = vars(model.config.get_text_config())
    counts = {value for name, value in values.items() if "expert" in name and type(value) is int}
    return counts | {1} if counts else set()
