"""The base model, its adapter, and the loss of a pack.

The base is frozen, in NF4 or plain; the adapter is PEFT's, with weights in fp32. `prepare_model_for_kbit_training` stays out:
it would copy embeddings, head and norms to fp32.
"""

import inspect
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from conf import schema
from conf.problem import Problem
from trainer.estimate import architecture, memory, shape
from trainer.estimate.fit import AvailableMemory
from trainer.hub_errors import explained
from trainer.model import attention, layers, lora_options, nf4
from trainer.model.packing import Pack, on_device
from trainer.rows import description

ALLOW_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
IGNORE_PATTERNS = ["*/*", "consolidated*"]  # other formats of the same weights
# Without it, transformers asks on a terminal whether it may run code of the model's repository.
NO_REMOTE_CODE = {"trust_remote_code": False}


@dataclass(frozen=True)
class BaseModel:
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    revision: str | None  # the commit; None for a local folder
    stops: list[int]  # tokens at which the model ends an answer
    precision: str  # and why
    attention: str  # transformers' name of the model's own implementation


def load(model: schema.Model, quant: schema.Quant, target: torch.device | None = None) -> BaseModel:
    """The base model, fetched by its Hub id (or read from a local folder), and placed on `target`: usually the device that computes."""
    folder, revision = fetch(model)
    dtype, described = precision(device())
    target = target or device()
    quantised, stored = quant.kind is schema.Quantisation.nf4, architecture.stored_quantisation(config(folder))
    options = {"quantization_config": nf4.config(quant, dtype)} if quantised else {}
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model.id, folder)
    with _loadable(model.id):
        # Straight to the device: the host needs no room for all of the weights.
        weights = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": str(target)}, **NO_REMOTE_CODE, **options)
    nf4.disable_repacking(weights)
    stops = weights.generation_config.eos_token_id
    plain = f"base weights as they are stored: {stored}" if stored else "base weights not quantised"
    described += f", {nf4.describe(weights)}" if quantised and nf4.layers(weights) else f", {plain}"
    print(f"{model.id}: {sum(p.numel() for p in weights.parameters()):,} stored numbers; {described}", flush=True)
    implementation = weights.config._attn_implementation
    return BaseModel(weights, tokenizer, revision, _as_list(stops), described, implementation)


def load_tokenizer(name: str, files: Path) -> transformers.PreTrainedTokenizerBase:
    with _loadable(name):
        return AutoTokenizer.from_pretrained(files, **NO_REMOTE_CODE)


def config(files: Path) -> dict:
    """The model's config.json, as it is in its folder."""
    return description.config(files)


def shape_of_config(name: str, files: Path) -> shape.Shape | None:
    """The model's sizes, before its weights are loaded: from the model on the meta device; for a stored quantised one from its files."""
    values = config(files)
    if architecture.stored_quantisation(values):
        return shape.shape(shape.of_folder(files), values)
    with _loadable(name), torch.device("meta"):
        return shape_of_model(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(files, **NO_REMOTE_CODE), **NO_REMOTE_CODE))


ADDED_BY_PEFT = re.compile(r"\.(lora_\w+|modules_to_save|trainable_tokens_\w+)(\.|$)")  # by PEFT, beside the base model's own weights
WRAPPED_BY_PEFT = re.compile(r"^base_model\.model\.|\.(base_layer|original_module|token_adapter)(?=\.)")


def shape_of_model(model: transformers.PreTrainedModel | PeftModel) -> shape.Shape | None:
    """The sizes of a model as if nothing were quantised in it, and without its adapter."""
    stored = {f"{name}.weight": size for name, size in nf4.sizes(model).items()}
    sizes = {name: stored.get(name, weight.shape) for name, weight in model.named_parameters() if not ADDED_BY_PEFT.search(name)}
    numbers = {WRAPPED_BY_PEFT.sub("", name): size for name, size in sizes.items()}
    values = model.config.to_dict()
    values.pop("quantization_config", None)
    return shape.shape({name: shape.Tensor(tuple(size), "F32") for name, size in numbers.items()}, values)


@contextmanager
def _loadable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        if getattr(error, "errno", None):
            raise
        what = f"{name} cannot be loaded as a causal language model: {str(error).splitlines()[0]}"
        raise Problem(what, "choose another: `model.id=owner/name`", "model_unavailable") from error


def fetch(model: schema.Model) -> tuple[Path, str | None]:
    """The folder with the model's files, and the commit they are of."""
    if Path(model.id).is_dir():
        return Path(model.id), None
    with explained(model.id, os.environ.get("HF_ENDPOINT")):
        folder = Path(snapshot_download(model.id, revision=model.revision, allow_patterns=ALLOW_PATTERNS, ignore_patterns=IGNORE_PATTERNS))
    if not list(folder.glob("*.safetensors")):
        raise Problem(f"{model.id} has no weights as .safetensors", "choose another: `model.id=owner/name`", "model_unavailable")
    return folder, folder.name


INIT_LORA_WEIGHTS = re.compile(r"True|False|gaussian|orthogonal|olora|pissa(_niter_\d+)?")


def adapter_config(lora: schema.Lora, apart: list[str] | None = None) -> LoraConfig:
    """PEFT's configuration of the adapter, checked by PEFT itself. "all-linear" excludes the layers in `apart`."""
    peft_options = {option.name for option in fields(LoraConfig)}
    unknown = [name for name in lora.options if name not in peft_options]
    if unknown:
        close = get_close_matches(unknown[0], peft_options, n=1)
        hint = f"did you mean `lora.options.{close[0]}`?" if close else "see peft.LoraConfig for its options"
        raise Problem(f"PEFT's LoraConfig has no option `{unknown[0]}`", hint)
    truths = [entry.name for entry in fields(LoraConfig) if entry.type in (bool, "bool")]
    if loose := [name for name in truths if not isinstance(lora.options.get(name, False), bool)]:  # PEFT takes 7 for true
        what = f"lora.options.{loose[0]} is {lora.options[loose[0]]!r}, and it is true or false"
        raise Problem(what, f"`lora.options.{loose[0]}=true`, or leave it out")
    start = str(lora.options.get("init_lora_weights", True))
    if not INIT_LORA_WEIGHTS.fullmatch(start):
        what = f"lora.options.init_lora_weights is {start}; an adapter cannot start that way without looking at data first"
        raise Problem(what, "use true, gaussian, orthogonal, olora, pissa or pissa_niter_16")
    if changes_base_weights(lora) and lora.options.get("use_dora"):
        what = f"lora.options asks for DoRA on top of {start}; such an adapter cannot be converted for the original base weights"
        raise Problem(what, "choose one of them")
    uneven = [name for name in ("rank_pattern", "alpha_pattern") if lora.options.get(name)]
    if changes_base_weights(lora) and lora.options.get("use_rslora") and uneven:
        what = f"lora.options asks for rsLoRA and {uneven[0]} on top of {start}; such an adapter cannot be converted for the base"
        raise Problem(what, f"leave out one of them: `lora.options.use_rslora=false`, or no {uneven[0]}")
    lora_options.check(lora.options)
    try:
        return LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            **{"task_type": "CAUSAL_LM"} | ({"exclude_modules": apart} if apart and lora.targets == "all-linear" else {}) | lora.options,
        )
    except (TypeError, ValueError) as error:
        raise Problem(f"PEFT's LoraConfig refuses lora.options: {str(error).splitlines()[0]}", "see peft.LoraConfig") from error


def changes_base_weights(lora: schema.Lora) -> bool:
    """Whether the initial adapter is taken out of the base weights (PiSSA, OLoRA)."""
    return str(lora.options.get("init_lora_weights")).startswith(("pissa", "olora"))


def add_adapter(base: BaseModel, lora: schema.Lora, gradient_checkpointing: bool) -> PeftModel:
    """The base model with a new adapter, whose weights alone are trained."""
    apart = layers.non_text_layers(base.model)
    config = adapter_config(lora, apart)
    lora_options.check_names(lora, base.model)
    if lora.targets == "all-linear":
        layers.exclude_routers(config, base.model)
    try:
        with layers.without_expert_pattern_warning():
            tuned = get_peft_model(base.model, config)  # casts the adapter to fp32, whatever the base has
    except TypeError as error:  # PiSSA on 4-bit weights
        what = f"lora.options does not work with these base weights: {str(error).splitlines()[0]}"
        raise Problem(what, "keep the base weights plain: `quant=none`, or start another way") from error
    except ValueError as error:
        names, reason = lora_options.linear_names(base.model), str(error).splitlines()[0]
        what = "matches no layer of the model" if "not found in the base model" in reason else f"is refused by PEFT: {reason}"
        raise Problem(f"lora.targets={lora.targets} {what}", f"use some of: 'lora.targets=[{names}]'") from error
    if lora.targets == "all-linear" and (skipped := layers.skipped_layers(tuned, apart)):
        print(f"no adapter on {', '.join(skipped)} outside of experts: PEFT adapts the experts' by these names", flush=True)
    if gradient_checkpointing:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
    return tuned


def loss(model: PeftModel, pack: Pack, noise: float = 0.0) -> torch.Tensor:
    """The sum of the losses of the pack's supervised tokens."""
    return functional.cross_entropy(logits(model, pack, noise).float(), on_device(pack.labels, model.device), reduction="sum")


def logits(model: PeftModel, pack: Pack, noise: float = 0.0) -> torch.Tensor:
    """The logits at the pack's supervised tokens. The head is computed at those tokens only."""
    device, base = model.device, model.get_base_model()
    options, supervised = _pack_options(base, pack), on_device(pack.supervised, device)
    selects = "logits_to_keep" in inspect.signature(base.forward).parameters
    if selects:
        options["logits_to_keep"] = supervised
    with torch.autocast(device.type, torch.bfloat16, enabled=base.dtype is torch.bfloat16):
        output = base(**_inputs(model, pack, noise), **options, use_cache=False).logits[0]  # PEFT's own call would pass FSDP's by
    return output if selects else output[supervised]


def _pack_options(base: transformers.PreTrainedModel, pack: Pack) -> dict:
    """The arguments of a pack besides its tokens; none for a single row."""
    if attention.is_packed(base):
        return {"position_ids": on_device(pack.positions, base.device), "lengths": pack.lengths}
    if len(pack.rows) > 1:
        raise ValueError(f"{len(pack.rows)} rows in a pack, and the model would take them for one")
    return {}


def _inputs(model: PeftModel, pack: Pack, noise: float) -> dict[str, torch.Tensor]:
    """The pack's tokens, or their embeddings with NEFTune's noise (arXiv 2310.05914): uniform, scaled by the length of each row."""
    tokens = on_device(pack.tokens, model.device)
    if not noise:
        return {"input_ids": tokens}
    embedded = model.get_input_embeddings()(tokens)
    shared, rests = pack.lengths[0], pack.lengths[1:]
    lengths = [shared + sum(rests) / len(rests)] * shared + [shared + rest for rest in rests for _ in range(rest)]
    size = noise / (on_device(torch.tensor(lengths), model.device) * embedded.shape[-1]).sqrt()
    return {"inputs_embeds": embedded + (torch.rand_like(embedded) * 2 - 1) * size[:, None].to(embedded.dtype)}


def save_initial_adapter(tuned: PeftModel, folder: Path) -> None:
    """Save the initial adapter for `save`, which subtracts it again: it was taken out of the base weights."""
    config: Any = tuned.peft_config["default"]  # of LoRA
    start, config.init_lora_weights = config.init_lora_weights, True
    tuned.save_pretrained(folder, save_embedding_layers=False)
    config.init_lora_weights = start


def save(tuned: PeftModel, base: BaseModel, model: schema.Model, folder: Path, start: Path | None = None) -> None:
    """Write the adapter as plain PEFT, with the tokenizer and the prompt's template. It names its base by Hub id and commit.

    With `start`, an adapter that was taken out of the base weights becomes one of twice the rank, for the original base weights.
    """
    config = tuned.peft_config["default"]
    config.base_model_name_or_path = model.id
    config.revision = base.revision
    # save_embedding_layers="auto", PEFT's default, asks the Hub for the base model's vocabulary size.
    options = {"path_initial_model_for_weight_conversion": str(start)} if start else {}
    tuned.save_pretrained(folder, save_embedding_layers=False, **options)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the card is made from the record
    base.tokenizer.save_pretrained(folder)


def use_greedy_decoding(base: BaseModel, stops: list[int]) -> None:
    """From here on `generate` takes the most likely token, whatever the model's own generation settings say."""
    base.model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=base.tokenizer.pad_token_id, do_sample=False)


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if has_gpu() else torch.device("cpu")


def has_gpu() -> bool:
    return torch.cuda.is_available()


def gpu_name() -> str | None:
    """The name of the GPU; None on a CPU."""
    return torch.cuda.get_device_name(device()) if has_gpu() else None


def number_format(base: BaseModel, processes: int) -> str:
    """The number format, and the kind and the number of devices: in others sums differ."""
    device = "GPU" if has_gpu() else "CPU"
    return f"{base.precision.partition(',')[0]} on {f'a {device}' if processes == 1 else f'{processes} {device}s'}"


def bytes_per_number(target: torch.device) -> int:
    """Bytes of a number in the device's format of computation."""
    return precision(target)[0].itemsize


def available_memory(processes: int = 1) -> AvailableMemory | None:
    """The memory that is free for a process: of its GPU, or its part of the machine's; None where the system does not say."""
    if has_gpu():
        free, total = torch.cuda.mem_get_info(device())
        return AvailableMemory(torch.cuda.get_device_name(device()), min(free, int(total * (1 - memory.RESERVE))))
    left = free_memory()
    return None if left is None else AvailableMemory("this machine", left // processes)


def free_memory() -> int | None:
    """Bytes of memory that programs can still allocate; None where the system does not say."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    values = dict(line.split(":") for line in table.read_text(encoding="utf-8").splitlines())
    return int(values["MemAvailable"].split()[0]) * 1024


def peak_memory() -> int:
    """Peak bytes of this process: on the GPU if there is one, else in the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def precision(target: torch.device) -> tuple[torch.dtype, str]:
    """The device's format of computation, and why."""
    if target.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bf16, as this GPU computes it natively"
        return torch.float32, "fp32, as this GPU has no bf16 and fp16 overflows"
    able, allowed = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability()
    if not (able.get("amx_bf16") or able.get("avx512_bf16")):
        return torch.float32, "fp32, as this CPU only emulates bf16"
    if allowed != "AVX512":  # by ATEN_CPU_CAPABILITY
        return torch.float32, f"fp32, as torch may use no more than {allowed} of this CPU"
    return torch.bfloat16, "bf16, as this CPU computes it natively"


def _as_list(tokens: int | list[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
