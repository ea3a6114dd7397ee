"""The optimizer by its library's own name and options, and the learning rate of each step."""

import inspect
import math
from collections.abc import Callable
from importlib import import_module

import torch
from peft import PeftModel

from conf.problem import Problem
from conf.schema import LrScheduler, Train


def optimizer_class(train: Train) -> type[torch.optim.Optimizer]:
    """The class that `train.optimizer` names; a Problem where it does not take `train.optimizer_options`."""
    module, _, name = train.optimizer.rpartition(".")
    named = getattr(import_module(module), name, None)
    if not (inspect.isclass(named) and issubclass(named, torch.optim.Optimizer)) or named is torch.optim.Optimizer:
        raise Problem(f"{module} has no optimizer `{name}`", "`train.optimizer=torch.optim.AdamW`, or another of its classes")
    parameters = inspect.signature(named).parameters
    known_options = parameters.keys() - {"params", "lr"}
    unknown = [option for option in train.optimizer_options if option not in known_options]
    if unknown:
        options = ", ".join(sorted(known_options))
        raise Problem(f"{train.optimizer} takes no option `{unknown[0]}`", f"`train.optimizer_options` may hold: {options}")
    booleans = [name for name in known_options if isinstance(parameters[name].default, bool) or "bool" in str(parameters[name].annotation)]
    if wrong := [name for name in booleans if not isinstance(train.optimizer_options.get(name), bool | None)]:
        what = f"train.optimizer_options.{wrong[0]} is {train.optimizer_options[wrong[0]]!r}, and it is true or false"
        raise Problem(what, f"`train.optimizer_options.{wrong[0]}=true`, or leave it out")
    return named


def build(tuned: PeftModel, train: Train) -> torch.optim.Optimizer:
    """An optimizer of the adapter's weights. Each group's `ratio` says how much faster than `train.lr` it learns."""
    kind: Callable[..., torch.optim.Optimizer] = optimizer_class(train)
    weights = [(name, weight) for name, weight in tuned.named_parameters() if weight.requires_grad]
    # LoRA+ (arXiv 2402.12354): B starts at zero and may learn faster than A.
    faster = [weight for name, weight in weights if "lora_B" in name]
    others = [weight for name, weight in weights if "lora_B" not in name]
    groups = [{"params": others, "ratio": 1.0}, {"params": faster, "ratio": train.loraplus_lr_ratio}]
    try:
        return kind(groups, lr=train.lr, **train.optimizer_options)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"{train.optimizer} refuses its options: {str(error).splitlines()[0]}"
        raise Problem(what, "see `train.optimizer_options`, and the optimizer's own documentation") from error


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]


def learning_rate(step: int, last: int, train: Train) -> float:
    """The learning rate of a step: linear warmup, then the schedule."""
    warm = math.ceil(train.warmup_ratio * last) if train.warmup_steps is None else train.warmup_steps
    if step <= warm:
        return train.lr * step / warm
    done = (step - 1 - warm) / max(last - warm, 1)
    return train.lr * _decay_factor(done, train)


def _decay_factor(done: float, train: Train) -> float:
    """The factor of the learning rate when this share of the steps after the warmup is done."""
    if train.lr_scheduler is LrScheduler.linear:
        return 1 - done
    if train.lr_scheduler is LrScheduler.cosine:
        return (1 + math.cos(math.pi * done)) / 2
    if train.lr_scheduler is LrScheduler.wsd:
        return min(1.0, (1 - done) / train.decay_ratio)
    return 1.0
