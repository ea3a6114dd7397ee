"""The optimizer by its library's own name and options, and the learning rate of each step."""

import inspect
import math
from importlib import import_module

import torch
from peft import PeftModel

from conf.problem import Problem
from conf.schema import LrScheduler, Train


def choose(train: Train) -> type[torch.optim.Optimizer]:
    """The class that `train.optimizer` names, once it is known to take `train.optimizer_options`."""
    module, _, name = train.optimizer.rpartition(".")
    found = getattr(import_module(module), name, None)
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)) or found is torch.optim.Optimizer:
        raise Problem(f"{module} has no optimizer `{name}`", "`train.optimizer=torch.optim.AdamW`, or another of its classes")
    parameters = inspect.signature(found).parameters
    known = parameters.keys() - {"params", "lr"}
    unknown = [option for option in train.optimizer_options if option not in known]
    if unknown:
        options = ", ".join(sorted(known))
        raise Problem(f"{train.optimizer} takes no option `{unknown[0]}`", f"`train.optimizer_options` may hold: {options}")
    truths = [name for name in known if isinstance(parameters[name].default, bool) or "bool" in str(parameters[name].annotation)]
    if loose := [name for name in truths if not isinstance(train.optimizer_options.get(name), bool | None)]:
        what = f"train.optimizer_options.{loose[0]} is {train.optimizer_options[loose[0]]!r}, and it is true or false"
        raise Problem(what, f"`train.optimizer_options.{loose[0]}=true`, or leave it out")
    return found


def build(tuned: PeftModel, train: Train) -> torch.optim.Optimizer:
    """An optimizer of the adapter's weights. Each group's `ratio` says how much faster than `train.lr` it learns."""
    kind = choose(train)
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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step learn at this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]


def rate(step: int, last: int, train: Train) -> float:
    """The learning rate of a step: up in a line, then as the schedule says."""
    warm = math.ceil(train.warmup_ratio * last) if train.warmup_steps is None else train.warmup_steps
    if step <= warm:
        return train.lr * step / warm
    done = (step - 1 - warm) / max(last - warm, 1)
    return train.lr * _left(done, train)


def _left(done: float, train: Train) -> float:
    """What is left of the learning rate when this share of the steps behind the warmup is done."""
    if train.lr_scheduler is LrScheduler.linear:
        return 1 - done
    if train.lr_scheduler is LrScheduler.cosine:
        return (1 + math.cos(math.pi * done)) / 2
    if train.lr_scheduler is LrScheduler.wsd:
        return min(1.0, (1 - done) / train.decay_ratio)
    return 1.0
