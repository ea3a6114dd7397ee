"""The base weights cut up over the processes: torch's FSDP2, for a model that one card does not hold.

Each process holds a part of every layer's base weights. A layer is gathered where it computes and given up behind it, in every process at
once: all of them must pass through the model equally often. The adapter stays whole, so gradients, optimizer and checkpoints are those
of processes that each hold the whole model.

Weights stay as they are stored: 4-bit ones as bytes. FSDP's `param_dtype` is not used: with 4-bit weights bf16 there changed the losses.
"""

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from conf.problem import Problem

WHOLE = "train on a card that holds the whole model: `train.fsdp=no`"


def mesh(device: torch.device, processes: int) -> DeviceMesh:
    """The processes' devices. All processes make it at once."""
    return init_device_mesh(device.type, (processes,))


def shard(tuned: PeftModel, device: torch.device, devices: DeviceMesh) -> None:
    """Move this process's part of a model that was loaded on the CPU to its device, a layer at a time."""
    base = tuned.get_base_model()
    if any(isinstance(module, ParamWrapper) for module in tuned.modules()):
        what = "the adapter changes experts, whose weights cannot be cut up over processes"
        raise Problem(what, f"name other layers, as in 'lora.targets=[q_proj,v_proj]', or {WHOLE}")
    adapter = {weight for weight in tuned.parameters() if weight.requires_grad}
    for module in [*_layers(base), base]:
        fully_shard(module, mesh=devices, ignored_params=adapter)
    for weight in adapter:
        weight.data = weight.data.to(device)


def _layers(base: PreTrainedModel) -> list[nn.Module]:
    """The layers that are gathered one at a time, by transformers' own list of what must not be cut apart."""
    names = set(base._no_split_modules or ())
    layers = [module for module in base.modules() if type(module).__name__ in names]
    if not layers:
        raise Problem(f"transformers does not say what the layers of {type(base).__name__} are", f"{WHOLE}, or choose another model")
    return layers
